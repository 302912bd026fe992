//! What can go wrong between a checkpoint folder and an answer.

use std::path::PathBuf;

use crate::config::Head;

/// The error of this crate. Every variant names the thing, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file does not parse.
    #[error("{path}: {source}", path = .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's message with line and column.
        source: serde_json::Error,
    },
    /// The architecture is not among the supported ones.
    #[error("{path}: `{field}` is {found}, supported are {supported}", path = .path.display())]
    UnsupportedArchitecture {
        /// The configuration file.
        path: PathBuf,
        /// The key that was read (`model_type`).
        field: &'static str,
        /// The value found.
        found: String,
        /// Every supported value.
        supported: String,
    },
    /// A field of the configuration is missing, ill-typed, out of range or not supported.
    #[error("{path}: `{field}` is {found}, expected {expected}", path = .path.display())]
    ConfigField {
        /// The configuration file.
        path: PathBuf,
        /// The key, with dots for nested ones.
        field: String,
        /// The value found.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// Fields that this crate does not know and that might change the result.
    #[error("{path}: unknown fields that may change the result: {fields}", path = .path.display(), fields = .fields.join(", "))]
    UnknownConfigFields {
        /// The configuration file.
        path: PathBuf,
        /// The keys with their values.
        fields: Vec<String>,
    },
    /// A weight file is broken.
    #[error("{path}: {reason}", path = .path.display())]
    BrokenCheckpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tensors of the files are not those of the configuration; all of them are listed.
    #[error("{path}: the tensors are not those of the configuration{list}", path = .path.display(), list = list(missing, unexpected, misshaped))]
    TensorMismatch {
        /// The folder.
        path: PathBuf,
        /// Expected, not found.
        missing: Vec<String>,
        /// Found, not expected.
        unexpected: Vec<String>,
        /// Found with another shape: name, found, expected.
        misshaped: Vec<(String, Vec<usize>, Vec<usize>)>,
    },
    /// A merged model does not say what the adapted one says.
    #[error(
        "the logits of the merged model differ from those of the adapted one by {distance:e} of the \
         largest, tolerated is {tolerance:e}"
    )]
    MergeMismatch {
        /// The largest difference of a logit, divided by the largest logit.
        distance: f32,
        /// The largest that is tolerated.
        tolerance: f32,
    },
    /// A device that is not compiled in or not present.
    #[error("device `{name}`: {reason}; compiled in: {available}")]
    Device {
        /// What was asked for.
        name: String,
        /// Why it cannot be had.
        reason: String,
        /// What this binary offers.
        available: String,
    },
    /// Token ids, lengths or shapes that the model cannot take.
    #[error("{what} is {found}, expected {expected}")]
    Input {
        /// What was given.
        what: String,
        /// The value found.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A download or the hub's cache failed.
    #[error("{repo}: {reason}")]
    Hub {
        /// The repository on the hub.
        repo: String,
        /// What went wrong.
        reason: String,
    },
    /// The tokenizer or the chat template failed.
    #[error(transparent)]
    Chat(#[from] posttrain_chat::Error),
    /// A model with a head that scores was asked to write.
    #[error("{path}: the model has the head {head:?} and no logits; a reward model reads it", path = .path.display())]
    NoLogits {
        /// The folder, or what was asked.
        path: PathBuf,
        /// Its head.
        head: Head,
    },
    /// A model does not say how it reads the steps of a solution.
    #[error("{path}: the head {head:?} does not tell how steps are marked; name a convention, one of {known}", path = .path.display())]
    NoConvention {
        /// The folder.
        path: PathBuf,
        /// Its head.
        head: Head,
        /// The conventions there are.
        known: String,
    },
    /// A tokenizer cannot write what marks a step.
    #[error("{convention}: the tokenizer has no {what} {tag:?}: {reason}")]
    NoTag {
        /// The convention.
        convention: &'static str,
        /// What the tag is for.
        what: &'static str,
        /// The tag.
        tag: String,
        /// What the tokenizer makes of it, and what to do.
        reason: String,
    },
    /// A solution or an answer cannot be judged.
    #[error("{0}")]
    Unscorable(String),
    /// A conversation was given to a model that has no chat template.
    #[error("a conversation cannot be encoded: {reason}")]
    NoChatTemplate {
        /// Where templates were looked for.
        reason: String,
    },
    /// A sampling parameter is out of range.
    #[error(transparent)]
    Sampling(#[from] posttrain_core::Error),
}

impl From<Error> for posttrain_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Sampling(error) => error,
            Error::Unscorable(reason) => Self::Unscorable { reason },
            other => Self::backend(other),
        }
    }
}

fn list(
    missing: &[String],
    unexpected: &[String],
    misshaped: &[(String, Vec<usize>, Vec<usize>)],
) -> String {
    let missing = missing.iter().map(|name| format!("\n  missing: {name}"));
    let unexpected = unexpected.iter().map(|name| format!("\n  unexpected: {name}"));
    let misshaped = misshaped.iter().map(|(name, found, expected)| {
        format!("\n  shape of {name}: found {found:?}, expected {expected:?}")
    });
    missing.chain(unexpected).chain(misshaped).collect()
}
