//! Parquet files.
//!
//! The schema of a file has to be known before its first row is written, and rows of JSON show theirs
//! only at the end. So rows are first kept in a temporary file, where each widens the schema, and written
//! when all are there. Memory holds one row group.

mod columns;
mod schema;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek};
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use serde_json::{Map, Value as Json};

use self::columns::Columns;
use self::schema::Kind;
use super::staged::Staged;
use super::text::Text;
use crate::error::{Error, Result};
use crate::json::parse_object;

/// The most rows and bytes of text in a row group.
const GROUP_ROWS: usize = 10_000;
const GROUP_BYTES: usize = 32 << 20;

#[derive(Debug)]
pub(super) struct Parquet {
    rows: Text,
    schema: Kind,
}

impl Parquet {
    pub(super) fn create(path: &Path) -> Result<Self> {
        Ok(Self { rows: Text::zstd(path, 1)?, schema: Kind::Group(Vec::new()) })
    }

    pub(super) fn write(&mut self, object: &Map<String, Json>) -> Result<()> {
        self.schema.widen_row(object);
        self.rows.write(object)
    }

    pub(super) fn finish(self) -> Result<()> {
        // Removed when dropped, at the end.
        let (rows, mut file) = self.rows.into_file()?;
        let path = rows.path();
        let Some(schema) = self.schema.settle() else {
            let reason = "no row has a column, and a Parquet file needs one".into();
            return Err(Error::Unwritable { path: path.to_owned(), row: 1, reason });
        };
        let (staged, output) = Staged::create(path)?;
        let output = file
            .rewind()
            .and_then(|()| zstd::Decoder::new(file))
            .and_then(|rows| write(&schema, BufReader::new(rows), output))
            .map_err(Error::io(path))?;
        staged.commit(&output)
    }
}

fn write(schema: &Kind, rows: impl BufRead, output: File) -> io::Result<File> {
    let other = |error: ParquetError| io::Error::other(error);
    let level = ZstdLevel::try_new(3).map_err(other)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by(concat!("posttrain version ", env!("CARGO_PKG_VERSION")).into())
        .build();
    let root = Arc::new(schema.parquet().map_err(other)?);
    let mut writer = SerializedFileWriter::new(BufWriter::new(output), root, Arc::new(properties))
        .map_err(other)?;
    let mut columns = Columns::new(schema);
    let mut bytes = 0;
    for line in rows.split(b'\n') {
        let line = line?;
        columns.add(&parse_object(&line).map_err(io::Error::other)?);
        bytes += line.len();
        if columns.rows == GROUP_ROWS || bytes >= GROUP_BYTES {
            columns.flush(&mut writer).map_err(other)?;
            bytes = 0;
        }
    }
    if columns.rows > 0 {
        columns.flush(&mut writer).map_err(other)?;
    }
    let buffer = writer.into_inner().map_err(other)?;
    buffer.into_inner().map_err(io::IntoInnerError::into_error)
}
