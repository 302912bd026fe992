//! Rows to tokens: what the chat crate makes of them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use posttrain_chat::{Builtin, ChatTemplate, ChatTokenizer, EncodeOptions, RenderOptions};
use posttrain_data::{Example, ReadOptions, Sequence};
use serde_json::json;
use support::one;

fn tokenizer() -> ChatTokenizer {
    let path = support::fixture("../chat_templates/tokenizer/tokenizer.json");
    let tokenizer = tokenizers::Tokenizer::from_file(path).unwrap();
    ChatTokenizer::new(tokenizer, ChatTemplate::builtin(Builtin::ChatMl), vec![]).unwrap()
}

/// The text of the trained tokens.
fn trained(tokenizer: &ChatTokenizer, sequence: Sequence) -> String {
    let Sequence::Chat(chat) = sequence else { panic!("{sequence:?}") };
    let encoded = tokenizer.encode(&chat, &EncodeOptions::default()).unwrap();
    let ids: Vec<u32> = encoded
        .ids
        .iter()
        .zip(&encoded.mask)
        .filter(|(_, mask)| **mask)
        .map(|(id, _)| *id)
        .collect();
    tokenizer.tokenizer().decode(&ids, false).unwrap()
}

#[test]
fn only_the_completion_of_a_conversation_is_trained() {
    let tokenizer = tokenizer();
    let turns = json!([
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "two", "train": true},
        {"role": "user", "content": "three"}]);
    let answer = json!([{"role": "assistant", "content": "four"}]);
    let row =
        one(&json!({"prompt": turns, "completion": answer}), &ReadOptions::default()).unwrap();
    let text = trained(&tokenizer, row.sequence().unwrap());
    assert!(text.contains("four") && !text.contains("two"), "{text}");
    let mut all = turns.as_array().unwrap().clone();
    all.extend(answer.as_array().unwrap().clone());
    let row = one(&json!({"messages": all}), &ReadOptions::default()).unwrap();
    let text = trained(&tokenizer, row.sequence().unwrap());
    assert!(text.contains("four") && text.contains("two"), "{text}");
}

#[test]
fn templates_see_unknown_keys_tools_and_variables() {
    let template = ChatTemplate::parse(
        "{{ style }}|{% for m in messages %}{{ m.mood }}{{ m.content }};{% endfor %}{{ tools[0].name }}|{{ documents[0].title }}",
    );
    let row = json!({"messages": [{"role": "user", "content": "Hi", "mood": "glad "}],
        "tools": [{"name": "f"}], "documents": [{"title": "t"}], "chat_template_kwargs": {"style": "plain"}});
    let row = one(&row, &ReadOptions::default()).unwrap();
    let Example::Messages(messages) = &row.example else { panic!() };
    let chat = row.chat(messages).unwrap();
    let text = template.unwrap().render(&chat, &RenderOptions::default()).unwrap();
    assert_eq!(text, "plain|glad Hi;f|t");
}
