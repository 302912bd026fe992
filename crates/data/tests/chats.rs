//! Conversations: OpenAI messages, ShareGPT, Alpaca, and what a template is given with them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use posttrain_data::{Error, Example, Format, ReadOptions};
use serde_json::{Value as Json, json};
use support::{fault, messages, one};

#[test]
fn messages_keep_every_key() {
    let chat = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image", "path": "x"}], "name": "ada"},
        {"content": "", "role": "assistant", "reasoning_content": "hm", "weight": 0, "id": 5, "x": null,
         "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}]},
        {"role": "tool", "content": "22", "tool_call_id": "c"},
        {"role": "assistant", "content": "22."},
    ]);
    let tools =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}]);
    let row = json!({"id": 1, "messages": chat, "tools": tools, "documents": [{"title": "t"}],
        "chat_template_kwargs": {"enable_thinking": false}, "source": null});
    let read = one(&row, &ReadOptions::default()).unwrap();
    assert_eq!(messages(&read).to_string(), chat.to_string());
    assert_eq!(Json::from(read.context.tools.clone()).to_string(), tools.to_string());
    assert_eq!(Json::Object(read.metadata.clone()).to_string(), r#"{"id":1,"source":null}"#);
    assert_eq!(Json::Object(read.to_object().unwrap()), row);
    // Tools as JSON text, as Parquet files hold them.
    let mut as_text = row.clone();
    as_text["tools"] = tools.to_string().into();
    assert_eq!(one(&as_text, &ReadOptions::default()).unwrap().context, read.context);
    let Example::Messages(raw) = &read.example else { panic!() };
    let typed = read.conversation(raw).unwrap();
    assert_eq!(typed.messages[2].train, Some(false));
    assert_eq!(typed.tools[0].name(), Some("f"));
}

#[test]
fn bad_messages_are_faults() {
    let chat = |messages: Json| fault(json!({"messages": messages}), Format::Messages);
    let user = json!({"role": "user", "content": "Hi"});
    for (messages, expected) in [
        (json!([]), "`messages` is empty"),
        (json!("Hi"), "`messages` is a string, expected a list of messages"),
        (json!(["Hi"]), "`messages[0]` is a string, expected an object with `role`"),
        (
            json!([user, {"content": "x"}]),
            "`messages[1]` is an object, expected an object with `role` and `content`, or",
        ),
        (
            json!([{"role": "bot", "content": "x"}]),
            "the role of `messages[0]` is \"bot\", expected system, developer, user, assistant, tool",
        ),
        (
            json!([{"role": 1, "content": "x"}]),
            "`messages[0].role` is the number 1, expected a string",
        ),
        (json!([{"role": "user"}]), "`messages[0].content` is empty"),
        (json!([{"role": "user", "content": null}]), "`messages[0].content` is empty"),
        (
            json!([{"role": "user", "content": {"answer": "x"}}]),
            "`messages[0].content` is an object, expected a string or a list of parts",
        ),
        (
            json!([{"role": "user", "content": ["x"]}]),
            "`messages[0].content[0]` is a string, expected an object",
        ),
        (json!([user, {"role": "assistant", "content": " \n"}]), "`messages[1]` is empty"),
        (json!([user, {"role": "assistant"}]), "`messages[1]` is empty"),
        (
            json!([user, {"role": "assistant", "content": [{"type": "text", "text": ""}]}]),
            "`messages[1]` is empty",
        ),
        (
            json!([user, {"role": "assistant", "content": "", "tool_calls": [], "weight": 1, "name": "x", "id": 7}]),
            "`messages[1]` is empty",
        ),
        (
            json!([user, {"role": "assistant", "content": "x", "weight": 0.5}]),
            "`messages[1]`: message weight is 0.5",
        ),
        (
            json!([user, {"role": "assistant", "content": null, "tool_calls": [{"id": "c"}]}]),
            "`messages[1]`: a tool call has neither",
        ),
    ] {
        let message = chat(messages);
        assert!(message.contains(expected), "{expected}: {message}");
    }
    for answer in [
        json!({"role": "assistant", "content": null, "refusal": "No."}),
        json!({"role": "assistant", "content": [{"type": "image", "path": "x"}]}),
        json!({"role": "assistant", "content": "", "reasoning_content": "hm"}),
        json!({"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}),
    ] {
        one(&json!({"messages": [user, answer]}), &ReadOptions::default()).unwrap();
    }
}

#[test]
fn context_columns_are_checked() {
    let row = |key: &str, value: Json| {
        let chat = json!([{"role": "user", "content": "Hi"}]);
        let mut row = json!({"messages": chat});
        row[key] = value;
        row
    };
    for (key, value, expected) in [
        ("tools", json!({"name": "f"}), "`tools` is an object, expected a list of objects"),
        ("tools", json!([1]), "`tools[0]` is the number 1, expected an object"),
        ("tools", json!("[{"), "`tools` is a string that is no JSON"),
        ("documents", json!("[1]"), "`documents[0]` is the number 1"),
        (
            "chat_template_kwargs",
            json!([]),
            "`chat_template_kwargs` is an empty list, expected an object",
        ),
        (
            "chat_template_kwargs",
            json!({"add_generation_prompt": true}),
            "`chat_template_kwargs.add_generation_prompt` is a boolean, expected absent",
        ),
    ] {
        let message = fault(row(key, value), Format::Messages);
        assert!(message.contains(expected), "{expected}: {message}");
    }
    for value in [json!(null), json!(""), json!("null"), json!([])] {
        let read = one(&row("tools", value), &ReadOptions::default()).unwrap();
        assert!(read.context.tools.is_empty() && read.metadata.is_empty());
    }
}

#[test]
fn sharegpt_becomes_messages() {
    let row = json!({"id": "x", "system": "Be brief.", "tools": "[{\"name\": \"f\"}]", "conversations": [
        {"from": "human", "value": "Hi"},
        {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
        {"from": "observation", "value": "22"},
        {"from": "gpt", "value": "Ho", "weight": 1, "loss": true},
        {"from": "user", "value": "?"},
        {"from": "assistant", "value": "!"},
    ]});
    let read = one(&row, &ReadOptions::default()).unwrap();
    assert_eq!(
        messages(&read),
        json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]},
            {"role": "tool", "content": "22"},
            {"role": "assistant", "content": "Ho", "weight": 1, "loss": true},
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "!"},
        ])
    );
    assert_eq!(read.context.tools, [json!({"name": "f"})]);
    assert_eq!(Json::Object(read.metadata), json!({"id": "x"}));

    let turn = |from: &str, value: Json| json!({"conversations": [{"from": from, "value": value}]});
    for (row, expected) in [
        (
            turn("bing", json!("x")),
            "the role of `conversations[0]` is \"bing\", expected human, user, gpt",
        ),
        (turn("gpt", json!("")), "`conversations[0]` is empty"),
        (turn("gpt", json!(null)), "`conversations[0].value` is null, expected a string"),
        (
            turn("function_call", json!("f()")),
            "`conversations[0].value` is no JSON (not valid JSON at byte 1",
        ),
        (turn("function_call", json!("{\"x\": 1}")), "neither `function` nor `name`"),
        (turn("function_call", json!("[]")), "an empty list"),
        (
            json!({"conversations": [{"from": "human", "value": "x", "content": "y"}]}),
            "`conversations[0].content` is a string, expected absent",
        ),
        (
            json!({"conversations": [{"from": "system", "value": "a"}], "system": "b"}),
            "`system` is a string, expected absent",
        ),
    ] {
        let message = fault(row, Format::ShareGpt);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn roles_are_mapped_by_name() {
    let roles = |role: &str| ReadOptions {
        roles: [("bing".to_owned(), role.to_owned())].into(),
        ..ReadOptions::default()
    };
    let row = json!({"conversations": [{"from": "bing", "value": "x"}]});
    assert_eq!(messages(&one(&row, &roles("assistant")).unwrap())[0]["role"], "assistant");
    let row = json!({"messages": [{"role": "bing", "content": "x"}]});
    assert_eq!(
        messages(&one(&row, &roles("user")).unwrap()),
        json!([{"role": "user", "content": "x"}])
    );
    match one(&row, &roles("bot")) {
        Err(Error::Options { key, found, .. }) => {
            assert_eq!((&*key, &*found), ("roles.bing", "bot"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn alpaca_becomes_messages() {
    let row = json!({"instruction": "Add.", "input": "1 and 2", "output": "3", "system": "You count.",
        "history": [["Hi", "Hello"]], "text": "whole"});
    let read = one(&row, &ReadOptions::default()).unwrap();
    assert_eq!(
        messages(&read),
        json!([
            {"role": "system", "content": "You count."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Add.\n1 and 2"},
            {"role": "assistant", "content": "3"},
        ])
    );
    assert_eq!(Json::Object(read.metadata), json!({"text": "whole"}));
    let row = json!({"instruction": "Add.", "input": "", "output": "3", "system": null});
    assert_eq!(messages(&one(&row, &ReadOptions::default()).unwrap())[0]["content"], "Add.");
    for (row, expected) in [
        (json!({"instruction": "Add.", "output": " "}), "`output` is empty"),
        (json!({"instruction": "", "output": "3"}), "`instruction` is empty"),
        (json!({"instruction": "Add."}), "`output` is missing; the row has `instruction`"),
        (
            json!({"instruction": "Add.", "output": 3}),
            "`output` is the number 3, expected a string",
        ),
        (
            json!({"instruction": "Add.", "output": "3", "input": []}),
            "`input` is an empty list, expected a string",
        ),
        (
            json!({"instruction": "Add.", "output": "3", "history": ["Hi"]}),
            "`history[0]` is a string, expected a list of two strings",
        ),
        (
            json!({"instruction": "Add.", "output": "3", "history": [["Hi", ""]]}),
            "`history[0][1]` is empty",
        ),
    ] {
        let message = fault(row, Format::Alpaca);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}
