//! Values from text, by a tool's JSON schema.

use posttrain_core::Tool;
use serde_json::Value;

/// How far references and combinations in a schema are followed.
const DEPTH: usize = 8;

/// The value of the argument `key` of the tool `name`, written as `raw`. Formats that write values
/// without quotes leave open whether `7` is a number or a text; the schema tells: a value of a type
/// that it allows besides `string` is read as JSON, everything else stays text. Python's `True`,
/// `False` and `None` are read too, because templates print values with Python's `str`.
pub(super) fn cast(raw: &str, tools: &[Tool], name: &str, key: &str) -> Value {
    let value = match raw.trim() {
        "True" => Some(Value::Bool(true)),
        "False" => Some(Value::Bool(false)),
        "None" => Some(Value::Null),
        text => serde_json::from_str(text).ok(),
    };
    let tool = tools.iter().find(|tool| tool.name() == Some(name));
    let root = tool.and_then(Tool::parameters);
    let schema = root.and_then(|root| root.get("properties")?.get(key));
    match (value, root, schema) {
        (Some(value), Some(root), Some(schema)) if allows(schema, root, &value, DEPTH) => value,
        _ => Value::String(raw.to_owned()),
    }
}

/// Whether the schema declares the value's type.
fn allows(schema: &Value, root: &Value, value: &Value, depth: usize) -> bool {
    let declared = match schema.get("type") {
        Some(Value::String(kind)) => is_of(value, kind),
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).any(|k| is_of(value, k))
        }
        _ => false,
    };
    let nullable = value.is_null() && schema.get("nullable") == Some(&Value::Bool(true));
    if declared || nullable || depth == 0 {
        return declared || nullable;
    }
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
    let choices =
        ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|key| schema.get(key)?.as_array());
    choices
        .flatten()
        .chain(target.and_then(|path| root.pointer(path)))
        .any(|choice| allows(choice, root, value, depth - 1))
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cast_as(schema: Value, raw: &str) -> Value {
        let parameters = json!({
            "type": "object",
            "properties": {"x": schema},
            "$defs": {"Point": {"type": "object"}, "Loop": {"$ref": "#/$defs/Loop"}},
        });
        cast(raw, &[Tool::function("f", "", parameters)], "f", "x")
    }

    #[test]
    fn each_type_reads_its_own() {
        assert_eq!(cast_as(json!({"type": "string"}), "7"), json!("7"));
        assert_eq!(cast_as(json!({"type": "string"}), " a\n"), json!(" a\n"));
        assert_eq!(cast_as(json!({"type": "integer"}), "7"), json!(7));
        assert_eq!(cast_as(json!({"type": "integer"}), "7.5"), json!("7.5"));
        assert_eq!(cast_as(json!({"type": "integer"}), "\"7\""), json!("\"7\""));
        assert_eq!(cast_as(json!({"type": "number"}), "-1.5e3"), json!(-1500.0));
        assert_eq!(cast_as(json!({"type": "number"}), "NaN"), json!("NaN"));
        assert_eq!(cast_as(json!({"type": "boolean"}), "true"), json!(true));
        assert_eq!(cast_as(json!({"type": "boolean"}), "False"), json!(false));
        assert_eq!(cast_as(json!({"type": "boolean"}), "yes"), json!("yes"));
        assert_eq!(cast_as(json!({"type": "array"}), "[1, \"a\"]"), json!([1, "a"]));
        assert_eq!(cast_as(json!({"type": "array"}), "[1,"), json!("[1,"));
        assert_eq!(cast_as(json!({"type": "object"}), "{\"a\": {}}"), json!({"a": {}}));
        assert_eq!(cast_as(json!({"type": "object"}), "[1]"), json!("[1]"));
        assert_eq!(cast_as(json!({"type": "null"}), "None"), json!(null));
    }

    #[test]
    fn unions_and_references() {
        assert_eq!(cast_as(json!({"type": ["string", "null"]}), "null"), json!(null));
        assert_eq!(cast_as(json!({"type": ["string", "null"]}), "nil"), json!("nil"));
        let either = json!({"anyOf": [{"type": "string"}, {"type": "integer"}]});
        assert_eq!(cast_as(either.clone(), "7"), json!(7));
        assert_eq!(cast_as(either, "[7]"), json!("[7]"));
        assert_eq!(cast_as(json!({"type": "string", "nullable": true}), "None"), json!(null));
        assert_eq!(cast_as(json!({"$ref": "#/$defs/Point"}), "{}"), json!({}));
        assert_eq!(cast_as(json!({"$ref": "#/$defs/Loop"}), "{}"), json!("{}"));
        assert_eq!(cast_as(json!({"$ref": "#/$defs/Absent"}), "{}"), json!("{}"));
        assert_eq!(cast_as(json!({}), "7"), json!("7"));
        assert_eq!(cast_as(json!(true), "7"), json!("7"));
    }

    #[test]
    fn unknown_tools_and_keys_stay_text() {
        let tools = [Tool::function("f", "", json!({"properties": {"x": {"type": "integer"}}}))];
        assert_eq!(cast("7", &tools, "f", "x"), json!(7));
        assert_eq!(cast("7", &tools, "f", "y"), json!("7"));
        assert_eq!(cast("7", &tools, "g", "x"), json!("7"));
        assert_eq!(cast("7", &[], "f", "x"), json!("7"));
    }
}
