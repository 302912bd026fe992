//! What only shows with the tokenizer.

use posttrain_core::{Conversation, Message};

use super::{Diagnosis, Level};
use crate::jinja::is_space;
use crate::probe;
use crate::tokenize::{ChatTokenizer, EncodeOptions};

pub(super) fn check_bos(tokenizer: &ChatTokenizer, report: &mut Diagnosis) {
    let inner = tokenizer.tokenizer();
    let template = tokenizer.template();
    let Ok(text) = template.plain(&probe::two_turns()) else { return };
    let first = |special| inner.encode(&*text, special).ok().map(|e| e.get_ids().to_vec());
    let (Some(with), Some(without)) = (first(true), first(false)) else { return };
    // What the tokenizer puts in front is what it has before the text's own ids.
    let adds = with.len() > without.len() && with.get(1) == without.first();
    let bos = template.special_token("bos_token").and_then(|token| inner.token_to_id(token));
    let bos = if adds { with.first().copied() } else { bos };
    let name = bos.and_then(|id| inner.id_to_token(id)).unwrap_or_else(|| "BOS".into());
    let written = bos.map_or(0, |bos| without.iter().take_while(|&&id| id == bos).count());
    match (written, adds) {
        (0, false) => report.add("bos", Level::Fine, "neither template nor tokenizer adds a BOS token"),
        (0, true) => report.add(
            "bos",
            Level::Warning,
            format!("the tokenizer adds {name} to plain text, the template does not write it: chats start without"),
        ),
        (1, false) => report.add("bos", Level::Fine, format!("the template writes {name} once")),
        (1, true) => report.add(
            "bos",
            Level::Warning,
            format!(
                "the template writes {name} and the tokenizer adds it too: rendered text must be encoded \
                 without special tokens, as this crate does"
            ),
        ),
        (times, _) => {
            report.add("bos", Level::Problem, format!("the template writes {name} {times} times"));
        }
    }
}

pub(super) fn check_end_of_turn(tokenizer: &ChatTokenizer, report: &mut Diagnosis) {
    let check = "end of turn";
    let chat = Conversation::new([Message::user("Quokka?"), Message::assistant("Wombat.")]);
    let inner = tokenizer.tokenizer();
    let name = |id: u32| inner.id_to_token(id).unwrap_or_else(|| id.to_string());
    let stops: Vec<String> = tokenizer.stop_token_ids().iter().map(|&id| name(id)).collect();
    if stops.is_empty() {
        report.add(check, Level::Problem, "no stop token: set eos_token or eos_token_id");
        return;
    }
    let encoded = match tokenizer.encode(&chat, &EncodeOptions::default()) {
        Ok(encoded) => encoded,
        Err(error) => {
            report.add(check, Level::Problem, format!("a question and its answer: {error}"));
            return;
        }
    };
    let trained = encoded.ids.iter().zip(&encoded.mask).filter(|(_, trained)| **trained);
    let trained: Vec<u32> = trained.map(|(&id, _)| id).collect();
    let blank = |id: u32| inner.decode(&[id], false).is_ok_and(|text| text.chars().all(is_space));
    let last = trained.iter().rev().copied().find(|&id| !blank(id));
    match last {
        Some(id) if tokenizer.stop_token_ids().contains(&id) => {
            report.add(
                check,
                Level::Fine,
                format!("{} ends a turn, stops generation and is trained", name(id)),
            );
        }
        _ => {
            let written = template_end(tokenizer);
            let message = format!(
                "turns end with {written:?}, but generation stops at {stops:?}: the model will not stop \
                 where a turn ends. Add the end token to eos_token_id in generation_config.json"
            );
            report.add(check, Level::Problem, message);
        }
    }
}

/// What the template writes behind an answer.
fn template_end(tokenizer: &ChatTokenizer) -> String {
    let chat = Conversation::new([Message::user("Quokka?"), Message::assistant("Wombat.")]);
    let text = tokenizer.template().plain(&chat).unwrap_or_default();
    text.rsplit_once("Wombat.").map(|(_, end)| end.to_owned()).unwrap_or_default()
}

pub(super) fn check_pad(tokenizer: &ChatTokenizer, report: &mut Diagnosis) {
    let template = tokenizer.template();
    let pad = template.special_token("pad_token");
    match (pad, template.special_token("eos_token")) {
        (None, _) => {
            report.add("pad", Level::Warning, "no pad token: choose one that no text holds");
        }
        (Some(pad), Some(eos)) if pad == eos => {
            let message = format!(
                "the pad token is the end token {eos}: whoever hides padding by its id also hides the end \
                 of every answer from training. This crate masks by position"
            );
            report.add("pad", Level::Warning, message);
        }
        (Some(pad), _) if tokenizer.tokenizer().token_to_id(pad).is_none() => {
            report.add(
                "pad",
                Level::Problem,
                format!("the pad token {pad} is not in the vocabulary"),
            );
        }
        (Some(pad), _) => report.add("pad", Level::Fine, format!("{pad}, not the end token")),
    }
}

/// Control tokens that the template writes and the tokenizer cuts into pieces.
pub(super) fn check_control_tokens(tokenizer: &ChatTokenizer, report: &mut Diagnosis) {
    let Ok(text) = tokenizer.template().plain(&probe::two_turns()) else { return };
    let mut split = Vec::new();
    let mut known = 0;
    for token in control_like(&text) {
        let single = tokenizer.tokenizer().encode(token, false).is_ok_and(|e| e.len() == 1);
        if single {
            known += 1;
        } else if !split.contains(&token) {
            split.push(token);
        }
    }
    let check = "control tokens";
    if split.is_empty() {
        let message = if known > 0 {
            "all that the template writes are single tokens"
        } else {
            "none written"
        };
        report.add(check, Level::Fine, message);
    } else {
        let message = format!(
            "the template writes {split:?}, which the tokenizer cuts into several tokens: so it is meant \
             in some older models ([INST], <|user|>); else add them to the vocabulary and train their \
             embeddings, or use a template of this model"
        );
        report.add(check, Level::Warning, message);
    }
}

/// Texts like `<|im_end|>`, `</s>` and `[INST]`.
fn control_like(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, open) in text.match_indices(['<', '[']) {
        let close = if open == "<" { '>' } else { ']' };
        let Some(len) = text[at..].find(close) else { continue };
        let token = &text[at..=at + len];
        let inner = &token[1..len];
        let named = inner.chars().all(|c| c.is_alphanumeric() || "_|/｜▁".contains(c));
        let upper = open == "<" || inner.chars().all(|c| c.is_uppercase() || "_/".contains(c));
        if !inner.is_empty() && inner.len() <= 40 && named && upper {
            found.push(token);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_tokens_are_told_from_text() {
        let text = "<s>[INST] a < b > c [1] <|im_end|> [/INST]<｜User｜> list[INDEX] </s>";
        assert_eq!(
            control_like(text),
            ["<s>", "[INST]", "<|im_end|>", "[/INST]", "<｜User｜>", "[INDEX]", "</s>"]
        );
    }
}
