//! The doctor finds faults of a tokenizer and template that lie in a folder as users have them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use posttrain_chat::{ChatTokenizer, Diagnosis, Error, Level};
use serde_json::{Value as Json, json};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A checkpoint folder with the fixture tokenizer and this configuration and template.
fn model(config: Json, template: &str) -> tempfile::TempDir {
    let fixtures: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat_templates/tokenizer");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures.join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    folder
}

fn diagnose(config: Json, template: &str) -> Diagnosis {
    ChatTokenizer::from_model(model(config, template).path()).unwrap().diagnose()
}

fn level(diagnosis: &Diagnosis, check: &str) -> Level {
    let found = diagnosis.of(check).map(|finding| finding.level).max();
    found.unwrap_or_else(|| panic!("no finding {check:?} in\n{diagnosis}"))
}

#[test]
fn a_sound_model_has_no_problems() {
    let diagnosis = diagnose(json!({"eos_token": "<|im_end|>", "pad_token": "<pad>"}), CHATML);
    assert!(diagnosis.worst() < Level::Problem, "{diagnosis}");
    assert_eq!(level(&diagnosis, "end of turn"), Level::Fine, "{diagnosis}");
    // The fixture tokenizer adds <s> to plain text; ChatML does not write it.
    assert_eq!(level(&diagnosis, "bos"), Level::Warning, "{diagnosis}");
}

#[test]
fn a_wrong_end_token_is_a_problem() {
    let diagnosis = diagnose(json!({"eos_token": "</s>", "pad_token": "</s>"}), CHATML);
    assert_eq!(level(&diagnosis, "end of turn"), Level::Problem, "{diagnosis}");
    assert_eq!(level(&diagnosis, "pad"), Level::Warning, "{diagnosis}");
}

#[test]
fn a_stop_token_in_the_generation_config_counts() {
    let folder = model(json!({"eos_token": "</s>", "pad_token": "<pad>"}), CHATML);
    let tokenizer = ChatTokenizer::from_model(folder.path()).unwrap();
    let end = tokenizer.tokenizer().token_to_id("<|im_end|>").unwrap();
    let config = json!({"eos_token_id": [end]}).to_string();
    std::fs::write(folder.path().join("generation_config.json"), config).unwrap();
    let diagnosis = ChatTokenizer::from_model(folder.path()).unwrap().diagnose();
    assert_eq!(level(&diagnosis, "end of turn"), Level::Fine, "{diagnosis}");
}

#[test]
fn bos_twice_is_a_problem_and_bos_from_both_a_warning() {
    let config = json!({"bos_token": "<s>", "eos_token": "<|im_end|>"});
    let once = diagnose(config.clone(), &format!("{{{{ bos_token }}}}{CHATML}"));
    assert_eq!(level(&once, "bos"), Level::Warning, "{once}");
    let twice = diagnose(config, &format!("<s>{{{{ bos_token }}}}{CHATML}"));
    assert_eq!(level(&twice, "bos"), Level::Problem, "{twice}");
}

#[test]
fn control_tokens_unknown_to_the_tokenizer_are_reported() {
    let template = CHATML.replace("im_start", "turn_start");
    let diagnosis = diagnose(json!({"eos_token": "<|im_end|>"}), &template);
    assert_eq!(level(&diagnosis, "control tokens"), Level::Warning, "{diagnosis}");
    assert!(diagnosis.to_string().contains("<|turn_start|>"), "{diagnosis}");
}

#[test]
fn broken_folders_are_named() {
    let folder = model(json!({}), CHATML);
    let path = folder.path();
    std::fs::remove_file(path.join("chat_template.jinja")).unwrap();
    let error = ChatTokenizer::from_model(path).unwrap_err();
    assert!(matches!(error, Error::NoTemplate { .. }), "{error}");
    std::fs::write(path.join("tokenizer_config.json"), "{\"chat_template\": 7}").unwrap();
    let error = ChatTokenizer::from_model(path).unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json") && error.contains("a number"), "{error}");
    std::fs::write(path.join("tokenizer_config.json"), "{\n oops").unwrap();
    let error = ChatTokenizer::from_model(path).unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
    std::fs::write(path.join("tokenizer_config.json"), "{\"chat_template\": \"{% if %}\"}")
        .unwrap();
    let error = ChatTokenizer::from_model(path).unwrap_err().to_string();
    assert!(error.contains("syntax error in line 1"), "{error}");
    std::fs::write(path.join("tokenizer_config.json"), "{\"chat_template\": \"x\"}").unwrap();
    std::fs::write(path.join("tokenizer.json"), "{").unwrap();
    let error = ChatTokenizer::from_model(path).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
}

#[test]
fn named_templates_are_chosen_by_tools_and_name() {
    use posttrain_chat::{ChatTemplate, RenderOptions};
    use posttrain_core::{Conversation, Message, Tool};
    let folder = model(json!({}), "default");
    std::fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
    for name in ["tool_use", "rag"] {
        let path = folder.path().join(format!("additional_chat_templates/{name}.jinja"));
        std::fs::write(path, name).unwrap();
    }
    let template = ChatTemplate::from_model(folder.path()).unwrap();
    let mut chat = Conversation::new([Message::user("hi")]);
    let render = |chat: &Conversation, name: Option<&str>| {
        let options =
            RenderOptions { template: name.map(str::to_owned), ..RenderOptions::default() };
        template.render(chat, &options).map_err(|error| error.to_string())
    };
    assert_eq!(render(&chat, None).unwrap(), "default");
    assert_eq!(render(&chat, Some("rag")).unwrap(), "rag");
    let error = render(&chat, Some("rga")).unwrap_err();
    assert!(error.contains("\"rga\"") && error.contains("tool_use"), "{error}");
    chat.tools.push(Tool::function("f", "", json!({})));
    assert_eq!(render(&chat, None).unwrap(), "tool_use");
    // The list form of tokenizer_config.json, used when there are no files.
    let list = json!({"chat_template": [
        {"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]});
    let folder = model(list, "");
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let template = ChatTemplate::from_model(folder.path()).unwrap();
    assert_eq!(template.names(), ["default", "tool_use"]);
    // The processors' older file.
    let folder = model(json!({}), "");
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let legacy = json!({"chat_template": "legacy"}).to_string();
    std::fs::write(folder.path().join("chat_template.json"), legacy).unwrap();
    let template = ChatTemplate::from_model(folder.path()).unwrap();
    let chat = Conversation::new([Message::user("hi")]);
    assert_eq!(template.render(&chat, &RenderOptions::default()).unwrap(), "legacy");
}
