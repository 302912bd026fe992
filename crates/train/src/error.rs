//! What can go wrong between a configuration and a trained model.

use std::path::PathBuf;

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
    /// A configuration file does not parse, or has a key or type that is not known.
    #[error("{path}: {reason}", path = .path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// The parser's message with line and column, and a suggestion for a misspelt key.
        reason: String,
    },
    /// A value of the configuration is out of range, or contradicts another.
    #[error("`{key}` is {found}, expected {expected}")]
    Config {
        /// The key, with dots for nested ones.
        key: String,
        /// The value found.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// Rows that cannot be trained on.
    #[error("{row}: {reason}")]
    Data {
        /// Which row: `file:line` where there is one.
        row: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// A training checkpoint is broken or belongs to another run.
    #[error("{path}: {reason}", path = .path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A loss or gradient that is not a finite number. The run stops; its last checkpoint stands.
    #[error("step {step}: {what} is {found}; the batch is saved in {batch}", batch = .batch.display())]
    NotFinite {
        /// The step, from 1 on.
        step: u64,
        /// `the loss` or `the gradient norm`.
        what: &'static str,
        /// The value.
        found: f64,
        /// Where the rows of the batch were written.
        batch: PathBuf,
    },
    /// A metric of a recipe has a name that it cannot have.
    #[error("the metric `{name}`: {reason}")]
    Metric {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An observer that is not ours could not do its work.
    #[error("an observer failed: {0}")]
    Observer(Box<dyn std::error::Error + Send + Sync>),
    /// The model could not be read, run or written.
    #[error(transparent)]
    Model(#[from] posttrain_model::Error),
    /// A conversation could not be encoded.
    #[error(transparent)]
    Chat(#[from] posttrain_chat::Error),
}

impl Error {
    /// For `map_err`: an I/O error with its path.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// A value of the configuration that is not allowed.
    pub(crate) fn config(
        key: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Config { key: key.into(), found: found.to_string(), expected: expected.into() }
    }
}
