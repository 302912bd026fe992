//! Parquet files, row by row.
//!
//!   schema -> tree of groups, lists, maps and leaves     columns -> values with their levels
//!                              \---------- one row ----------/
//!
//! Parquet stores each leaf of the schema as a column of its own, with two numbers for each entry: at
//! which depth something is null (definition level), and at which depth a list goes on (repetition
//! level). A row is put together by walking the tree. (The crate has rows of its own; they copy every
//! text twice, know no JSON columns, and panic on schemas that they do not expect.)
//!
//! A field that is null inside a group is left out: Parquet and Arrow fill the keys that an object does
//! not have with nulls, and templates tell an absent key from a null one. TRL
//! offers `remove_none_values` for that.

mod column;
mod tree;
mod value;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value as Json};

use self::column::Column;
use self::tree::{Node, tree};
use super::source::{Bad, Raw, Record, Step, broken};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::row::Place;

pub(crate) struct Parquet {
    file: Arc<Path>,
    reader: SerializedFileReader<File>,
    fields: Vec<(String, Node)>,
    /// The row group that comes next.
    group: usize,
    columns: Columns,
    /// Rows of the current group that are not read yet.
    left: u64,
    row: u64,
}

impl Parquet {
    pub(crate) fn open(file: Arc<Path>, handle: File) -> Result<Self> {
        let start = Place { file: file.clone(), row: 1, line: None };
        let reader = guarded(|| SerializedFileReader::new(handle))
            .map_err(|error| broken(start, reason(&error)))?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let unsupported = |what, found, expected| Error::Unsupported {
            path: file.to_path_buf(),
            what,
            found,
            expected,
        };
        let fields =
            tree(&schema).map_err(|(what, found, expected)| unsupported(what, found, expected))?;
        for group in reader.metadata().row_groups() {
            for column in group.columns() {
                if let Some(codec) = codec(column.compression()) {
                    let what =
                        format!("the compression of column `{}`", column.column_path().string());
                    let expected = "none, snappy, gzip, zstd or lz4";
                    return Err(unsupported(what, codec.into(), expected));
                }
            }
        }
        let columns = Columns { columns: Vec::new(), fault: None };
        Ok(Self { file, reader, fields, group: 0, columns, left: 0, row: 0 })
    }

    fn place(&self) -> Place {
        Place { file: self.file.clone(), row: self.row, line: None }
    }

    pub(crate) fn next(&mut self) -> Option<Step> {
        while self.left == 0 {
            if self.group == self.reader.num_row_groups() {
                return None;
            }
            if let Err(error) = guarded(|| self.next_group()) {
                self.row += 1;
                return Some(Err(broken(self.place(), reason(&error))));
            }
        }
        self.left -= 1;
        self.row += 1;
        let place = self.place();
        Some(match guarded(|| self.columns.row(&self.fields)) {
            Err(error) => Err(broken(place, reason(&error))),
            Ok(object) => Ok(match self.columns.fault.take() {
                Some(fault) => Err(Bad { place, fault, raw: Raw::Object(object) }),
                None => Ok(Record { place, object, raw: Raw::Object(Map::new()) }),
            }),
        })
    }

    fn next_group(&mut self) -> Result<(), ParquetError> {
        let group = self.reader.get_row_group(self.group)?;
        let schema = self.reader.metadata().file_metadata().schema_descr_ptr();
        let column = |(i, descr)| Column::new(group.get_column_reader(i)?, descr);
        let columns = schema.columns().iter().enumerate().map(column);
        self.columns.columns = columns.collect::<Result<_, ParquetError>>()?;
        self.left = u64::try_from(group.metadata().num_rows()).unwrap_or(0);
        self.group += 1;
        Ok(())
    }
}

/// Parquet's decoders panic on some broken pages; that too is an error here. Nothing is read of the file
/// behind it.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(ParquetError::General(format!("it cannot be decoded ({text})")))
    })
}

/// What Parquet's error says, without the crate's prefix.
fn reason(error: &ParquetError) -> String {
    match error {
        ParquetError::General(reason) | ParquetError::EOF(reason) => reason.clone(),
        other => other.to_string(),
    }
}

/// The name of a codec that is not built in.
const fn codec(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::UNCOMPRESSED
        | Compression::SNAPPY
        | Compression::GZIP(_)
        | Compression::ZSTD(_)
        | Compression::LZ4
        | Compression::LZ4_RAW => None,
        Compression::BROTLI(_) => Some("brotli"),
        Compression::LZO => Some("LZO"),
    }
}

/// The columns of a row group, and the first fault of the current row.
struct Columns {
    columns: Vec<Column>,
    fault: Option<Fault>,
}

impl Columns {
    fn row(&mut self, fields: &[(String, Node)]) -> Result<Map<String, Json>, ParquetError> {
        for column in &mut self.columns {
            if column.levels()?.repetition != 0 {
                return Err(ParquetError::General("the columns have different lengths".into()));
            }
        }
        let mut row = Map::with_capacity(fields.len());
        for (name, node) in fields {
            row.insert(name.clone(), self.read(node)?);
        }
        Ok(row)
    }

    fn read(&mut self, node: &Node) -> Result<Json, ParquetError> {
        let levels = self.columns[node.leaves().start].levels()?;
        if levels.definition < node.defined() {
            self.skip(node)?;
            return Ok(Json::Null);
        }
        match node {
            Node::Leaf { column, .. } => {
                Ok(self.columns[*column].value()?.unwrap_or_else(|fault| {
                    self.fault.get_or_insert(fault);
                    Json::Null
                }))
            }
            Node::Group { fields, .. } => {
                let mut object = Map::with_capacity(fields.len());
                for (name, node) in fields {
                    let value = self.read(node)?;
                    if !value.is_null() {
                        object.insert(name.clone(), value);
                    }
                }
                Ok(Json::Object(object))
            }
            Node::List { item, .. } => {
                let mut items = Vec::new();
                self.repeat(node, levels.definition, |columns| {
                    items.push(columns.read(item)?);
                    Ok(())
                })?;
                Ok(Json::Array(items))
            }
            Node::Map { key, value, .. } => {
                let mut object = Map::new();
                self.repeat(node, levels.definition, |columns| {
                    let (key, value) = (columns.read(key)?, columns.read(value)?);
                    if let Some(fault) = insert(&mut object, key, value) {
                        columns.fault.get_or_insert(fault);
                    }
                    Ok(())
                })?;
                Ok(Json::Object(object))
            }
        }
    }

    /// Reads the items of a list or map.
    fn repeat(
        &mut self,
        node: &Node,
        definition: i16,
        mut item: impl FnMut(&mut Self) -> Result<(), ParquetError>,
    ) -> Result<(), ParquetError> {
        let (first, level) = (node.leaves().start, node.repeated());
        if definition == node.defined() {
            return self.skip(node);
        }
        loop {
            item(self)?;
            if self.columns[first].next_repetition()? != Some(level) {
                return Ok(());
            }
        }
    }

    /// Goes past something that is null or empty: one entry in each of its leaves.
    fn skip(&mut self, node: &Node) -> Result<(), ParquetError> {
        self.columns[node.leaves()].iter_mut().try_for_each(Column::skip)
    }
}

/// Puts an entry of a map; a key that is null or comes twice is a fault.
fn insert(object: &mut Map<String, Json>, key: Json, value: Json) -> Option<Fault> {
    let wrong = |found: &str| {
        let (field, found) = ("a map".into(), found.into());
        Some(Fault::Value { field, found, expected: "a value for each key".into() })
    };
    match key {
        Json::String(key) if object.contains_key(&key) => wrong("one with a key twice"),
        Json::String(key) => {
            object.insert(key, value);
            None
        }
        _ => wrong("one with a key that is null"),
    }
}
