//! What the tests of this crate share.
#![allow(dead_code, reason = "each test uses a part")]

use std::path::{Path, PathBuf};

use posttrain_data::{Error, Example, Format, ReadOptions, ReadReport, Row, Rows};
use serde_json::Value as Json;
use tempfile::TempDir;

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data").join(name)
}

/// A folder with one file.
pub(crate) fn file(name: &str, bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// All rows of a file, and the report.
pub(crate) fn read(path: &Path, options: &ReadOptions) -> Result<(Vec<Row>, ReadReport), Error> {
    let mut rows = Rows::open([path], options)?;
    let read = rows.by_ref().collect::<Result<Vec<_>, _>>()?;
    assert!(rows.next().is_none());
    Ok((read, rows.report().clone()))
}

pub(crate) fn read_text(
    text: &str,
    options: &ReadOptions,
) -> Result<(Vec<Row>, ReadReport), Error> {
    let (_folder, path) = file("rows.jsonl", text);
    read(&path, options)
}

/// The only row of a text that has one.
pub(crate) fn one(row: &Json, options: &ReadOptions) -> Result<Row, Error> {
    let (mut rows, _) = read_text(&row.to_string(), options)?;
    assert_eq!(rows.len(), 1);
    Ok(rows.remove(0))
}

pub(crate) fn as_format(format: Format) -> ReadOptions {
    ReadOptions { format: Some(format), ..ReadOptions::default() }
}

pub(crate) fn columns<const N: usize>(mapped: [(&str, &str); N]) -> ReadOptions {
    let columns = mapped.map(|(name, column)| (name.to_owned(), column.to_owned())).into();
    ReadOptions { columns, ..ReadOptions::default() }
}

/// The messages of a conversation.
pub(crate) fn messages(row: &Row) -> Json {
    match &row.example {
        Example::Messages(messages) => messages.iter().cloned().map(Json::Object).collect(),
        other => panic!("{other:?}"),
    }
}

/// The fault of the only row, as its message.
pub(crate) fn fault(row: Json, format: Format) -> String {
    match one(&row, &as_format(format)) {
        Err(Error::BadRow { fault, bad: 1, allowed: 0, .. }) => fault.to_string(),
        other => panic!("{row}: {other:?}"),
    }
}

/// Numbers of a linear congruential generator, below a limit.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
