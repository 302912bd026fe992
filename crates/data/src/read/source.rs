//! One file as a stream of objects and bad rows.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::array::Array;
use super::lines::Lines;
use super::open::{Content, open};
use super::parquet::Parquet;
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::row::Place;

/// A row before its format is known.
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) object: Map<String, Json>,
    pub(crate) raw: Raw,
}

/// A row that cannot be used.
pub(crate) struct Bad {
    pub(crate) place: Place,
    pub(crate) fault: Fault,
    pub(crate) raw: Raw,
}

/// A row as it stands in its file.
pub(crate) enum Raw {
    Text(Vec<u8>),
    /// Of a Parquet file, which has no text.
    Object(Map<String, Json>),
}

/// What comes next in a file. After an error nothing does.
pub(crate) type Step = Result<Result<Record, Bad>>;

pub(crate) enum Source {
    Lines(Lines),
    Array(Array),
    Parquet(Box<Parquet>),
}

impl Source {
    pub(crate) fn open(path: &Path, limit: u64) -> Result<Self> {
        let file: Arc<Path> = path.into();
        Ok(match open(path)? {
            Content::Lines(input) => Self::Lines(Lines::new(file, input, limit)),
            Content::Array(input) => Self::Array(Array::new(file, input, limit)),
            Content::Parquet(handle) => Self::Parquet(Box::new(Parquet::open(file, handle)?)),
        })
    }

    pub(crate) fn next(&mut self) -> Option<Step> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Array(array) => array.next(),
            Self::Parquet(parquet) => parquet.next(),
        }
    }

    pub(crate) fn blank_lines(&self) -> u64 {
        match self {
            Self::Lines(lines) => lines.blank,
            Self::Array(_) | Self::Parquet(_) => 0,
        }
    }
}

/// The file cannot be read further.
pub(crate) fn damaged(place: Place, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => broken(place, "the compressed file breaks off".into()),
        _ => broken(place, error.to_string()),
    }
}

pub(crate) fn broken(place: Place, reason: String) -> Error {
    Error::Damaged { place, reason }
}
