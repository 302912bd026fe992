//! JSON to Python values, borrowing every text.

use bumpalo::Bump;
use serde_json::{Map, Value as Json};

use super::value::{Dict, Value};

/// A JSON value. Integers up to 64 bits stay exact; `serde_json` reads larger ones as floats.
pub(crate) fn from_json<'a>(arena: &'a Bump, json: &'a Json) -> Value<'a> {
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(_) => number(json),
        Json::String(text) => Value::Str(text),
        Json::Array(items) => Value::List(
            arena.alloc_slice_fill_iter(items.iter().map(|item| from_json(arena, item))),
        ),
        Json::Object(map) => Value::Dict(from_map(arena, map)),
    }
}

pub(crate) fn from_map<'a>(arena: &'a Bump, map: &'a Map<String, Json>) -> Dict<'a> {
    let entries = map.iter().map(|(key, value)| (Value::Str(key), from_json(arena, value)));
    Dict { entries: arena.alloc_slice_fill_iter(entries) }
}

/// A JSON value that is not kept: its texts are copied into the arena.
pub(crate) fn copy_json<'a>(arena: &'a Bump, json: &Json) -> Value<'a> {
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(_) => number(json),
        Json::String(text) => Value::Str(arena.alloc_str(text)),
        Json::Array(items) => Value::List(
            arena.alloc_slice_fill_iter(items.iter().map(|item| copy_json(arena, item))),
        ),
        Json::Object(map) => Value::Dict(copy_map(arena, map)),
    }
}

pub(crate) fn copy_map<'a>(arena: &'a Bump, map: &Map<String, Json>) -> Dict<'a> {
    let entry = |(key, value): (&String, &Json)| {
        (Value::Str(arena.alloc_str(key)), copy_json(arena, value))
    };
    Dict { entries: arena.alloc_slice_fill_iter(map.iter().map(entry)) }
}

fn number<'a>(json: &Json) -> Value<'a> {
    match (json.as_i64(), json.as_u64()) {
        (Some(n), _) => Value::int(n.into()),
        (_, Some(n)) => Value::int(n.into()),
        _ => Value::Float(json.as_f64().unwrap_or(f64::NAN)),
    }
}
