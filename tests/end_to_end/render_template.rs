//! `examples/render_template.rs` on good and on broken input.

use crate::support::{Files, Program, root};

const PROGRAM: Program = Program("render_template");

fn stdout(args: &[&str]) -> String {
    PROGRAM.stdout(args)
}

fn failure(args: &[&str]) -> String {
    PROGRAM.failure(args)
}

const CONVERSATION: &str = "examples/data/conversation.json";

#[test]
fn the_rendered_text_and_nothing_else() {
    let files = Files::new();
    let template =
        files.write("t.jinja", "{{ bos_token }}{{ messages[0].content }}|{{ tools[0].name }}");
    let conversation = r#"{"bos_token": "<s>", "messages": [{"role": "user", "content": "é\n"}]}"#;
    let conversation = files.write("c.json", conversation);
    let tools = files.write("tools.json", r#"[{"name": "f"}]"#);
    let args = ["--template", &template, "--conversation", &conversation, "--tools", &tools];
    assert_eq!(stdout(&args), "<s>é\n|f");
    // A bare list of messages is a conversation, too.
    let list = files.write("l.json", r#"[{"role": "user", "content": "hi"}]"#);
    let text = stdout(&["--builtin", "chatml", "--conversation", &list, "--add-generation-prompt"]);
    assert_eq!(text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn spans_that_would_be_trained() {
    let text = stdout(&["--builtin", "chatml", "--conversation", CONVERSATION]);
    let spans = stdout(&["--builtin", "chatml", "--conversation", CONVERSATION, "--mask"]);
    let spans: Vec<serde_json::Value> =
        spans.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(spans.len(), 2);
    assert_eq!(spans[1]["text"], "The data: accurate, diverse and hard enough.<|im_end|>");
    for span in spans {
        let (start, end) = (span["start"].as_u64().unwrap(), span["end"].as_u64().unwrap());
        let found: String =
            text.chars().skip(start as usize).take((end - start) as usize).collect();
        assert_eq!(span["text"], found);
    }
}

#[test]
fn a_model_folder_with_its_doctor() {
    let files = Files::new();
    let fixtures = root().join("tests/fixtures/chat_templates/tokenizer");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixtures.join(name), files.path(name)).unwrap();
    }
    files.write(
        "chat_template.jinja",
        "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}",
    );
    let folder = &files.path("");
    let text = stdout(&["--model", folder, "--conversation", CONVERSATION]);
    assert!(text.starts_with("system: You answer"), "{text}");
    let report = stdout(&["--model", folder, "--doctor"]);
    for check in ["roles", "bos", "end of turn", "pad", "prefixes", "mask", "tools"] {
        assert!(report.contains(check), "no {check} in {report}");
    }
    let report = stdout(&["--builtin", "chatml", "--conversation", CONVERSATION, "--doctor"]);
    assert!(report.contains("2 spans would be trained"), "{report}");
    let report = stdout(&["--builtin", "llama2", "--doctor"]);
    assert!(report.contains("tool calls"), "{report}");
}

#[test]
fn the_message_of_the_template_and_no_other() {
    let files = Files::new();
    let template = files.write("t.jinja", "text {{ raise_exception('Roles must alternate!') }}");
    let message = failure(&["--template", &template, "--conversation", CONVERSATION]);
    assert_eq!(message, "Roles must alternate!\n");
}

#[test]
fn broken_input_is_named() {
    let files = Files::new();
    let good = files.write("t.jinja", "{{ messages }}");
    let with = |conversation: &str| failure(&["--template", &good, "--conversation", conversation]);
    assert!(with("no/such/file.json").contains("no/such/file.json"));
    let broken = files.write("b.json", "{\"messages\": [\n  {\"role\": \"user\" \"content\": 1}]}");
    let message = with(&broken);
    assert!(message.contains("b.json") && message.contains("line 2"), "{message}");
    let typo = files.write("m.json", r#"{"mesages": []}"#);
    assert!(with(&typo).contains("mesages"), "{}", with(&typo));
    let text = files.write("s.json", r#"["hi"]"#);
    assert!(with(&text).contains("message 0 is a string"), "{}", with(&text));
    let option = files.write("o.json", r#"{"messages": [], "add_generation_prompt": true}"#);
    assert!(with(&option).contains("`add_generation_prompt`"), "{}", with(&option));
    let empty = files.write("e.json", "[]");
    assert!(with(&empty).contains("empty"), "{}", with(&empty));
    let syntax = files.write("s.jinja", "a\n{% if x %}");
    let message = failure(&["--template", &syntax, "--conversation", CONVERSATION]);
    assert!(message.contains("syntax error in line 2"), "{message}");
    let message = failure(&["--builtin", "chatmll", "--conversation", CONVERSATION]);
    assert!(message.contains("chatmll") && message.contains("chatml"), "{message}");
    let message = failure(&["--conversation", CONVERSATION]);
    assert!(message.contains("--template") && message.contains("--model"), "{message}");
}
