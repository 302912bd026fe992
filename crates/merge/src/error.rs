//! What can go wrong between a configuration and a merged checkpoint.

use std::path::{Path, PathBuf};

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
    /// A checkpoint is broken or of a kind that is not read.
    #[error("{path}: {reason}", path = .path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is there, and what would be right.
        reason: String,
    },
    /// A merge configuration is not one.
    #[error("{path}: {reason}", path = .path.display())]
    ConfigFile {
        /// The file, or `<config>` for a text.
        path: PathBuf,
        /// The line, the key, what was found, what was expected.
        reason: String,
    },
    /// A value is out of its range.
    #[error("`{key}` is {found}, expected {expected}")]
    Value {
        /// The key path, such as `models[1].parameters.weight`.
        key: String,
        /// The value found.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A plan cannot be carried out; everything that does not fit.
    #[error("{}", crate::plan::listed(.problems))]
    Problems {
        /// All problems.
        problems: Vec<crate::plan::Problem>,
    },
    /// The folder for the output is there already.
    #[error("{path}: exists already; choose another folder, or remove it", path = .path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// An interrupted merge of another plan stands in the way.
    #[error(
        "{path}: holds the beginning of another merge (other inputs, configuration or seed); remove it to begin anew",
        path = .path.display()
    )]
    Unfinished {
        /// The folder of the interrupted merge.
        path: PathBuf,
    },
    /// The merge was stopped by its observer.
    #[error("stopped; {path} holds what is done, the same merge goes on from there", path = .path.display())]
    Stopped {
        /// The folder of the interrupted merge.
        path: PathBuf,
    },
    /// A manifest is of another format or contradicts itself.
    #[error("{path}: {reason}", path = .path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The key, what was found, what was expected.
        reason: String,
    },
    /// A model's card says something that is not understood.
    #[error("{path}: {reason}", path = .path.display())]
    Card {
        /// The card or configuration.
        path: PathBuf,
        /// The key, what was found, what was expected.
        reason: String,
    },
    /// Models that came from each other in a circle.
    #[error("models came from each other in a circle: {}", .models.join(" -> "))]
    Cycle {
        /// Their names from parent to child, the first again at the end.
        models: Vec<String>,
    },
    /// An adapter is broken, of a kind that is not read, or does not fit what it is used with.
    #[error("{path}: {}", listed(problems), path = .path.display())]
    Adapter {
        /// The file or folder.
        path: PathBuf,
        /// Everything that is wrong.
        problems: Vec<String>,
    },
    /// A method cannot merge a tensor.
    #[error("tensor `{tensor}`: {reason}")]
    Tensor {
        /// The tensor's name in the output.
        tensor: String,
        /// What was found, and what was expected.
        reason: String,
    },
    /// The file of a search is broken, in use, or of another search.
    #[error("{path}: {reason}", path = .path.display())]
    Store {
        /// The SQLite file.
        path: PathBuf,
        /// What is there, and what was expected.
        reason: String,
    },
    /// No trial of a generation has a score, so a search cannot go on.
    #[error("all of the trials {first} to {last} failed; trial {first}: {error}")]
    AllFailed {
        /// The first trial of the generation.
        first: usize,
        /// The last one.
        last: usize,
        /// The error of the first.
        error: String,
    },
    /// The caller's evaluation of a configuration failed.
    #[error("scores of {what}: {reason}")]
    Evaluation {
        /// Which configuration.
        what: String,
        /// The caller's error, or what is wrong with the scores.
        reason: String,
    },
}

/// One problem on the same line, several on lines of their own.
fn listed(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        several => format!("{} problems\n  {}", several.len(), several.join("\n  ")),
    }
}

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn json(path: impl AsRef<Path>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Json { path, source }
    }

    pub(crate) fn checkpoint(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.as_ref().to_owned(), reason: reason.into() }
    }

    pub(crate) fn tensor(tensor: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Tensor { tensor: tensor.into(), reason: reason.into() }
    }

    pub(crate) fn store(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Store { path: path.as_ref().to_owned(), reason: reason.into() }
    }

    pub(crate) fn value(
        key: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Value { key: key.into(), found: found.to_string(), expected: expected.into() }
    }
}
