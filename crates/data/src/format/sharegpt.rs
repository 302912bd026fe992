//! `ShareGPT`'s form: `conversations` of objects with `from` and `value`.
//!
//! Names of speakers as Vicuna, Axolotl and LLaMA-Factory read them. A `function_call` holds one call or
//! a list of calls as JSON text, and becomes an assistant's turn with `tool_calls`.

use posttrain_core::{Role, ToolCall};
use serde_json::Value as Json;

use super::columns::Fields;
use super::messages::{self, Roles, check};
use crate::error::Result;
use crate::fault::Fault;
use crate::json;
use crate::row::{Example, RawMessage};

const SPEAKERS: [(&str, Role); 11] = [
    ("human", Role::User),
    ("user", Role::User),
    ("gpt", Role::Assistant),
    ("assistant", Role::Assistant),
    ("model", Role::Assistant),
    ("chatgpt", Role::Assistant),
    ("function_call", Role::Assistant),
    ("system", Role::System),
    ("tool", Role::Tool),
    ("observation", Role::Tool),
    ("function_response", Role::Tool),
];

pub(crate) fn read(fields: &mut Fields<'_>, roles: &Roles) -> Result<Example, Fault> {
    let column = fields.name("conversations");
    let mut turns = messages::list(fields.require("conversations")?, column, roles)?;
    if turns.is_empty() {
        return Err(Fault::empty(column));
    }
    if let Some(system) = fields.optional_text("system")? {
        if turns[0]["role"] == "system" {
            let field = fields.name("system").to_owned();
            let expected = format!("absent, since `{column}` begins with a system message");
            return Err(Fault::value(field, &Json::String(system), expected));
        }
        turns.insert(0, turn(Role::System, system));
    }
    Ok(Example::Messages(turns))
}

/// A message of a role with text.
pub(crate) fn turn(role: Role, content: String) -> RawMessage {
    let mut message = RawMessage::new();
    message.insert("role".into(), role.as_str().into());
    message.insert("content".into(), content.into());
    message
}

/// Turns a message with `from` and `value` into `OpenAI`'s form; its other keys are kept.
pub(crate) fn message(
    mut message: RawMessage,
    field: &dyn Fn() -> String,
    roles: &Roles,
) -> Result<RawMessage, Fault> {
    let speaker = match message.shift_remove("from") {
        Some(Json::String(name)) => name,
        found => {
            let found = found.unwrap_or_default();
            return Err(Fault::value(format!("{}.from", field()), &found, "a string"));
        }
    };
    let known = || SPEAKERS.iter().find(|(name, _)| *name == speaker).map(|&(_, role)| role);
    let Some(role) = roles.get(&speaker).or_else(known) else {
        let expected = SPEAKERS.map(|(name, _)| name).join(", ");
        return Err(Fault::Role { field: field(), found: speaker, expected });
    };
    let value = match message.shift_remove("value") {
        Some(Json::String(text)) => text,
        found => {
            let found = found.unwrap_or_default();
            return Err(Fault::value(format!("{}.value", field()), &found, "a string"));
        }
    };
    for taken in ["role", "content"] {
        if let Some(found) = message.get(taken) {
            let expected = "absent beside `from` and `value`";
            return Err(Fault::value(format!("{}.{taken}", field()), found, expected));
        }
    }
    let mut made = if speaker == "function_call" && roles.get(&speaker).is_none() {
        let mut made = RawMessage::new();
        made.insert("role".into(), role.as_str().into());
        made.insert("tool_calls".into(), calls(&value, field)?);
        made
    } else {
        turn(role, value)
    };
    made.extend(message);
    check(&made, role, field)?;
    Ok(made)
}

/// The calls in the text of a `function_call`.
fn calls(text: &str, field: &dyn Fn() -> String) -> Result<Json, Fault> {
    let wrong = |found: String| Fault::Value {
        field: format!("{}.value", field()),
        found,
        expected: "JSON of a call with `name` and `arguments`, or of a list of calls".into(),
    };
    let value =
        json::parse(text.as_bytes()).map_err(|fault| wrong(format!("no JSON ({fault})")))?;
    let calls = match value {
        Json::Array(calls) => calls,
        call => vec![call],
    };
    let call = |call| serde_json::from_value::<ToolCall>(call).and_then(serde_json::to_value);
    let calls: Result<Vec<Json>, _> = calls.into_iter().map(call).collect();
    match calls {
        Ok(calls) if calls.is_empty() => Err(wrong("an empty list".into())),
        Ok(calls) => Ok(Json::Array(calls)),
        Err(error) => Err(wrong(error.to_string())),
    }
}
