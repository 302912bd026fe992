//! What can go wrong between a conversation and its tokens.

use std::path::PathBuf;

use crate::jinja;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The template does not parse, or raised while it was rendered. For an exception that the
    /// template raised itself this displays exactly its message.
    #[error("{0}")]
    Template(#[from] jinja::Error),
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is not valid JSON; the source names line and column.
    #[error("{path} is not valid JSON: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// A JSON value has the wrong form.
    #[error("{what} is {found}, expected {expected}")]
    Form {
        /// What was read, with its file where it has one.
        what: String,
        /// What was found.
        found: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// The folder has no chat template.
    #[error(
        "{path} has no chat template: looked for chat_template.jinja, additional_chat_templates/*.jinja, \
         `chat_template` in tokenizer_config.json and chat_template.json; pass one of your own or a built-in one"
    )]
    NoTemplate {
        /// The folder.
        path: PathBuf,
    },
    /// No template with this name.
    #[error("no chat template is named {name:?}; there are {available:?}")]
    UnknownTemplate {
        /// The name asked for.
        name: String,
        /// The names there are.
        available: Vec<String>,
    },
    /// Several templates, none of them `default`, and no name was given.
    #[error(
        "the model has several chat templates and none named \"default\"; choose one of {available:?}"
    )]
    NoDefault {
        /// The names there are.
        available: Vec<String>,
    },
    /// A conversation without messages.
    #[error("the conversation is empty; a chat template needs at least one message")]
    EmptyConversation,
    /// `continue_final_message` cannot be done.
    #[error("continue_final_message: {0}")]
    Continue(String),
    /// The tokenizer cannot be loaded or cannot encode.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// No token of the conversation would be trained.
    #[error(
        "no token would be trained: {reason}. Check the roles of the messages, the choice of trained \
         turns and the template"
    )]
    EmptyMask {
        /// Why the mask is empty.
        reason: String,
    },
    /// Truncation left no trained token.
    #[error(
        "truncation to {max_length} of {tokens} tokens removes all {trained} trained tokens; raise \
         max_length, truncate on the other side or drop the row"
    )]
    TruncatedMask {
        /// Tokens before truncation.
        tokens: usize,
        /// Trained tokens before truncation.
        trained: usize,
        /// The limit.
        max_length: usize,
    },
    /// Rendering a part of the conversation does not give a prefix of the whole.
    #[error(
        "the template is not prefix-preserving: rendered alone, the messages up to {what} differ from \
         the same messages in the whole conversation at character {at} ({alone:?} against {whole:?}). \
         Train only the last turn, split the conversation at every assistant turn, or use a template \
         with {{% generation %}} tags"
    )]
    NotPrefixPreserving {
        /// Up to where the messages were rendered.
        what: String,
        /// The first character that differs.
        at: usize,
        /// The text there when rendered alone.
        alone: String,
        /// The text there in the whole conversation.
        whole: String,
    },
    /// The template's generation blocks do not correspond to the assistant turns.
    #[error(
        "the template wrote {spans} generation blocks for {turns} assistant turns, so single turns \
         cannot be chosen; train all turns"
    )]
    GenerationBlocks {
        /// Blocks found.
        spans: usize,
        /// Assistant turns in the conversation.
        turns: usize,
    },
    /// A forged control token cannot be written as plain text with this tokenizer.
    #[error(
        "the text forges the control token {token:?}, which this tokenizer also makes from plain \
         text; drop the row, or turn sanitising off if the text is trusted"
    )]
    ControlToken {
        /// The token.
        token: String,
    },
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) fn read(path: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

pub(crate) fn read_json(path: &std::path::Path) -> Result<serde_json::Value> {
    serde_json::from_str(&read(path)?)
        .map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// The kind of a JSON value, for messages.
pub(crate) fn kind(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "null".into(),
        serde_json::Value::Bool(_) => "a boolean".into(),
        serde_json::Value::Number(_) => "a number".into(),
        serde_json::Value::String(_) => "a string".into(),
        serde_json::Value::Array(_) => "a list".into(),
        serde_json::Value::Object(_) => "an object".into(),
    }
}
