//! Chat templates.

use std::path::Path;

use posttrain_merge::tokenizer::{
    BUILTIN_TEMPLATES, ChatTemplate, set_chat_template, tokenizer_files,
};

use crate::{copy, fixtures, folder, message, read};

#[test]
fn chat_templates() {
    let fixture = read(&fixtures().join("templates.json"));
    for (name, text) in BUILTIN_TEMPLATES {
        let rendered = &fixture["templates"][name];
        assert_eq!(rendered["text"], text, "make the fixtures again");
        // llama3 and exaone have stray lines in mergekit, alpaca no line before its response.
        let same = matches!(name, "chatml" | "mistral");
        assert_eq!(rendered["same_as_mergekit"], same);
        assert_eq!(ChatTemplate::parse(name).unwrap().resolve(&[]).unwrap().unwrap(), text);
    }
    let by_hand = [
        ("chatml", "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"),
        (
            "llama3",
            "<s><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral", "<s> [INST] Hello [/INST]"),
        ("exaone", "[|system|][|endofturn|]\n[|user|]Hello\n[|assistant|]"),
        ("alpaca", "<s>### Instruction:\nHello\n\n### Response:\n"),
    ];
    for (name, text) in by_hand {
        assert_eq!(fixture["templates"][name]["rendered"][0], text);
    }
    let [river, city, chat] = ["river", "city", "chat"].map(folder);
    let auto = ChatTemplate::parse("auto").unwrap();
    let vote = |paths: &[&Path]| auto.resolve(paths).unwrap();
    assert_eq!(vote(&[&river, &city, &chat]).unwrap(), "city {{ x }}");
    assert_eq!(vote(&[&river, &city]).unwrap(), "river {{ x }}");
    assert_eq!(vote(&[&folder("short")]), None);
    let text = "{{ messages[0].content }}";
    assert_eq!(ChatTemplate::parse(text).unwrap(), ChatTemplate::Text(text.to_owned()));
    let said = message(ChatTemplate::parse("chatlm"));
    assert!(said.contains("did you mean `chatml`?"), "{said}");
    assert!(message(ChatTemplate::parse("nothing of that")).ends_with("or a Jinja text"));
    let missing = ChatTemplate::parse("chatml").unwrap().missing_tokens(|t| t == "<|im_end|>");
    assert!(missing.unwrap().ends_with("as plain text: <|im_start|>"));
}

#[test]
fn a_template_takes_the_place_of_all_others() {
    let temp = tempfile::tempdir().unwrap();
    copy("river", temp.path());
    std::fs::remove_file(temp.path().join("chat_template.jinja")).unwrap();
    let list = r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d{{ 1 }}"}]}"#;
    std::fs::write(temp.path().join("tokenizer_config.json"), list).unwrap();
    std::fs::write(temp.path().join("chat_template.json"), r#"{"chat_template": "old"}"#).unwrap();
    std::fs::create_dir(temp.path().join("additional_chat_templates")).unwrap();
    std::fs::write(temp.path().join("additional_chat_templates/tool.jinja"), "t").unwrap();
    let auto = ChatTemplate::Auto.resolve(&[temp.path()]).unwrap();
    assert_eq!(auto.as_deref(), Some("d{{ 1 }}"));
    let mut files = tokenizer_files(temp.path()).unwrap();
    assert!(files.contains_key("additional_chat_templates/tool.jinja"));
    set_chat_template(&mut files, "{{ new }}").unwrap();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let wanted =
        ["chat_template.jinja", "chat_template.json", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names, wanted);
    assert_eq!(files["chat_template.jinja"], b"{{ new }}");
    assert_eq!(files["tokenizer_config.json"], b"{}\n");
    assert!(String::from_utf8_lossy(&files["chat_template.json"]).contains("{{ new }}"));
}
