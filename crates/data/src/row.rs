//! A row of data: what it says, what else it carries, and where it stands.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use posttrain_chat::JsonChat;
use posttrain_core::{Conversation, Document, Prompt, Tool};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};

/// A message as it stands in the row: `role`, `content` and whatever other keys it has. Chat templates
/// see all of them, as in transformers.
pub type RawMessage = Map<String, Json>;

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file, as the reader was given it.
    pub file: Arc<Path>,
    /// Which row of the file, from 1 on.
    pub row: u64,
    /// Where its text begins, from line 1 on; `None` in Parquet files.
    pub line: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, row, line } = self;
        match line {
            Some(line) if line == row => write!(f, "{}:{line}", file.display()),
            Some(line) => write!(f, "{}:{line} (row {row})", file.display()),
            None => write!(f, "{} row {row}", file.display()),
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it says.
    pub example: Example,
    /// What its chat template is given beside the messages.
    pub context: Context,
    /// All columns that the format does not use, in their order.
    pub metadata: Map<String, Json>,
    /// Where it stands.
    pub place: Place,
}

/// What a row says.
///
/// Within one row, a prompt and its answers are all texts or all lists of messages. Answers are not
/// empty, and in messages they begin and end with the assistant.
#[derive(Clone, Debug, PartialEq)]
pub enum Example {
    /// A conversation.
    Messages(Vec<RawMessage>),
    /// A text to continue.
    Text(String),
    /// A prompt without an answer.
    Prompt(Body),
    /// A prompt with its answer.
    PromptCompletion {
        /// What is asked.
        prompt: Body,
        /// What is answered.
        completion: Body,
    },
    /// A prompt with a better and a worse answer.
    Preference {
        /// What is asked.
        prompt: Body,
        /// The better answer.
        chosen: Body,
        /// The worse answer, another than the better one.
        rejected: Body,
        /// By how much it is better, where that is known; finite.
        margin: Option<f64>,
    },
    /// A prompt with an answer that is good or bad.
    Unpaired {
        /// What is asked.
        prompt: Body,
        /// What is answered.
        completion: Body,
        /// Whether the answer is good.
        label: bool,
    },
    /// A prompt with an answer in steps, each labelled.
    Steps {
        /// What is asked.
        prompt: Body,
        /// The steps of the answer.
        steps: Vec<String>,
        /// For each step how right it is, from 0 to 1; as many as there are steps.
        labels: Vec<f64>,
    },
    /// A prompt with several answers, each with a score.
    Ranked {
        /// What is asked.
        prompt: Body,
        /// The answers, at least two and all different.
        completions: Vec<Body>,
        /// For each answer how good it is; finite, as many as there are answers.
        scores: Vec<f64>,
    },
}

/// A prompt or an answer: plain text, or messages.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Text, without a chat template.
    Text(String),
    /// Messages, for a chat template.
    Messages(Vec<RawMessage>),
}

/// What a chat template is given beside the messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// Column `tools`: objects, the JSON schemas of tools.
    pub tools: Vec<Json>,
    /// Column `documents`: objects, for retrieval-augmented generation.
    pub documents: Vec<Json>,
    /// Column `chat_template_kwargs`: further variables of the template, such as `enable_thinking`.
    pub variables: Map<String, Json>,
}

/// A prompt with an answer, ready to be tokenised.
#[derive(Clone, Debug, PartialEq)]
pub enum Sequence {
    /// A conversation for `ChatTokenizer::encode`. Turns that belong to a prompt carry the weight 0, so
    /// that `TrainedTurns::Flagged`, the default, trains the answer alone.
    Chat(JsonChat),
    /// Plain text.
    Text {
        /// What comes before the answer; empty in a row of plain text.
        prompt: String,
        /// What is trained.
        answer: String,
    },
}

impl Row {
    /// What supervised fine-tuning trains of this row: a conversation, a prompt with its completion, or
    /// a text.
    ///
    /// ```
    /// use posttrain_data::{ReadOptions, Rows, Sequence};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("train.jsonl");
    /// # std::fs::write(&path, r#"{"text": "Once upon a time"}"#)?;
    /// for row in Rows::open([&path], &ReadOptions::default())? {
    ///     match row?.sequence()? {
    ///         Sequence::Chat(chat) => { /* tokenizer.encode(&chat, &options)? */ }
    ///         Sequence::Text { prompt, answer } => assert_eq!(answer, "Once upon a time"),
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Form`] for rows of another kind, and [`Error::Conversation`].
    pub fn sequence(&self) -> Result<Sequence> {
        match &self.example {
            Example::Messages(messages) => Ok(Sequence::Chat(self.chat(messages)?)),
            Example::PromptCompletion { prompt, completion } => self.answered(prompt, completion),
            Example::Text(text) => {
                Ok(Sequence::Text { prompt: String::new(), answer: text.clone() })
            }
            other => Err(Error::Form {
                place: self.place.clone(),
                found: other.name(),
                expected: "messages, a prompt with a completion, or text",
            }),
        }
    }

    /// A prompt of this row with one of its answers.
    ///
    /// # Errors
    /// [`Error::Form`] when one is text and the other messages, and [`Error::Conversation`].
    pub fn answered(&self, prompt: &Body, answer: &Body) -> Result<Sequence> {
        match (prompt, answer) {
            (Body::Text(prompt), Body::Text(answer)) => {
                Ok(Sequence::Text { prompt: prompt.clone(), answer: answer.clone() })
            }
            (Body::Messages(prompt), Body::Messages(answer)) => {
                let untrained = |message: &RawMessage| {
                    let mut message = message.clone();
                    message.shift_remove("train");
                    message.insert("weight".into(), 0.into());
                    message
                };
                let messages = prompt.iter().map(untrained).chain(answer.iter().cloned());
                Ok(Sequence::Chat(self.json_chat(messages.map(Json::Object).collect())?))
            }
            _ => Err(Error::Form {
                place: self.place.clone(),
                found: "a text with messages",
                expected: "a prompt and an answer of one kind",
            }),
        }
    }

    /// Messages with the row's tools, documents and variables, as a chat template sees them: nothing is
    /// added and nothing lost.
    ///
    /// # Errors
    /// [`Error::Conversation`] when a part has a form that no template is given.
    pub fn chat(&self, messages: &[RawMessage]) -> Result<JsonChat> {
        self.json_chat(messages.iter().cloned().map(Json::Object).collect())
    }

    fn json_chat(&self, messages: Vec<Json>) -> Result<JsonChat> {
        let mut object = self.context.variables.clone();
        object.insert("messages".into(), Json::Array(messages));
        let lists = [("tools", &self.context.tools), ("documents", &self.context.documents)];
        for (key, items) in lists.into_iter().filter(|(_, items)| !items.is_empty()) {
            object.insert(key.into(), Json::Array(items.clone()));
        }
        let chat = JsonChat::new(Json::Object(object));
        chat.map_err(|error| self.not_a_conversation(&error))
    }

    /// Messages of this row in their typed form. Its `Context::variables` have no place there.
    ///
    /// # Errors
    /// [`Error::Conversation`] for a message that has no typed form. Rows as they are read have one.
    pub fn conversation(&self, messages: &[RawMessage]) -> Result<Conversation> {
        let typed = |message: &RawMessage| serde_json::from_value(Json::Object(message.clone()));
        let messages: Result<_, serde_json::Error> = messages.iter().map(typed).collect();
        let object = |json: &Json| json.as_object().cloned().unwrap_or_default();
        Ok(Conversation {
            messages: messages.map_err(|error| self.not_a_conversation(&error))?,
            tools: self.context.tools.iter().map(|tool| Tool(object(tool))).collect(),
            documents: self.context.documents.iter().map(|one| Document(object(one))).collect(),
            extra: Map::new(),
        })
    }

    /// A prompt of this row as `Generate` takes it.
    ///
    /// # Errors
    /// Those of [`Row::conversation`].
    pub fn prompt(&self, prompt: &Body) -> Result<Prompt> {
        Ok(match prompt {
            Body::Text(text) => Prompt::Text(text.clone()),
            Body::Messages(messages) => Prompt::Conversation(self.conversation(messages)?),
        })
    }

    fn not_a_conversation(&self, reason: &dyn fmt::Display) -> Error {
        Error::Conversation { place: self.place.clone(), reason: reason.to_string() }
    }
}

impl Example {
    /// What the row is, for messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Messages(_) => "a conversation",
            Self::Text(_) => "plain text",
            Self::Prompt(_) => "a prompt without an answer",
            Self::PromptCompletion { .. } => "a prompt with a completion",
            Self::Preference { .. } => "a preference",
            Self::Unpaired { .. } => "a labelled answer",
            Self::Steps { .. } => "an answer in labelled steps",
            Self::Ranked { .. } => "answers with scores",
        }
    }
}

impl Body {
    /// Whether nothing is said: no text but white space, or no message.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Messages(messages) => messages.is_empty(),
        }
    }

    /// The value as it stands in a row.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Text(text) => Json::String(text.clone()),
            Self::Messages(messages) => messages.iter().cloned().map(Json::Object).collect(),
        }
    }
}
