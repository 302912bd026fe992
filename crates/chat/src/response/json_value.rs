//! One JSON value in the middle of a text.

use posttrain_core::Arguments;
use serde::de::DeserializeOwned;
use serde_json::{Deserializer, Map, Value};

/// What stands at an offset.
#[derive(Debug, PartialEq)]
pub(super) enum Read<T> {
    /// A value, and the offset behind it.
    Value(T, usize),
    /// The start of a value; the text ends inside.
    Cut,
    /// Something else.
    Invalid,
}

/// Reads the JSON value at `at`. Its end is where the JSON reader stops, so markers inside of a
/// string do not end it.
pub(super) fn read<T: DeserializeOwned>(text: &str, at: usize) -> Read<T> {
    let mut values = Deserializer::from_str(&text[at..]).into_iter();
    match values.next() {
        Some(Ok(value)) => Read::Value(value, at + values.byte_offset()),
        Some(Err(error)) if !error.is_eof() => Read::Invalid,
        _ => Read::Cut,
    }
}

/// Arguments from the JSON value that was given for them, which was written as `raw`. A string is
/// read as `OpenAI` sends arguments: as JSON.
pub(super) fn arguments_of(value: Value, raw: &str) -> Arguments {
    match value {
        Value::Object(object) => Arguments::Object(object),
        Value::Null => Arguments::Object(Map::new()),
        Value::String(text) => arguments_in(&text),
        _ => Arguments::Text(raw.to_owned()),
    }
}

/// Arguments from a text: an object when it is one, none when it is blank, else the text.
fn arguments_in(text: &str) -> Arguments {
    if text.trim().is_empty() {
        return Arguments::Object(Map::new());
    }
    serde_json::from_str(text).map_or_else(|_| Arguments::Text(text.to_owned()), Arguments::Object)
}

/// Arguments from the text where they should stand. What is cut off stays text, so that nobody takes
/// it for all of the arguments.
pub(super) fn raw_arguments(raw: &str, cut: bool) -> Arguments {
    match serde_json::from_str(raw) {
        _ if cut => Arguments::Text(raw.to_owned()),
        Ok(value) => arguments_of(value, raw),
        Err(_) => arguments_in(raw),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_end_where_the_reader_stops() {
        let text = r#"x {"a": "}</tool_call>\"", "é": [1]} y"#;
        let end = text.len() - 2;
        assert_eq!(read(text, 1), Read::Value(json!({"a": "}</tool_call>\"", "é": [1]}), end));
        assert_eq!(read::<Value>("", 0), Read::Cut);
        assert_eq!(read::<Value>("  ", 0), Read::Cut);
        assert_eq!(read::<Value>(r#"{"a": "\u00"#, 0), Read::Cut);
        assert_eq!(read::<Value>("{a", 0), Read::Invalid);
        assert_eq!(read::<String>("12", 0), Read::Invalid);
        assert_eq!(read::<Value>(&"[".repeat(500), 0), Read::Invalid);
    }

    #[test]
    fn the_last_of_equal_keys_wins() {
        assert_eq!(read(r#"{"a": 1, "a": 2}"#, 0), Read::Value(json!({"a": 2}), 16));
    }

    #[test]
    fn arguments_in_all_forms() {
        let object = |value: Value| arguments_of(value, "raw");
        assert_eq!(object(json!({"x": 1})).to_text(), r#"{"x":1}"#);
        assert_eq!(object(json!(r#"{"x": 1}"#)).to_text(), r#"{"x":1}"#);
        assert_eq!(object(json!(null)).to_text(), "{}");
        assert_eq!(object(json!(" ")).to_text(), "{}");
        assert_eq!(object(json!("{x: 1}")), Arguments::Text("{x: 1}".into()));
        assert_eq!(object(json!("[1]")), Arguments::Text("[1]".into()));
        assert_eq!(object(json!([1])), Arguments::Text("raw".into()));
        assert_eq!(object(json!(7)), Arguments::Text("raw".into()));
    }
}
