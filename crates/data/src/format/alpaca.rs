//! Alpaca's form: `instruction`, `input`, `output`, and LLaMA-Factory's `system` and `history`.
//!
//!   [system], for (question, answer) in history: user, assistant; user: instruction \n input; assistant: output
//!
//! as LLaMA-Factory reads it. Stanford's own prompt, which puts the input under a heading, belongs to its
//! template and not to the data.

use posttrain_core::Role;
use serde_json::Value as Json;

use super::columns::Fields;
use super::sharegpt::turn;
use crate::fault::Fault;
use crate::row::{Example, RawMessage};

pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Example, Fault> {
    let mut instruction = said(fields, "instruction")?;
    let output = said(fields, "output")?;
    if let Some(input) = fields.optional_text("input")? {
        instruction.push('\n');
        instruction.push_str(&input);
    }
    let mut messages = Vec::new();
    if let Some(system) = fields.optional_text("system")? {
        messages.push(turn(Role::System, system));
    }
    history(fields, &mut messages)?;
    messages.push(turn(Role::User, instruction));
    messages.push(turn(Role::Assistant, output));
    Ok(Example::Messages(messages))
}

/// A text that is not empty.
fn said(fields: &mut Fields<'_>, name: &'static str) -> Result<String, Fault> {
    let text = fields.text(name)?;
    if text.trim().is_empty() { Err(Fault::empty(fields.name(name))) } else { Ok(text) }
}

/// Earlier turns: a list of pairs of question and answer.
fn history(fields: &mut Fields<'_>, messages: &mut Vec<RawMessage>) -> Result<(), Fault> {
    let column = fields.name("history");
    let pairs = match fields.take("history") {
        None => return Ok(()),
        Some(Json::Array(pairs)) => pairs,
        Some(found) => return Err(Fault::value(column, &found, "a list of pairs")),
    };
    for (i, pair) in pairs.into_iter().enumerate() {
        let texts = pair.as_array().map(Vec::as_slice);
        let Some([Json::String(question), Json::String(answer)]) = texts else {
            let field = format!("{column}[{i}]");
            return Err(Fault::value(field, &pair, "a list of two strings, question and answer"));
        };
        if answer.trim().is_empty() {
            return Err(Fault::empty(format!("{column}[{i}][1]")));
        }
        messages.push(turn(Role::User, question.clone()));
        messages.push(turn(Role::Assistant, answer.clone()));
    }
    Ok(())
}
