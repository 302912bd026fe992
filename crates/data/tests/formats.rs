//! The forms of rows: how each is told, read and refused.

mod support;

use posttrain_data::{Body, Error, Example, Fault, Format, ReadOptions, Row, Sequence};
use serde_json::{Value as Json, json};
use support::{as_format, columns, fixture, one, read, read_text};

fn messages(row: &Row) -> Json {
    match &row.example {
        Example::Messages(messages) => messages.iter().cloned().map(Json::Object).collect(),
        other => panic!("{other:?}"),
    }
}

fn text(text: &str) -> Body {
    Body::Text(text.into())
}

/// The fault of the only row, as its message.
fn fault(row: Json, format: Format) -> String {
    match one(&row, &as_format(format)) {
        Err(Error::BadRow { fault, bad: 1, allowed: 0, .. }) => fault.to_string(),
        other => panic!("{row}: {other:?}"),
    }
}

#[test]
fn formats_are_told_by_their_columns() {
    let chat = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]);
    let answer = json!([{"role": "assistant", "content": "Ho"}]);
    for (row, expected) in [
        (json!({"messages": chat}), Format::Messages),
        (json!({"messages": chat, "prompt": "Hi", "text": "Hi Ho"}), Format::Messages),
        (json!({"conversations": chat}), Format::ShareGpt),
        (json!({"instruction": "a", "output": "b"}), Format::Alpaca),
        (json!({"instruction": "a", "input": "", "output": "b", "text": "c"}), Format::Alpaca),
        (json!({"prompt": "a", "completion": "b"}), Format::PromptCompletion),
        (json!({"prompt": "a", "completion": "b", "label": true}), Format::Unpaired),
        (json!({"prompt": "a", "completion": "b", "label": null}), Format::PromptCompletion),
        (json!({"prompt": "a", "chosen": "b", "rejected": "c"}), Format::Preference),
        (json!({"chosen": "a b", "rejected": "a c"}), Format::Preference),
        (json!({"prompt": "a", "completions": ["b"], "labels": [true]}), Format::Steps),
        (json!({"prompt": "a", "steps": ["b"], "labels": [1]}), Format::Steps),
        (json!({"prompt": [{"role": "user", "content": "Hi"}], "id": 7}), Format::Prompt),
        (json!({"text": "a"}), Format::Text),
        (
            json!({"prompt": [{"role": "user", "content": "Hi"}], "completion": answer}),
            Format::PromptCompletion,
        ),
    ] {
        let (rows, report) = read_text(&row.to_string(), &ReadOptions::default()).unwrap();
        assert_eq!((report.format, report.detected), (expected, true), "{row}");
        assert_eq!(rows.len(), 1);
        // Forced, it is the same.
        assert_eq!(one(&row, &as_format(expected)).unwrap().example, rows[0].example);
    }
}

#[test]
fn what_fits_no_format_or_several_is_refused() {
    let error = one(&json!({"question": "a", "answer": "b"}), &ReadOptions::default()).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::UnknownFormat { .. }), "{message}");
    for part in [
        "`question`, `answer`",
        "messages (messages)",
        "alpaca (instruction, output[, input]",
        "columns: {prompt: question",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let chat = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]);
    for (row, expected) in [
        (
            json!({"messages": chat, "chosen": chat, "rejected": chat}),
            [Format::Messages, Format::Preference],
        ),
        (json!({"messages": chat, "conversations": chat}), [Format::Messages, Format::ShareGpt]),
        (
            json!({"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"}),
            [Format::PromptCompletion, Format::Preference],
        ),
        (json!({"prompt": "a", "text": "b"}), [Format::Prompt, Format::Text]),
    ] {
        match one(&row, &ReadOptions::default()) {
            Err(Error::AmbiguousFormat { fits, .. }) => assert_eq!(fits, expected),
            other => panic!("{row}: {other:?}"),
        }
    }
    let both = json!({"prompt": "a", "text": "b"});
    assert_eq!(one(&both, &as_format(Format::Text)).unwrap().example, Example::Text("b".into()));
}

#[test]
fn columns_are_looked_for_in_the_first_rows_together() {
    let rows = "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\": \"b\", \"label\": 1}";
    match read_text(rows, &ReadOptions::default()) {
        // The first row lacks the label that the second has.
        Err(Error::BadRow { place, fault, .. }) => {
            assert_eq!(place.line, Some(1));
            assert!(
                matches!(&*fault, Fault::Missing { column, .. } if column == "label"),
                "{fault}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn gsm8k_is_read_by_mapping_its_columns() {
    let path = fixture("gsm8k.jsonl");
    assert!(matches!(read(&path, &ReadOptions::default()), Err(Error::UnknownFormat { .. })));
    let (rows, report) =
        read(&path, &columns([("prompt", "question"), ("completion", "answer")])).unwrap();
    assert_eq!((rows.len(), report.format), (8, Format::PromptCompletion));
    let Example::PromptCompletion { prompt: Body::Text(prompt), completion: Body::Text(answer) } =
        &rows[0].example
    else {
        panic!("{:?}", rows[0])
    };
    assert!(prompt.starts_with("Natalia sold clips to 48 of her friends in April"));
    assert!(answer.ends_with("\n#### 72"));
    let (rows, report) =
        read(&path, &columns([("instruction", "question"), ("output", "answer")])).unwrap();
    assert_eq!(report.format, Format::Alpaca);
    assert_eq!(messages(&rows[0])[0], json!({"role": "user", "content": prompt}));
}

#[test]
fn mapped_columns_have_to_exist_and_to_be_used() {
    let row = json!({"question": "a", "answer": "b", "prompt": "own"});
    let key = |result: Result<Row, Error>| match result {
        Err(Error::Options { key, found, expected }) => {
            (key, format!("{found}, expected {expected}"))
        }
        other => panic!("{other:?}"),
    };
    let (at, message) = key(one(&row, &columns([("promt", "question")])));
    assert_eq!(at, "columns");
    assert!(message.contains("`promt`") && message.contains("prompt, completion"), "{message}");
    let (at, message) =
        key(one(&row, &columns([("prompt", "question"), ("completion", "answers")])));
    assert_eq!(at, "columns.completion");
    assert!(
        message.contains("`answers`") && message.contains("`question`, `answer`, `prompt`"),
        "{message}"
    );
    let (at, _) = key(one(&row, &columns([("prompt", "question"), ("completion", "question")])));
    assert_eq!(at, "columns.prompt");
    let (at, message) = key(one(
        &row,
        &columns([("prompt", "question"), ("completion", "answer"), ("margin", "m")]),
    ));
    assert_eq!(at, "columns.margin");
    assert!(message.contains("`prompt_completion`"), "{message}");
    // An optional column is looked for in all rows before it is missed.
    let pair = json!({"chosen": "a b", "rejected": "a c"});
    let (at, message) = key(one(&pair, &columns([("margin", "m")])));
    assert_eq!(at, "columns.margin");
    assert!(message.contains("some row"), "{message}");
    // A column whose name is taken by another one is metadata.
    let row = one(&row, &columns([("prompt", "question"), ("completion", "answer")])).unwrap();
    assert_eq!(row.metadata["prompt"], "own");
    assert!(row.to_object().unwrap_err().contains("`prompt`"));
}

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
            json!([user, {"role": "assistant", "content": "", "tool_calls": [], "weight": 1, "name": "x"}]),
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
            assert_eq!((&*key, &*found), ("roles.bing", "bot"))
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
        (json!({"instruction": "Add."}), "`output` is missing; the row has no columns"),
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

#[test]
fn implicit_prompts_are_those_of_trl() {
    let cases = std::fs::read_to_string(fixture("implicit_prompts.json")).unwrap();
    let cases: Vec<Json> = serde_json::from_str(&cases).unwrap();
    assert!(cases.len() > 10);
    for case in &cases {
        let row = one(&case["row"], &ReadOptions::default()).unwrap();
        let Example::Preference { prompt, chosen, rejected, margin: None } = row.example else {
            panic!()
        };
        let ours = json!([prompt.to_json(), chosen.to_json(), rejected.to_json()]);
        // Where we differ on purpose the case says so.
        assert_eq!(&ours, case.get("ours").unwrap_or(&case["trl"]), "{}", case["row"]);
    }
}

#[test]
fn preferences_that_say_nothing_are_faults() {
    let user = json!({"role": "user", "content": "Hi"});
    let says = |text: &str| json!({"role": "assistant", "content": text});
    for (row, expected) in [
        (
            json!({"prompt": "a", "chosen": "b", "rejected": "b"}),
            "`chosen` and `rejected` are the same",
        ),
        (json!({"prompt": "a", "chosen": "b", "rejected": " "}), "`rejected` is empty"),
        (json!({"prompt": "", "chosen": "b", "rejected": "c"}), "`prompt` is empty"),
        (json!({"prompt": "a", "chosen": "b"}), "`rejected` is missing"),
        (
            json!({"prompt": "a", "chosen": "b", "rejected": 1}),
            "`rejected` is the number 1, expected a string or a list of messages",
        ),
        (
            json!({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "NaN"}),
            "`margin` is a string, expected a number",
        ),
        (
            json!({"prompt": [user], "chosen": "b", "rejected": "c"}),
            "`chosen, rejected` is text and text, expected texts where the prompt is text",
        ),
        (
            json!({"prompt": "a", "chosen": "b", "rejected": [says("c")]}),
            "`chosen, rejected` is text and messages",
        ),
        (
            json!({"prompt": [user], "chosen": [user], "rejected": [says("c")]}),
            "`chosen[0]` is a message of the role \"user\", expected one of the assistant",
        ),
        (
            json!({"prompt": [user], "chosen": [says("b"), user], "rejected": [says("c")]}),
            "`chosen[1]` is a message of the role \"user\"",
        ),
        (
            json!({"chosen": [user, says("b")], "rejected": [user]}),
            "all of `rejected` stands in the other as well",
        ),
        (json!({"chosen": [says("b")], "rejected": [says("c")]}), "their first messages differ"),
        (
            json!({"chosen": [user, says("b")], "rejected": [{"role": "user", "content": "Ho"}, says("c")]}),
            "`chosen[0]`, where they part, has the role \"user\"",
        ),
        (json!({"chosen": "blue", "rejected": "green"}), "no word in common"),
        (json!({"chosen": "Yes", "rejected": "You"}), "no word in common"),
        (
            json!({"prompt": "other", "chosen": [user, says("b")], "rejected": [user, says("c")]}),
            "`prompt` is a string, expected a list of messages, or what a user asks",
        ),
    ] {
        let message = fault(row.clone(), Format::Preference);
        assert!(message.contains(expected), "{row}: {message}");
    }
    let row = json!({"prompt": [user], "chosen": says("b"), "rejected": {"from": "gpt", "value": "c"}, "margin": 2});
    let read = one(&row, &ReadOptions::default()).unwrap();
    let Example::Preference { rejected, margin, .. } = &read.example else { panic!() };
    assert_eq!(margin, &Some(2.0));
    assert_eq!(rejected.to_json(), json!([says("c")]));
}

#[test]
fn labels_are_read_as_they_are_written() {
    for (label, expected) in [(json!(true), true), (json!(0), false), (json!(1.0), true)] {
        let row = json!({"prompt": "a", "completion": "b", "label": label});
        let read = one(&row, &ReadOptions::default()).unwrap().example;
        assert_eq!(
            read,
            Example::Unpaired { prompt: text("a"), completion: text("b"), label: expected }
        );
    }
    let message =
        fault(json!({"prompt": "a", "completion": "b", "label": "good"}), Format::Unpaired);
    assert!(message.contains("`label` is a string, expected true, false, 1 or 0"), "{message}");
    let row = json!({"prompt": "a", "completions": ["b", "c"], "labels": [true, 0.25], "extra": 1});
    let read = one(&row, &ReadOptions::default()).unwrap();
    let steps = vec!["b".to_owned(), "c".to_owned()];
    assert_eq!(read.example, Example::Steps { prompt: text("a"), steps, labels: vec![1.0, 0.25] });
    for (row, expected) in [
        (json!({"prompt": "a", "steps": [], "labels": []}), "`steps` is empty"),
        (json!({"prompt": "a", "steps": ["b", ""], "labels": [1, 1]}), "`steps[1]` is empty"),
        (
            json!({"prompt": "a", "steps": ["b", 1], "labels": [1, 1]}),
            "`steps[1]` is the number 1, expected a string",
        ),
        (
            json!({"prompt": "a", "steps": ["b"], "labels": [1, 1]}),
            "`labels` is a list of 2, expected a list of 1",
        ),
        (
            json!({"prompt": "a", "steps": ["b"], "labels": [1.5]}),
            "`labels[0]` is the number 1.5, expected true, false or a number from 0 to 1",
        ),
        (
            json!({"prompt": "a", "steps": "b", "labels": [1]}),
            "`steps` is a string, expected a list of strings",
        ),
        (json!({"prompt": "a", "labels": [1]}), "`completions` is missing"),
    ] {
        let message = fault(row, Format::Steps);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn completions_are_of_the_prompts_kind() {
    let user = json!([{"role": "user", "content": "Hi"}]);
    let answer = json!([{"role": "assistant", "content": "Ho"}]);
    for (row, expected) in [
        (
            json!({"prompt": "a", "completion": answer}),
            "`completion` is a list, expected a string, as the prompt is one",
        ),
        (
            json!({"prompt": user, "completion": "b"}),
            "`completion` is a string, expected a list of messages",
        ),
        (json!({"prompt": user, "completion": []}), "`completion` is empty"),
        (json!({"prompt": [], "completion": answer}), "`prompt` is empty"),
        (
            json!({"prompt": user, "completion": user}),
            "`completion[0]` is a message of the role \"user\"",
        ),
        (json!({"prompt": "a", "completion": ""}), "`completion` is empty"),
        (json!({"prompt": "a", "completion": "\n"}), "`completion` is empty"),
    ] {
        let message = fault(row, Format::PromptCompletion);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn rows_become_sequences() {
    let row = one(&json!({"text": ""}), &ReadOptions::default()).unwrap();
    assert_eq!(
        row.sequence().unwrap(),
        Sequence::Text { prompt: String::new(), answer: String::new() }
    );
    let row = one(&json!({"prompt": "a", "completion": "b"}), &ReadOptions::default()).unwrap();
    assert_eq!(row.sequence().unwrap(), Sequence::Text { prompt: "a".into(), answer: "b".into() });
    let row =
        one(&json!({"prompt": "a", "completion": "b", "label": true}), &ReadOptions::default())
            .unwrap();
    assert!(matches!(row.sequence(), Err(Error::Form { found: "a labelled answer", .. })));
    assert!(row.answered(&text("a"), &Body::Messages(vec![])).is_err());
}
