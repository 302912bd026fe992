//! The prompt of a preference that has none of its own: what both answers begin with.
//!
//!   prompt = longest common prefix of chosen and rejected
//!
//! For messages it is counted in whole messages, as in TRL's `extract_prompt`. For texts TRL counts in
//! characters, which cuts words that begin alike ("Yes", "You") after the first letter, and leaves an
//! answer that is the start of the other one with its last letter. Here the prompt ends where a word
//! does, and leaves a word to both answers; a space before it belongs to the answers, as in TRL.

use serde_json::Value as Json;

use crate::fault::Fault;
use crate::row::{Body, RawMessage};

/// Prompt, chosen, rejected.
pub(crate) type Parts = (Body, Body, Body);

/// The names of the columns of both answers.
#[derive(Clone, Copy)]
pub(crate) struct Names<'c> {
    pub(crate) chosen: &'c str,
    pub(crate) rejected: &'c str,
}

impl Names<'_> {
    fn no_prompt(self, reason: impl Into<String>) -> Fault {
        let (chosen, rejected) = (self.chosen.into(), self.rejected.into());
        Fault::NoPrompt { chosen, rejected, reason: reason.into() }
    }
}

pub(crate) fn messages(
    mut chosen: Vec<RawMessage>,
    mut rejected: Vec<RawMessage>,
    names: Names<'_>,
) -> Result<Parts, Fault> {
    let common = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    for (messages, name) in [(&chosen, names.chosen), (&rejected, names.rejected)] {
        match messages.get(common) {
            None => {
                let reason = format!("all of `{name}` stands in the other as well");
                return Err(names.no_prompt(reason));
            }
            Some(message) if message["role"] != "assistant" => {
                let role = &message["role"];
                let reason = format!("`{name}[{common}]`, where they part, has the role {role}");
                return Err(names.no_prompt(reason));
            }
            Some(_) => {}
        }
    }
    if common == 0 {
        return Err(names.no_prompt("their first messages differ"));
    }
    let (better, worse) = (chosen.split_off(common), rejected.split_off(common));
    Ok((Body::Messages(chosen), Body::Messages(better), Body::Messages(worse)))
}

pub(crate) fn text(mut chosen: String, rejected: String, names: Names<'_>) -> Result<Parts, Fault> {
    let pairs = chosen.char_indices().zip(rejected.chars());
    let last = pairs.take_while(|((_, a), b)| a == b).last();
    let common = last.map_or(0, |((at, char), _)| at + char.len_utf8());
    let shared = &chosen[..common];
    let parting = |char: char| char.is_whitespace() || char.is_ascii_punctuation();
    let rests = [&chosen[common..], &rejected[common..]];
    let in_word = shared.ends_with(|char| !parting(char))
        && rests.iter().any(|rest| rest.starts_with(|char| !parting(char)));
    let mut end = if rests.iter().any(|rest| rest.trim().is_empty()) {
        // One answer is the start of the other: leave it its last word.
        shared.trim_end().rfind(char::is_whitespace).unwrap_or(0)
    } else if in_word {
        let word = shared.rfind(parting);
        word.and_then(|at| Some(at + shared[at..].chars().next()?.len_utf8())).unwrap_or(0)
    } else {
        common
    };
    if chosen[..end].ends_with(' ') {
        end -= 1;
    }
    if chosen[..end].trim().is_empty() {
        return Err(names.no_prompt("they have no word in common there"));
    }
    let answers = (chosen.split_off(end), rejected[end..].to_owned());
    Ok((Body::Text(chosen), Body::Text(answers.0), Body::Text(answers.1)))
}

/// A prompt as text beside answers that are whole conversations says nothing new, when it is what a
/// user asks in them; otherwise nobody knows which is meant.
pub(crate) fn check(text: &str, prompt: &Body, field: &str) -> Result<(), Fault> {
    let Body::Messages(messages) = prompt else { return Ok(()) };
    let asked = |message: &RawMessage| {
        message["role"] == "user"
            && message.get("content").and_then(Json::as_str).map(str::trim) == Some(text.trim())
    };
    if messages.iter().any(asked) {
        return Ok(());
    }
    Err(Fault::Value {
        field: field.into(),
        found: "a string".into(),
        expected: "a list of messages, or what a user asks in both answers".into(),
    })
}
