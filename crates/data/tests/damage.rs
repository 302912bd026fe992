//! Files cut and changed at random: each is read or refused, none makes the reader panic, and no row
//! that was not in the whole file is handed out for a cut one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use posttrain_data::{Format, ReadOptions, Rows};
use support::{Random, fixture};

const FILES: [&str; 9] = [
    "chats.jsonl",
    "chats.jsonl.gz",
    "chats.jsonl.zst",
    "chats.json",
    "chats_bom_crlf.jsonl",
    "datasets.parquet",
    "datasets_json.parquet",
    "layout_lz4_v2.parquet",
    "types.parquet",
];

/// The rows that are handed out, and whether reading ended without an error.
fn rows(path: &Path, bytes: &[u8], options: &ReadOptions) -> (Vec<String>, bool) {
    std::fs::write(path, bytes).unwrap();
    let Ok(rows) = Rows::open([path], options) else { return (Vec::new(), false) };
    let mut read = Vec::new();
    for row in rows {
        match row {
            Ok(row) => read.push(format!("{:?}", (row.example, row.context, row.metadata))),
            Err(_) => return (read, false),
        }
    }
    (read, true)
}

#[test]
fn a_cut_file_gives_its_first_rows_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut");
    let mut random = Random(1);
    for name in FILES {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let (whole, complete) = rows(&path, &bytes, &ReadOptions::default());
        assert!(complete, "{name}");
        for _ in 0..30 {
            let length = random.below(bytes.len());
            let (read, complete) = rows(&path, &bytes[..length], &ReadOptions::default());
            assert_eq!(read, whole[..read.len()], "{name} cut at {length}");
            // Only lines of plain text can be cut unseen, at a line's end.
            let plain = ["chats.jsonl", "chats_bom_crlf.jsonl"].contains(&name);
            let end = bytes[..length].last();
            let unseen = plain && matches!(end, Some(b'\n' | b'}' | b'\r'));
            assert!(!complete || unseen || read.len() == whole.len(), "{name} cut at {length}");
        }
    }
}

#[test]
fn a_changed_file_gives_rows_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed");
    let options = ReadOptions {
        max_bad_rows: 1_000,
        bad_rows: Some(folder.path().join("bad.jsonl")),
        ..ReadOptions::default()
    };
    let mut random = Random(2);
    for name in FILES {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for _ in 0..40 {
            let mut changed = bytes.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(changed.len());
                changed[at] = random.below(256) as u8;
            }
            let format = [None, Some(Format::Messages), Some(Format::Text)][random.below(3)];
            rows(&path, &changed, &ReadOptions { format, ..options.clone() });
        }
    }
}
