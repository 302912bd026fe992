//! One turn of a conversation, in the `OpenAI` chat form.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::ToolCall;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sets the behaviour of the assistant.
    System,
    /// `OpenAI`'s newer name for the system role.
    Developer,
    /// The person.
    User,
    /// The model; the turns that training looks at.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name as it stands in JSON and as chat templates see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The content of a message: one text, or parts as multimodal APIs send them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// A list of parts: `[{"type": "text", "text": "..."}, {"type": "image_url", ...}]`.
    Parts(Vec<Part>),
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// One part of a message's content. Every key is kept, so parts that this crate knows nothing
/// about (images, audio) survive a round trip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Part(pub Map<String, Value>);

impl Part {
    /// A text part.
    pub fn text(text: impl Into<String>) -> Self {
        let mut part = Map::new();
        part.insert("type".into(), "text".into());
        part.insert("text".into(), text.into().into());
        Self(part)
    }

    /// The text, when it is a text part.
    pub fn as_text(&self) -> Option<&str> {
        self.0.get("text").and_then(Value::as_str)
    }
}

/// One turn of a conversation.
///
/// Absent fields are not written, and fields that are unknown here are kept in [`Message::extra`]
/// and reach the chat template under their own names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said. `None` (JSON `null` or absent) for a turn that only calls tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The model's reasoning, without its tags. Other names of it (`reasoning`, `thinking`) stay in
    /// [`Message::extra`]; [`Message::reasoning`] reads them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The tools that the assistant calls in this turn.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// For a tool turn, the call that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The participant's or the tool's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether this turn is trained, where the mask follows per-message flags. `OpenAI` writes it
    /// as `weight` 0 or 1; `train` (a boolean) is read as well.
    #[serde(
        default,
        rename = "weight",
        alias = "train",
        deserialize_with = "read_weight",
        serialize_with = "write_weight",
        skip_serializing_if = "Option::is_none"
    )]
    pub train: Option<bool>,
    /// Every other key of the message, in its order.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message with text content.
    ///
    /// ```
    /// use posttrain_core::{Message, Role};
    ///
    /// let message = Message::new(Role::User, "Hello");
    /// assert_eq!(serde_json::to_string(&message)?, r#"{"role":"user","content":"Hello"}"#);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn new(role: Role, content: impl Into<Content>) -> Self {
        Self {
            role,
            content: Some(content.into()),
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
            train: None,
            extra: Map::new(),
        }
    }

    /// A system message.
    pub fn system(content: impl Into<Content>) -> Self {
        Self::new(Role::System, content)
    }

    /// A user message.
    pub fn user(content: impl Into<Content>) -> Self {
        Self::new(Role::User, content)
    }

    /// An assistant message.
    pub fn assistant(content: impl Into<Content>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// An assistant message that only calls tools; its content is null.
    pub fn tool_calling(tool_calls: Vec<ToolCall>) -> Self {
        Self { content: None, tool_calls, ..Self::new(Role::Assistant, "") }
    }

    /// The result of a tool call.
    pub fn tool(tool_call_id: impl Into<String>, content: impl Into<Content>) -> Self {
        Self { tool_call_id: Some(tool_call_id.into()), ..Self::new(Role::Tool, content) }
    }

    /// The reasoning, under whichever name it came: `reasoning_content`, `thinking` or `reasoning`,
    /// the first that is there.
    pub fn reasoning(&self) -> Option<&str> {
        let alias = |name| self.extra.get(name).and_then(Value::as_str);
        self.reasoning_content
            .as_deref()
            .or_else(|| alias("thinking"))
            .or_else(|| alias("reasoning"))
    }

    /// The text of the message: its content, or its text parts joined. Empty when there is none.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.content {
            None => Cow::Borrowed(""),
            Some(Content::Text(text)) => Cow::Borrowed(text),
            Some(Content::Parts(parts)) => {
                Cow::Owned(parts.iter().filter_map(Part::as_text).collect())
            }
        }
    }
}

pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

fn read_weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let weight = Option::<Value>::deserialize(deserializer)?;
    weight.as_ref().map(training_flag).transpose().map_err(|found| {
        serde::de::Error::custom(format!("message weight is {found}, expected 0, 1, true or false"))
    })
}

/// Reads the flag that says whether a message is trained: a boolean, or `OpenAI`'s weight 0 or 1.
///
/// # Errors
/// What was found instead.
pub fn training_flag(flag: &Value) -> Result<bool, String> {
    match (flag.as_bool(), flag.as_f64()) {
        (Some(train), _) => Ok(train),
        (_, Some(0.0)) => Ok(false),
        (_, Some(1.0)) => Ok(true),
        _ => Err(flag.to_string()),
    }
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn write_weight<S: Serializer>(train: &Option<bool>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(u8::from(*train == Some(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(json: &str) -> String {
        serde_json::to_string(&serde_json::from_str::<Message>(json).unwrap()).unwrap()
    }

    #[test]
    fn openai_forms_survive_a_round_trip() {
        for json in [
            r#"{"role":"user","content":"hi","name":"ada"}"#,
            r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u"}}]}"#,
            r#"{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}}]}"#,
            r#"{"role":"tool","content":"22","tool_call_id":"c1"}"#,
            r#"{"role":"assistant","content":"4","reasoning_content":"2+2","weight":0}"#,
            r#"{"role":"assistant","content":"4","refusal":null,"audio":{"id":"a"}}"#,
        ] {
            assert_eq!(round_trip(json), json);
        }
    }

    #[test]
    fn aliases_are_read() {
        let message: Message = serde_json::from_str(
            r#"{"role":"assistant","content":null,"thinking":"t","train":true,"tool_calls":null}"#,
        )
        .unwrap();
        assert_eq!(message.reasoning(), Some("t"));
        assert_eq!(message.train, Some(true));
        assert_eq!(message.content, None);
        assert!(message.tool_calls.is_empty());
    }

    #[test]
    fn unknown_roles_and_weights_are_refused_by_name() {
        let error = serde_json::from_str::<Message>(r#"{"role":"bot","content":""}"#).unwrap_err();
        assert!(error.to_string().contains("unknown variant `bot`"), "{error}");
        let error = serde_json::from_str::<Message>(r#"{"role":"user","weight":0.5}"#).unwrap_err();
        assert!(error.to_string().contains("weight is 0.5"), "{error}");
    }

    #[test]
    fn text_joins_parts() {
        let message = Message::user(Content::Parts(vec![Part::text("a"), Part::text("b")]));
        assert_eq!(message.text(), "ab");
    }
}
