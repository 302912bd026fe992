//! Conversations and prompts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::message::null_is_empty;
use crate::{Message, Tool};

/// Messages with the tools and documents that the model may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// The turns, oldest first.
    pub messages: Vec<Message>,
    /// Tools that the assistant may call.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Documents for retrieval-augmented generation.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<Document>,
    /// Every other key, in its order: kept, not shown to the chat template.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Conversation {
    /// A conversation without tools and documents.
    ///
    /// ```
    /// use posttrain_core::{Conversation, Message};
    ///
    /// let conversation = Conversation::new([Message::user("Hello")]);
    /// assert_eq!(conversation.messages.len(), 1);
    /// ```
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Self {
        Self { messages: messages.into_iter().collect(), ..Self::default() }
    }
}

/// A document, usually with the keys `title` and `text`; every key reaches the chat template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Document(pub Map<String, Value>);

impl Document {
    /// A document with a title and a text.
    pub fn new(title: &str, text: &str) -> Self {
        let mut document = Map::new();
        document.insert("title".into(), title.into());
        document.insert("text".into(), text.into());
        Self(document)
    }
}

/// What a model is asked: plain text that it continues, or a conversation that it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// Text to continue, as it stands.
    Text(String),
    /// A conversation, to be rendered with the model's chat template.
    Conversation(Conversation),
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Conversation> for Prompt {
    fn from(conversation: Conversation) -> Self {
        Self::Conversation(conversation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_other_columns() {
        let row =
            r#"{"messages":[],"source":"s","chat_template_kwargs":{"enable_thinking":false}}"#;
        let chat: Conversation = serde_json::from_str(row).unwrap();
        assert_eq!(serde_json::to_string(&chat).unwrap(), row);
        let null: Conversation =
            serde_json::from_str(r#"{"messages":[],"tools":null,"documents":null}"#).unwrap();
        assert_eq!(null, Conversation::default());
    }

    #[test]
    fn a_prompt_is_a_string_or_a_conversation() {
        let text: Prompt = serde_json::from_str(r#""2 + 2 =""#).unwrap();
        assert_eq!(text, Prompt::from("2 + 2 ="));
        let chat: Prompt =
            serde_json::from_str(r#"{"messages": [{"role": "user", "content": "2 + 2?"}]}"#)
                .unwrap();
        assert_eq!(chat, Conversation::new([Message::user("2 + 2?")]).into());
    }
}
