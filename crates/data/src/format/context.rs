//! The columns that a chat template is given beside the messages.

use serde_json::{Map, Value as Json};

use super::columns::Fields;
use crate::fault::Fault;
use crate::json;
use crate::row::Context;

/// Options of the rendering, which a row must not set.
const RENDERING: [&str; 4] =
    ["messages", "add_generation_prompt", "continue_final_message", "chat_template"];

pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Context, Fault> {
    Ok(Context {
        tools: objects(fields, "tools")?,
        documents: objects(fields, "documents")?,
        variables: variables(fields)?,
    })
}

/// A list of objects, or such a list as a JSON text: Parquet has no type for objects of any form, so
/// data sets keep tools as text there.
fn objects(fields: &mut Fields<'_>, name: &'static str) -> Result<Vec<Json>, Fault> {
    let column = fields.name(name);
    let expected = "a list of objects, or JSON text of one";
    let value = match fields.take(name) {
        None => return Ok(Vec::new()),
        Some(Json::String(text)) if text.trim().is_empty() => return Ok(Vec::new()),
        Some(Json::String(text)) => match json::parse(text.as_bytes()) {
            Ok(Json::Null) => return Ok(Vec::new()),
            Ok(value) => value,
            Err(fault) => {
                let found = format!("a string that is no JSON ({fault})");
                let expected = expected.into();
                return Err(Fault::Value { field: column.into(), found, expected });
            }
        },
        Some(value) => value,
    };
    let Json::Array(items) = value else {
        return Err(Fault::value(column, &value, expected));
    };
    match items.iter().enumerate().find(|(_, item)| !item.is_object()) {
        None => Ok(items),
        Some((i, item)) => Err(Fault::value(format!("{column}[{i}]"), item, "an object")),
    }
}

fn variables(fields: &mut Fields<'_>) -> Result<Map<String, Json>, Fault> {
    let name = "chat_template_kwargs";
    let column = fields.name(name);
    let variables = match fields.take(name) {
        None => return Ok(Map::new()),
        Some(Json::Object(variables)) => variables,
        Some(found) => return Err(Fault::value(column, &found, "an object")),
    };
    let forbidden = RENDERING.into_iter().chain(["tools", "documents"]);
    for key in forbidden {
        if let Some(found) = variables.get(key) {
            let expected = "absent: it is no variable of the template";
            return Err(Fault::value(format!("{column}.{key}"), found, expected));
        }
    }
    Ok(variables)
}
