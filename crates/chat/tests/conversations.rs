//! What conversations as users have them turn into: tool calls in both forms, special tokens from
//! every place, flags, turns that templates treat in their own ways.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use posttrain_chat::{ChatTemplate, Error, JsonChat, RenderOptions, ToolArguments, TrainedTurns};
use posttrain_core::{Arguments, Conversation, Message, ToolCall};
use serde_json::{Value as Json, json};

fn fixture(name: &str) -> ChatTemplate {
    let templates =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat_templates");
    let path = templates.join(format!("templates/{name}.jinja"));
    let source = std::fs::read_to_string(path).unwrap();
    let template = ChatTemplate::parse(&source).unwrap();
    template.with_special_token("bos_token", "<s>").with_special_token("eos_token", "</s>")
}

fn trained(template: &ChatTemplate, chat: &Conversation, turns: TrainedTurns) -> Vec<String> {
    let (text, spans) = template.trained_spans(chat, &RenderOptions::default(), turns).unwrap();
    spans.into_iter().map(|span| text[span].to_owned()).collect()
}

fn calling(arguments: Arguments) -> Conversation {
    let call = ToolCall { id: Some("call00001".into()), ..ToolCall::new("f", arguments) };
    let mut result = Message::tool("call00001", "22");
    result.name = Some("f".into());
    Conversation::new([
        Message::user("q"),
        Message::tool_calling(vec![call]),
        result,
        Message::assistant("It is 22."),
    ])
}

#[test]
fn arguments_reach_a_template_in_the_form_it_wants() {
    let source = |body: &str| {
        let source = format!(
            "{{% for m in messages %}}{{{{ m.content }}}}{{% for c in m.tool_calls or [] %}}{body}\
             {{% endfor %}}{{% endfor %}}"
        );
        ChatTemplate::parse(&source).unwrap()
    };
    let object = Arguments::Object(json!({"x": true}).as_object().unwrap().clone());
    let text = Arguments::Text("{\"x\": true}".into());
    let broken = Arguments::Text("{\"x\": tru".into());
    let render = |template: &ChatTemplate, arguments: &Arguments, form| {
        let options = RenderOptions { tool_arguments: form, ..RenderOptions::default() };
        template.render(&calling(arguments.clone()), &options).unwrap()
    };
    let wants_object = source("{{ c.function.arguments | tojson }}");
    for arguments in [&object, &text] {
        let found = render(&wants_object, arguments, ToolArguments::Auto);
        assert_eq!(found, "q{\"x\": true}22It is 22.");
    }
    let quoted = render(&wants_object, &text, ToolArguments::AsGiven);
    assert!(quoted.contains("\"{\\\"x\\\": true}\""), "{quoted}");
    // What is no JSON stays the text that it is.
    assert!(render(&wants_object, &broken, ToolArguments::Auto).contains("tru"));
    for body in ["{{ '<' + c.function.arguments + '>' }}", "{{ c.function.arguments }}"] {
        let wants_text = source(body);
        assert!(
            render(&wants_text, &object, ToolArguments::Auto).contains("{\"x\":true}"),
            "{body}"
        );
        assert!(
            render(&wants_text, &text, ToolArguments::Auto).contains("{\"x\": true}"),
            "{body}"
        );
    }
}

#[test]
fn special_tokens_come_from_every_place() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, json: &Json| {
        std::fs::write(folder.path().join(name), json.to_string()).unwrap();
    };
    let source = "{{ bos_token }}|{{ eos_token }}|{{ boi }}|{{ image_token }}|{{ sep_token }}";
    let config = json!({
        "chat_template": source,
        "bos_token": {"content": "<b>", "lstrip": false},
        "eos_token": "<e>",
        "image_token": "<img>",
        "extra_special_tokens": {"boi": "<boi>"},
    });
    write("tokenizer_config.json", &config);
    write("special_tokens_map.json", &json!({"eos_token": "<map>", "sep_token": "<sep>"}));
    let chat = Conversation::new([Message::user("hi")]);
    let render = || {
        let template = ChatTemplate::from_model(folder.path()).unwrap();
        template.render(&chat, &RenderOptions::default()).unwrap()
    };
    // As transformers: the older file counts while the configuration does not describe its tokens.
    assert_eq!(render(), "<b>|<map>|<boi>|<img>|<sep>");
    let mut described = config.clone();
    described["added_tokens_decoder"] = json!({});
    write("tokenizer_config.json", &described);
    assert_eq!(render(), "<b>|<e>|<boi>|<img>|");
    described["chat_control_tokens"] = json!("<e>");
    write("tokenizer_config.json", &described);
    let error = ChatTemplate::from_model(folder.path()).unwrap_err().to_string();
    assert!(error.contains("chat_control_tokens") && error.contains("a string"), "{error}");
}

#[test]
fn several_generation_blocks_a_turn_are_told_apart() {
    let source = "{% for m in messages %}{% if m.role == 'assistant' %}\
        {% generation %}{{ m.reasoning_content }}{% endgeneration %}|\
        {% generation %}{{ m.content }}{% endgeneration %}\n\
        {% else %}{{ m.content }}?\n{% endif %}{% endfor %}";
    let template = ChatTemplate::parse(source).unwrap();
    let answer = |reasoning: &str, content: &str| {
        let mut message = Message::assistant(content);
        message.reasoning_content = Some(reasoning.into());
        message
    };
    let mut chat = Conversation::new([
        Message::user("a"),
        answer("R1", "A1"),
        Message::user("b"),
        answer("", ""),
    ]);
    chat.messages[3].train = Some(false);
    assert_eq!(trained(&template, &chat, TrainedTurns::Flagged), ["R1", "A1"]);
    chat.messages[3] = answer("R2", "A2");
    assert_eq!(trained(&template, &chat, TrainedTurns::Last), ["R2", "A2"]);
    assert_eq!(trained(&template, &chat, TrainedTurns::All), ["R1", "A1", "R2", "A2"]);
}

#[test]
fn templates_that_close_the_text_have_prefixes_all_the_same() {
    // Without a generation prompt, these write the end token behind the last message.
    let chat = Conversation::new([
        Message::user("a"),
        Message::assistant("A1"),
        Message::user("b"),
        Message::assistant("A2"),
    ]);
    let found = trained(&fixture("trl__phi3_5"), &chat, TrainedTurns::All);
    assert!(found[0].starts_with("A1<|end|>") && found[1].starts_with("A2<|end|>"), "{found:?}");
}

#[test]
fn a_turn_that_only_calls_tools_is_trained() {
    let arguments = Arguments::Object(json!({"x": 1}).as_object().unwrap().clone());
    let chat = calling(arguments);
    for name in ["mistral__v3_spm", "axolotl__mistral_v2v3", "trl__qwen2_5"] {
        let found = trained(&fixture(name), &chat, TrainedTurns::All);
        assert_eq!(found.len(), 2, "{name}");
        assert!(found[0].contains("\"x\": 1") && !found[0].contains("22"), "{name}: {found:?}");
        assert!(found[1].contains("It is 22."), "{name}: {found:?}");
    }
}

#[test]
fn an_end_token_in_front_of_the_next_message_is_trained() {
    let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\
        {% if not loop.last %}</s>{% endif %}{% endfor %}";
    let template = ChatTemplate::parse(source).unwrap().with_special_token("eos_token", "</s>");
    let chat = Conversation::new([Message::user("a"), Message::assistant("A"), Message::user("b")]);
    assert_eq!(trained(&template, &chat, TrainedTurns::All), ["A</s>"]);
}

#[test]
fn flags_in_json_are_read_strictly() {
    let template = ChatTemplate::builtin(posttrain_chat::Builtin::ChatMl);
    let spans = |message: Json| {
        let chat = JsonChat::new(json!([{"role": "user", "content": "a"}, message])).unwrap();
        let options = RenderOptions::default();
        template.trained_spans(&chat, &options, TrainedTurns::Flagged).map(|(_, spans)| spans.len())
    };
    let message = |train: Json, weight: Json| json!({"role": "assistant", "content": "A", "train": train, "weight": weight});
    assert_eq!(spans(message(Json::Null, Json::Null)).unwrap(), 1);
    assert_eq!(spans(message(json!(true), Json::Null)).unwrap(), 1);
    let hidden = spans(message(Json::Null, json!(0))).unwrap_err();
    assert!(matches!(hidden, Error::EmptyMask { .. }), "{hidden}");
    let half = spans(message(Json::Null, json!(0.5))).unwrap_err().to_string();
    assert!(half.contains("the weight of message 1 is 0.5"), "{half}");
}
