//! What can go wrong between files and rows.

use std::path::{Path, PathBuf};

use crate::{Fault, Format, Place};

/// The error of this crate. Every variant names the thing, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be opened, read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A path does not lead to files of rows, or leads to more than is meant.
    #[error("{path}: {reason}", path = .path.display())]
    Files {
        /// The path as it was given.
        path: PathBuf,
        /// What is there, and what would be right.
        reason: String,
    },
    /// An option contradicts the files or another option.
    #[error("`{key}` is {found}, expected {expected}")]
    Options {
        /// The option, with dots for nested ones.
        key: String,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// The columns fit no format.
    #[error(
        "{path}: the columns {columns} fit no format. Expected one of: {}. Set `format`, or map columns, \
         say `columns: {{prompt: question, completion: answer}}`", Format::forms(), path = .path.display()
    )]
    UnknownFormat {
        /// The first file with rows.
        path: PathBuf,
        /// The columns of its first rows.
        columns: String,
    },
    /// The columns fit several formats.
    #[error(
        "{path}: the columns {columns} fit {}; set `format` to one of them", Format::list(fits),
        path = .path.display()
    )]
    AmbiguousFormat {
        /// The first file with rows.
        path: PathBuf,
        /// The columns of its first rows.
        columns: String,
        /// The formats that they fit.
        fits: Vec<Format>,
    },
    /// There is no row in any of the files.
    #[error("there is no row in {files}")]
    NoRows {
        /// The files.
        files: String,
    },
    /// More bad rows than are allowed; this is the last one.
    #[error("{place}: {fault} (bad rows: {bad}, max_bad_rows is {allowed}{kept})",
        kept = .kept.as_deref().map(|path| format!("; they are kept in {}", path.display()))
            .unwrap_or_default())]
    BadRow {
        /// Where the row stands.
        place: Place,
        /// What is wrong with it.
        fault: Box<Fault>,
        /// How many rows were bad up to here.
        bad: u64,
        /// How many may be.
        allowed: u64,
        /// The side file, if there is one.
        kept: Option<PathBuf>,
    },
    /// A file breaks off or is corrupt, so that nobody knows how many rows are lost. No number of bad
    /// rows allows that.
    #[error("{place}: {reason}; what follows is lost. Fetch or write the file again")]
    Damaged {
        /// How far the file could be read.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// A file uses something that is not supported.
    #[error("{path}: {what} is {found}, expected {expected}", path = .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The part of it.
        what: String,
        /// What it is.
        found: String,
        /// What is supported.
        expected: &'static str,
    },
    /// A row cannot be written.
    #[error("{path}: row {row} cannot be written: {reason}", path = .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Which row, from 1 on.
        row: u64,
        /// Why not.
        reason: String,
    },
    /// A row of this format is not what the caller can use.
    #[error("{place}: the row is {found}, expected {expected}")]
    Form {
        /// Where the row stands.
        place: Place,
        /// What it is.
        found: &'static str,
        /// What is needed.
        expected: &'static str,
    },
    /// A row's messages make no conversation that a chat template can be given.
    #[error("{place}: {reason}")]
    Conversation {
        /// Where the row stands.
        place: Place,
        /// What is wrong.
        reason: String,
    },
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err`: an I/O error with its path.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn options(
        key: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Options { key: key.into(), found: found.to_string(), expected: expected.into() }
    }
}
