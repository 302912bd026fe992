//! Bad rows: kept in a side file, and tolerated up to a limit.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value as Json;

use super::source::{Bad, Raw};
use crate::error::{Error, Result};
use crate::row::Place;

/// How many bad rows the report tells of. The side file has all.
const TOLD: usize = 20;

pub(crate) struct BadRows {
    allowed: u64,
    pub(crate) count: u64,
    pub(crate) told: Vec<String>,
    kept: Option<(PathBuf, File)>,
}

/// A line of the side file.
#[derive(Serialize)]
struct Kept<'a> {
    file: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    row: u64,
    reason: String,
    raw: Json,
}

impl BadRows {
    /// Makes the side file, so that one of an earlier run is not taken for this one's.
    ///
    /// # Errors
    /// [`Error::Options`] when bad rows are allowed but not kept, or would be written over a file that
    /// is read, and [`Error::Io`].
    pub(crate) fn new(allowed: u64, path: Option<&Path>, inputs: &[PathBuf]) -> Result<Self> {
        let kept = match path {
            None if allowed > 0 => {
                let expected = "0, or a file in `bad_rows` that keeps them";
                return Err(Error::options("max_bad_rows", allowed, expected));
            }
            None => None,
            Some(path) => {
                let same = |input: &PathBuf| match (input.canonicalize(), path.canonicalize()) {
                    (Ok(input), Ok(path)) => input == path,
                    _ => false,
                };
                if inputs.iter().any(same) {
                    let expected = "another file than those that are read";
                    return Err(Error::options("bad_rows", path.display(), expected));
                }
                Some((path.to_owned(), File::create(path).map_err(Error::io(path))?))
            }
        };
        Ok(Self { allowed, count: 0, told: Vec::new(), kept })
    }

    pub(crate) fn kept(&self) -> Option<&Path> {
        self.kept.as_ref().map(|(path, _)| path.as_path())
    }

    /// # Errors
    /// [`Error::BadRow`] when it is one too many, and [`Error::Io`] when it cannot be kept.
    pub(crate) fn add(&mut self, bad: Bad) -> Result<()> {
        let Bad { place, fault, raw } = bad;
        self.count += 1;
        if self.told.len() < TOLD {
            self.told.push(format!("{place}: {fault}"));
        }
        if let Some((path, file)) = &mut self.kept {
            let text = line(&place, fault.to_string(), raw);
            file.write_all(text.as_bytes()).map_err(Error::io(path))?;
        }
        if self.count <= self.allowed {
            return Ok(());
        }
        let kept = self.kept().map(Path::to_owned);
        Err(Error::BadRow {
            place,
            fault: fault.into(),
            bad: self.count,
            allowed: self.allowed,
            kept,
        })
    }
}

fn line(place: &Place, reason: String, raw: Raw) -> String {
    let raw = match raw {
        Raw::Text(bytes) => Json::String(readable(&bytes)),
        Raw::Object(object) => Json::Object(object),
    };
    let file = place.file.to_string_lossy();
    let kept = Kept { file, line: place.line, row: place.row, reason, raw };
    // Neither maps with other keys than strings nor failing values are in there.
    let mut text = serde_json::to_string(&kept).unwrap_or_default();
    text.push('\n');
    text
}

/// Text as it stands; bytes that are no UTF-8 as `\xff`, as Python's `backslashreplace` writes them.
fn readable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
