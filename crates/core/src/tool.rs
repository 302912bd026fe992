//! Tools that a model may call, and its calls.

use serde::de::Error as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// A tool: the JSON object that goes into the prompt, with its keys in the order in which they were
/// given, because chat templates print it as it stands.
///
/// ```
/// use posttrain_core::Tool;
/// use serde_json::json;
///
/// let tool = Tool::function(
///     "get_weather",
///     "Current weather of a city",
///     json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
/// );
/// assert_eq!(tool.name(), Some("get_weather"));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tool(pub Map<String, Value>);

impl Tool {
    /// A function with its parameters as a JSON schema, in the `OpenAI` form.
    pub fn function(name: &str, description: &str, parameters: Value) -> Self {
        let mut function = Map::new();
        function.insert("name".into(), name.into());
        function.insert("description".into(), description.into());
        function.insert("parameters".into(), parameters);
        let mut tool = Map::new();
        tool.insert("type".into(), "function".into());
        tool.insert("function".into(), Value::Object(function));
        Self(tool)
    }

    /// The function's name, in the `OpenAI` form or in the bare form `{"name": ...}`.
    pub fn name(&self) -> Option<&str> {
        self.definition().get("name").and_then(Value::as_str)
    }

    /// The JSON schema of the parameters.
    pub fn parameters(&self) -> Option<&Value> {
        self.definition().get("parameters")
    }

    fn definition(&self) -> &Map<String, Value> {
        self.0.get("function").and_then(Value::as_object).unwrap_or(&self.0)
    }
}

/// A call of a tool by the assistant. `OpenAI`'s form and the bare `{"name": ..., "arguments": ...}`
/// are read, `OpenAI`'s is written.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The id that the tool's answer refers to.
    pub id: Option<String>,
    /// What is called, with what.
    pub function: FunctionCall,
    /// Every other key of the call, such as `index`.
    pub extra: Map<String, Value>,
}

impl ToolCall {
    /// A call without an id.
    pub fn new(name: impl Into<String>, arguments: Arguments) -> Self {
        let function = FunctionCall { name: name.into(), arguments };
        Self { id: None, function, extra: Map::new() }
    }
}

/// The name and the arguments of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// Name of the function.
    pub name: String,
    /// Its arguments.
    pub arguments: Arguments,
}

/// The arguments of a call. `OpenAI` sends them as a string that holds JSON, Hugging Face chat
/// templates expect an object; both are kept as they came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Arguments {
    /// A JSON object.
    Object(Map<String, Value>),
    /// Text: JSON as `OpenAI` sends it, or whatever a model wrote that is not valid JSON.
    Text(String),
}

impl Arguments {
    /// The arguments as an object; a text is parsed.
    ///
    /// # Errors
    /// When the text is not a JSON object.
    pub fn to_object(&self) -> Result<Map<String, Value>, serde_json::Error> {
        match self {
            Self::Object(object) => Ok(object.clone()),
            Self::Text(text) => serde_json::from_str(text),
        }
    }

    /// The arguments in `OpenAI`'s form, a string; an object is written as compact JSON.
    pub fn to_text(&self) -> String {
        match self {
            Self::Object(object) => Value::Object(object.clone()).to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(id) = &self.id {
            map.serialize_entry("id", id)?;
        }
        map.serialize_entry("type", "function")?;
        map.serialize_entry("function", &self.function)?;
        for (key, value) in &self.extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ToolCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut extra = Map::deserialize(deserializer)?;
        let wrong = |what: &str, found: &Value, expected: &str| {
            D::Error::custom(format!("{what} is {found}, expected {expected}"))
        };
        let id = match extra.shift_remove("id") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(id),
            Some(found) => return Err(wrong("the id of a tool call", &found, "a string")),
        };
        let mut function = match extra.shift_remove("function") {
            Some(Value::Object(function)) => {
                extra.shift_remove("type");
                function
            }
            Some(found) => return Err(wrong("`function` of a tool call", &found, "an object")),
            None => {
                let bare = ["name", "arguments"];
                let take = |key| extra.shift_remove(key).map(|value| (String::from(key), value));
                bare.into_iter().filter_map(take).collect()
            }
        };
        let name = match function.shift_remove("name") {
            Some(Value::String(name)) => name,
            Some(found) => return Err(wrong("the name of a tool call", &found, "a string")),
            None => return Err(D::Error::custom("a tool call has neither `function` nor `name`")),
        };
        // A function without parameters is called without arguments.
        let arguments = match function.shift_remove("arguments") {
            None | Some(Value::Null) => Arguments::Object(Map::new()),
            Some(Value::Object(object)) => Arguments::Object(object),
            Some(Value::String(text)) => Arguments::Text(text),
            Some(found) => {
                let expected = "an object, or a string that holds one";
                return Err(wrong(
                    &format!("`arguments` of the call of {name:?}"),
                    &found,
                    expected,
                ));
            }
        };
        if let Some(key) = function.keys().next() {
            let message = format!("the call of {name:?} has the unknown key `{key}`");
            return Err(D::Error::custom(message));
        }
        Ok(Self { id, function: FunctionCall { name, arguments }, extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_form() {
        let text: Arguments = serde_json::from_str(r#""{\"x\": 1""#).unwrap();
        assert_eq!(text, Arguments::Text("{\"x\": 1".into()));
        assert!(text.to_object().is_err());
        let object: Arguments = serde_json::from_str(r#"{"b": 1, "a": 2}"#).unwrap();
        assert_eq!(object.to_text(), r#"{"b":1,"a":2}"#);
    }

    #[test]
    fn calls_keep_their_keys_and_name_their_faults() {
        let json =
            r#"{"id":"c","type":"function","function":{"name":"f","arguments":"{}"},"index":0}"#;
        let call: ToolCall = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&call).unwrap(), json);
        let call: ToolCall =
            serde_json::from_str(r#"{"type": "function", "function": {"name": "f"}}"#).unwrap();
        assert_eq!(call, ToolCall::new("f", Arguments::Object(Map::new())));
        let fault = |json| serde_json::from_str::<ToolCall>(json).unwrap_err().to_string();
        assert!(fault(r#"{"id": "c"}"#).contains("neither `function` nor `name`"));
        let message = fault(r#"{"name": "f", "arguments": 7}"#);
        assert!(message.contains("`arguments` of the call of \"f\" is 7"), "{message}");
        let message = fault(r#"{"function": {"name": "f", "argumnets": {}}}"#);
        assert!(message.contains("unknown key `argumnets`"), "{message}");
    }

    #[test]
    fn bare_calls_are_read() {
        let call: ToolCall = serde_json::from_str(r#"{"name": "f", "arguments": {}}"#).unwrap();
        assert_eq!(call, ToolCall::new("f", Arguments::Object(Map::new())));
    }
}
