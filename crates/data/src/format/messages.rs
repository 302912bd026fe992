//! Lists of messages, in `OpenAI`'s form or in `ShareGPT`'s.

use std::collections::BTreeMap;

use posttrain_core::{Message, Role};
use serde_json::{Map, Value as Json};

use super::columns::Fields;
use super::sharegpt;
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::row::{Example, RawMessage};

/// The roles that messages may have.
const ROLES: [Role; 5] = [Role::System, Role::Developer, Role::User, Role::Assistant, Role::Tool];

/// What an assistant's turn may hold in place of content.
const OTHER_ANSWERS: [&str; 7] = [
    "tool_calls",
    "function_call",
    "reasoning_content",
    "reasoning",
    "thinking",
    "refusal",
    "audio",
];

/// Other spellings of roles, as the user names them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roles(BTreeMap<String, Role>);

impl Roles {
    /// # Errors
    /// [`Error::Options`] for a role that is none.
    pub(crate) fn new(spellings: &BTreeMap<String, String>) -> Result<Self> {
        let mut roles = BTreeMap::new();
        for (spelling, name) in spellings {
            let Some(role) = ROLES.into_iter().find(|role| role.as_str() == name) else {
                return Err(Error::options(format!("roles.{spelling}"), name, names()));
            };
            roles.insert(spelling.clone(), role);
        }
        Ok(Self(roles))
    }

    pub(crate) fn get(&self, spelling: &str) -> Option<Role> {
        self.0.get(spelling).copied()
    }
}

fn names() -> String {
    ROLES.map(Role::as_str).join(", ")
}

pub(crate) fn read(fields: &mut Fields<'_>, roles: &Roles) -> Result<Example, Fault> {
    let column = fields.name("messages");
    let messages = list(fields.require("messages")?, column, roles)?;
    if messages.is_empty() {
        return Err(Fault::empty(column));
    }
    Ok(Example::Messages(messages))
}

/// A list of messages; it may be empty.
pub(crate) fn list(value: Json, field: &str, roles: &Roles) -> Result<Vec<RawMessage>, Fault> {
    let items = match value {
        Json::Array(items) => items,
        // One answer is often written without a list around it.
        Json::Object(message) => vec![Json::Object(message)],
        found => return Err(Fault::value(field, &found, "a list of messages")),
    };
    let message = |(i, item)| {
        let field = || format!("{field}[{i}]");
        match item {
            Json::Object(object) if object.contains_key("role") => openai(object, &field, roles),
            Json::Object(object) if object.contains_key("from") => {
                sharegpt::message(object, &field, roles)
            }
            found => {
                let expected = "an object with `role` and `content`, or with `from` and `value`";
                Err(Fault::value(field(), &found, expected))
            }
        }
    };
    items.into_iter().enumerate().map(message).collect()
}

fn openai(
    mut message: RawMessage,
    field: &dyn Fn() -> String,
    roles: &Roles,
) -> Result<RawMessage, Fault> {
    let name = match &message["role"] {
        Json::String(name) => name.as_str(),
        found => return Err(Fault::value(format!("{}.role", field()), found, "a string")),
    };
    let role = roles.get(name).or_else(|| ROLES.into_iter().find(|role| role.as_str() == name));
    let Some(role) = role else {
        return Err(Fault::Role { field: field(), found: name.into(), expected: names() });
    };
    if role.as_str() != name {
        message["role"] = role.as_str().into();
    }
    check(&message, role, field)?;
    Ok(message)
}

/// Checks what a message says.
pub(crate) fn check(
    message: &RawMessage,
    role: Role,
    field: &dyn Fn() -> String,
) -> Result<(), Fault> {
    let expected = "a string or a list of parts";
    let said = match message.get("content") {
        None | Some(Json::Null) if role == Role::Assistant => false,
        None | Some(Json::Null) => return Err(Fault::empty(format!("{}.content", field()))),
        Some(Json::String(text)) => !text.trim().is_empty(),
        Some(Json::Array(parts)) => {
            if let Some((i, part)) = parts.iter().enumerate().find(|(_, part)| !part.is_object()) {
                let field = format!("{}.content[{i}]", field());
                return Err(Fault::value(field, part, "an object"));
            }
            parts.iter().filter_map(Json::as_object).any(says)
        }
        Some(found) => {
            return Err(Fault::value(format!("{}.content", field()), found, expected));
        }
    };
    // The other keys have a form when they have a known name.
    if message.len() > 1 + usize::from(message.contains_key("content")) {
        let typed: Result<Message, _> = serde_json::from_value(Json::Object(message.clone()));
        if let Err(error) = typed {
            return Err(Fault::Message { field: field(), reason: error.to_string() });
        }
    }
    if role == Role::Assistant && !said && !answers_otherwise(message) {
        return Err(Fault::empty(field()));
    }
    Ok(())
}

/// Whether a part of a content says something: a text that is not empty, or a picture or sound.
fn says(part: &Map<String, Json>) -> bool {
    match part.get("text") {
        Some(Json::String(text)) => !text.trim().is_empty(),
        _ => part.iter().any(|(key, value)| key != "type" && !value.is_null()),
    }
}

/// Whether a message without content is an answer all the same.
fn answers_otherwise(message: &RawMessage) -> bool {
    OTHER_ANSWERS.iter().any(|key| match message.get(*key) {
        None | Some(Json::Null) => false,
        Some(Json::String(text)) => !text.trim().is_empty(),
        Some(Json::Array(items)) => !items.is_empty(),
        Some(_) => true,
    })
}
