//! Tools that a model may call, and its calls.

use serde::{Deserialize, Serialize};
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

/// A call of a tool by the assistant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "ToolCallForm", into = "ToolCallForm")]
pub struct ToolCall {
    /// The id that the tool's answer refers to.
    pub id: Option<String>,
    /// What is called, with what.
    pub function: FunctionCall,
}

impl ToolCall {
    /// A call without an id.
    pub fn new(name: impl Into<String>, arguments: Arguments) -> Self {
        Self { id: None, function: FunctionCall { name: name.into(), arguments } }
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

/// The JSON form of [`ToolCall`]: `OpenAI`'s, or the bare `{"name": ..., "arguments": ...}`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ToolCallForm {
    OpenAi {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        #[serde(rename = "type", default = "function_type")]
        kind: String,
        function: FunctionCall,
    },
    Bare {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        #[serde(flatten)]
        function: FunctionCall,
    },
}

fn function_type() -> String {
    "function".into()
}

impl From<ToolCallForm> for ToolCall {
    fn from(form: ToolCallForm) -> Self {
        match form {
            ToolCallForm::OpenAi { id, function, .. } | ToolCallForm::Bare { id, function } => {
                Self { id, function }
            }
        }
    }
}

impl From<ToolCall> for ToolCallForm {
    fn from(call: ToolCall) -> Self {
        Self::OpenAi { id: call.id, kind: function_type(), function: call.function }
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
    fn bare_calls_are_read() {
        let call: ToolCall = serde_json::from_str(r#"{"name": "f", "arguments": {}}"#).unwrap();
        assert_eq!(call, ToolCall::new("f", Arguments::Object(Map::new())));
    }
}
