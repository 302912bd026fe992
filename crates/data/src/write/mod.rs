//! Rows to files.

mod object;
mod parquet;
mod staged;
mod text;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use self::parquet::Parquet;
use self::text::Text;
use crate::error::{Error, Result};
use crate::row::Row;

/// Writes rows to a file: JSON lines (`.jsonl`, `.ndjson`), with `.gz` or `.zst` behind it compressed, or
/// `.parquet`.
///
/// The file has its name only when it is complete, in [`RowWriter::finish`]; dropped before, nothing is
/// left. What is read again is equal row by row, but for what Parquet does not keep: whether a column or
/// key is absent or null, the order of an object's keys (tools, documents and arguments of calls are
/// kept as JSON, and keep theirs), and `1` apart from `1.0` in a column that has fractions.
///
/// ```
/// use posttrain_data::{ReadOptions, RowWriter, Rows};
///
/// # let folder = tempfile::tempdir()?;
/// # let input = folder.path().join("train.jsonl");
/// # let output = folder.path().join("short.parquet");
/// # std::fs::write(&input, "{\"text\": \"Once\"}\n{\"text\": \"Once upon a time\"}\n")?;
/// let mut writer = RowWriter::create(&output)?;
/// for row in Rows::open([&input], &ReadOptions::default())? {
///     writer.write(&row?)?;
/// }
/// assert_eq!(writer.finish()?, 2);
/// assert_eq!(Rows::open([&output], &ReadOptions::default())?.count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RowWriter {
    path: PathBuf,
    rows: u64,
    file: File,
}

#[derive(Debug)]
enum File {
    Text(Box<Text>),
    Parquet(Box<Parquet>),
}

impl RowWriter {
    /// Begins a file; its ending chooses the kind.
    ///
    /// # Errors
    /// [`Error::Files`] for another ending, and [`Error::Io`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        let file = if ends(&[".parquet"]) {
            File::Parquet(Box::new(Parquet::create(path)?))
        } else if ends(&[".jsonl", ".ndjson"]) {
            File::Text(Box::new(Text::plain(path)?))
        } else if ends(&[".jsonl.gz", ".ndjson.gz"]) {
            File::Text(Box::new(Text::gzip(path)?))
        } else if ends(&[".jsonl.zst", ".ndjson.zst"]) {
            File::Text(Box::new(Text::zstd(path, text::LEVEL)?))
        } else {
            let reason = "ends with none of .jsonl, .jsonl.gz, .jsonl.zst, .parquet".into();
            return Err(Error::Files { path: path.to_owned(), reason });
        };
        Ok(Self { path: path.to_owned(), rows: 0, file })
    }

    /// Writes a row in the form that its kind has: conversations as `messages`, whatever they were read
    /// from.
    ///
    /// # Errors
    /// [`Error::Unwritable`] when a column of the metadata has the name of one of the form's, and
    /// [`Error::Io`].
    pub fn write(&mut self, row: &Row) -> Result<()> {
        let object = row.to_object().map_err(|reason| Error::Unwritable {
            path: self.path.clone(),
            row: self.rows + 1,
            reason,
        })?;
        self.write_object(&object)
    }

    /// Writes any object as a row.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_object(&mut self, object: &Map<String, Json>) -> Result<()> {
        self.rows += 1;
        match &mut self.file {
            File::Text(text) => text.write(object),
            File::Parquet(parquet) => parquet.write(object),
        }
    }

    /// Completes the file and gives it its name; returns how many rows it has.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Unwritable`] for a Parquet file without a column.
    pub fn finish(self) -> Result<u64> {
        match self.file {
            File::Text(text) => text.finish()?,
            File::Parquet(parquet) => parquet.finish()?,
        }
        Ok(self.rows)
    }
}
