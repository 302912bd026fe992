//! Prompts and what answers them: completions, preferences, labelled answers, labelled steps.

use serde_json::Value as Json;

use super::columns::Fields;
use super::implicit::{self, Names, Parts};
use super::messages::{self, Roles};
use crate::fault::Fault;
use crate::row::{Body, Example, RawMessage};

/// Takes a prompt: not empty.
pub(crate) fn prompt(fields: &mut Fields<'_>, roles: &Roles) -> Result<Body, Fault> {
    let value = fields.require("prompt")?;
    said(value, fields.name("prompt"), roles)
}

pub(crate) fn completion(fields: &mut Fields<'_>, roles: &Roles) -> Result<Example, Fault> {
    let prompt = prompt(fields, roles)?;
    let completion = answer(fields, "completion", &prompt, roles)?;
    Ok(Example::PromptCompletion { prompt, completion })
}

pub(crate) fn unpaired(fields: &mut Fields<'_>, roles: &Roles) -> Result<Example, Fault> {
    let prompt = prompt(fields, roles)?;
    let completion = answer(fields, "completion", &prompt, roles)?;
    let label = fields.require("label")?;
    let label = match (label.as_bool(), label.as_f64()) {
        (Some(label), _) => label,
        (_, Some(1.0)) => true,
        (_, Some(0.0)) => false,
        _ => return Err(Fault::value(fields.name("label"), &label, "true, false, 1 or 0")),
    };
    Ok(Example::Unpaired { prompt, completion, label })
}

pub(crate) fn steps(fields: &mut Fields<'_>, roles: &Roles) -> Result<Example, Fault> {
    let prompt = prompt(fields, roles)?;
    let (value, column) = match fields.take("steps") {
        Some(value) => (value, fields.name("steps")),
        None => (fields.require("completions")?, fields.name("completions")),
    };
    let items = list(value, column, "a list of strings, the steps")?;
    if items.is_empty() {
        return Err(Fault::empty(column));
    }
    let step = |(i, item)| match item {
        Json::String(text) if text.trim().is_empty() => Err(Fault::empty(format!("{column}[{i}]"))),
        Json::String(text) => Ok(text),
        found => Err(Fault::value(format!("{column}[{i}]"), &found, "a string")),
    };
    let steps: Vec<String> = items.into_iter().enumerate().map(step).collect::<Result<_, _>>()?;
    let column = fields.name("labels");
    let items = list(fields.require("labels")?, column, "a list with a label for each step")?;
    if items.len() != steps.len() {
        let found = format!("a list of {}", items.len());
        let expected = format!("a list of {}, a label for each step", steps.len());
        return Err(Fault::Value { field: column.into(), found, expected });
    }
    let label = |(i, item): (usize, Json)| match (item.as_bool(), item.as_f64()) {
        (Some(label), _) => Ok(f64::from(u8::from(label))),
        (_, Some(label)) if (0.0..=1.0).contains(&label) => Ok(label),
        _ => {
            let expected = "true, false or a number from 0 to 1";
            Err(Fault::value(format!("{column}[{i}]"), &item, expected))
        }
    };
    let labels = items.into_iter().enumerate().map(label).collect::<Result<_, _>>()?;
    Ok(Example::Steps { prompt, steps, labels })
}

pub(crate) fn preference(fields: &mut Fields<'_>, roles: &Roles) -> Result<Example, Fault> {
    let names = Names { chosen: fields.name("chosen"), rejected: fields.name("rejected") };
    let chosen = said(fields.require("chosen")?, names.chosen, roles)?;
    let rejected = said(fields.require("rejected")?, names.rejected, roles)?;
    if chosen == rejected {
        let (chosen, rejected) = (names.chosen.into(), names.rejected.into());
        return Err(Fault::SameAnswers { chosen, rejected });
    }
    let given = match fields.take("prompt") {
        None => None,
        Some(value) => Some(said(value, fields.name("prompt"), roles)?),
    };
    let margin = match fields.take("margin") {
        None => None,
        Some(Json::Number(number)) => number.as_f64(),
        Some(found) => return Err(Fault::value(fields.name("margin"), &found, "a number")),
    };
    let (prompt, chosen, rejected) = parts(given, chosen, rejected, names, fields.name("prompt"))?;
    let chosen = checked(chosen, names.chosen)?;
    let rejected = checked(rejected, names.rejected)?;
    Ok(Example::Preference { prompt, chosen, rejected, margin })
}

/// Prompt and answers, all texts or all messages.
fn parts(
    given: Option<Body>,
    chosen: Body,
    rejected: Body,
    names: Names<'_>,
    prompt: &str,
) -> Result<Parts, Fault> {
    use Body::{Messages, Text};
    match (given, chosen, rejected) {
        (None, Text(chosen), Text(rejected)) => implicit::text(chosen, rejected, names),
        (None, Messages(chosen), Messages(rejected)) => implicit::messages(chosen, rejected, names),
        (Some(Text(text)), Messages(chosen), Messages(rejected)) => {
            let parts = implicit::messages(chosen, rejected, names)?;
            implicit::check(&text, &parts.0, prompt)?;
            Ok(parts)
        }
        (Some(given @ Text(_)), chosen @ Text(_), rejected @ Text(_))
        | (Some(given @ Messages(_)), chosen @ Messages(_), rejected @ Messages(_)) => {
            Ok((given, chosen, rejected))
        }
        (_, chosen, rejected) => {
            let found = format!("{} and {}", kind(&chosen), kind(&rejected));
            let field = format!("{}, {}", names.chosen, names.rejected);
            let expected = "texts where the prompt is text, messages where it is messages".into();
            Err(Fault::Value { field, found, expected })
        }
    }
}

const fn kind(body: &Body) -> &'static str {
    match body {
        Body::Text(_) => "text",
        Body::Messages(_) => "messages",
    }
}

fn list(value: Json, field: &str, expected: &str) -> Result<Vec<Json>, Fault> {
    match value {
        Json::Array(items) => Ok(items),
        found => Err(Fault::value(field, &found, expected)),
    }
}

/// A text or messages, not empty.
fn said(value: Json, field: &str, roles: &Roles) -> Result<Body, Fault> {
    let body = match value {
        Json::String(text) => Body::Text(text),
        value @ (Json::Array(_) | Json::Object(_)) => {
            Body::Messages(messages::list(value, field, roles)?)
        }
        found => return Err(Fault::value(field, &found, "a string or a list of messages")),
    };
    if body.is_empty() { Err(Fault::empty(field)) } else { Ok(body) }
}

pub(crate) fn ranked(fields: &mut Fields<'_>, roles: &Roles) -> Result<Example, Fault> {
    let prompt = prompt(fields, roles)?;
    let column = fields.name("completions");
    let items = list(fields.require("completions")?, column, "a list of answers")?;
    let answers = items.into_iter().enumerate();
    let answers = answers.map(|(i, item)| like(item, &format!("{column}[{i}]"), &prompt, roles));
    let completions: Vec<Body> = answers.collect::<Result<_, _>>()?;
    let count = completions.len();
    if count < 2 {
        let (field, found) = (column.into(), format!("a list of {count}"));
        return Err(Fault::Value { field, found, expected: "at least two answers".into() });
    }
    for (i, answer) in completions.iter().enumerate() {
        if let Some(twin) = completions[..i].iter().position(|other| other == answer) {
            let (chosen, rejected) = (format!("{column}[{twin}]"), format!("{column}[{i}]"));
            return Err(Fault::SameAnswers { chosen, rejected });
        }
    }
    let (value, column) = match fields.take("scores") {
        Some(value) => (value, fields.name("scores")),
        None => (fields.require("rewards")?, fields.name("rewards")),
    };
    let items = list(value, column, "a list with a score for each answer")?;
    if items.len() != count {
        let found = format!("a list of {}", items.len());
        let expected = format!("a list of {count}, a score for each answer");
        return Err(Fault::Value { field: column.into(), found, expected });
    }
    let score = |(i, item): (usize, Json)| match item.as_f64() {
        Some(score) => Ok(score),
        None => Err(Fault::value(format!("{column}[{i}]"), &item, "a number")),
    };
    let scores = items.into_iter().enumerate().map(score).collect::<Result<_, _>>()?;
    Ok(Example::Ranked { prompt, completions, scores })
}

/// Takes an answer of the same kind as the prompt.
fn answer(
    fields: &mut Fields<'_>,
    name: &'static str,
    prompt: &Body,
    roles: &Roles,
) -> Result<Body, Fault> {
    let value = fields.require(name)?;
    like(value, fields.name(name), prompt, roles)
}

/// An answer of the same kind as the prompt.
fn like(value: Json, field: &str, prompt: &Body, roles: &Roles) -> Result<Body, Fault> {
    let answer = said(value, field, roles)?;
    let expected = match (prompt, &answer) {
        (Body::Text(_), Body::Messages(_)) => "a string, as the prompt is one",
        (Body::Messages(_), Body::Text(_)) => "a list of messages, as the prompt is one",
        _ => return checked(answer, field),
    };
    Err(Fault::value(field, &answer.to_json(), expected))
}

/// Checks that an answer says something, and that the assistant says it.
fn checked(answer: Body, field: &str) -> Result<Body, Fault> {
    if answer.is_empty() {
        return Err(Fault::empty(field));
    }
    let Body::Messages(messages) = &answer else { return Ok(answer) };
    let ends = [0, messages.len() - 1];
    let assistant = |message: &RawMessage| message["role"] == "assistant";
    match ends.into_iter().find(|&i| !assistant(&messages[i])) {
        None => Ok(answer),
        Some(i) => Err(Fault::Value {
            field: format!("{field}[{i}]"),
            found: format!("a message of the role {}", messages[i]["role"]),
            expected: "one of the assistant, with which answers begin and end".into(),
        }),
    }
}
