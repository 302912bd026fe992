//! JSON to Python values, borrowing every text.

use serde_json::{Map, Value as Json};

use super::value::{Dict, Value};

/// A JSON value. Integers up to 64 bits stay exact; `serde_json` reads larger ones as floats.
pub(crate) fn from_json(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::Int(n.into()),
            (_, Some(n)) => Value::Int(n.into()),
            _ => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::str(text),
        Json::Array(items) => Value::list(items.iter().map(from_json).collect()),
        Json::Object(map) => Value::dict(from_map(map)),
    }
}

pub(crate) fn from_map(map: &Map<String, Json>) -> Dict<'_> {
    let entries = map.iter().map(|(key, value)| (Value::str(key), from_json(value))).collect();
    Dict { entries }
}
