//! What is written is what was read.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use posttrain_data::{Error, Example, ReadOptions, Row, RowWriter, Rows};
use serde_json::{Value as Json, json};
use support::{file, fixture, read, read_text};

const KINDS: [&str; 4] = ["out.jsonl", "out.jsonl.gz", "out.ndjson.zst", "out.parquet"];

fn write(path: &Path, rows: &[Row]) -> u64 {
    let mut writer = RowWriter::create(path).unwrap();
    for row in rows {
        writer.write(row).unwrap();
    }
    writer.finish().unwrap()
}

/// Rows but for their places.
fn content(rows: &[Row]) -> Vec<Json> {
    rows.iter().map(|row| Json::Object(row.to_object().unwrap())).collect()
}

/// Without the keys that are null in the objects of a row, which Parquet does not keep.
fn without_nulls(value: &Json) -> Json {
    match value {
        Json::Array(items) => items.iter().map(without_nulls).collect(),
        Json::Object(object) => {
            let kept = object.iter().filter(|(_, value)| !value.is_null());
            Json::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

fn round_trips(rows: &[Row]) {
    let folder = tempfile::tempdir().unwrap();
    let expected = content(rows);
    for name in KINDS {
        let path = folder.path().join(name);
        assert_eq!(write(&path, rows), rows.len() as u64);
        let (again, _) = read(&path, &ReadOptions::default()).unwrap();
        let again = content(&again);
        if name.ends_with("parquet") {
            let again: Vec<Json> = again.iter().map(without_nulls).collect();
            let expected: Vec<Json> = expected.iter().map(without_nulls).collect();
            assert_eq!(again, expected);
        } else {
            // As text, so that the order of keys counts.
            assert_eq!(Json::from(again).to_string(), Json::from(expected.clone()).to_string());
        }
    }
    // Nothing else is left in the folder.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), KINDS.len());
}

#[test]
fn each_kind_of_row_survives() {
    let chat = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho, é 😀 \u{2028}\n"}]);
    let turn = json!([{"role": "user", "content": "Hi"}]);
    let answers = [
        json!([{"role": "assistant", "content": "A"}]),
        json!([{"role": "assistant", "content": "B"}]),
    ];
    for row in [
        json!({"messages": chat, "id": 1, "nested": {"a": [1, 2], "b": {"c": "x"}}, "f": 0.1}),
        json!({"text": "a", "big": 18_446_744_073_709_551_615_u64, "neg": i64::MIN, "empty": {}, "mixed": [1, "a"]}),
        json!({"prompt": "a", "completion": "b"}),
        json!({"prompt": turn, "completion": answers[0], "tools": [{"name": "f", "parameters": {"z": {}, "a": [null]}}]}),
        json!({"prompt": turn, "chosen": answers[0], "rejected": answers[1], "margin": 0.5}),
        json!({"prompt": "a", "completion": "b", "label": false}),
        json!({"prompt": "a", "completions": ["b", "c"], "labels": [1.0, 0.25]}),
        json!({"prompt": turn, "chat_template_kwargs": {"enable_thinking": false}, "documents": [{"title": "t"}]}),
    ] {
        let (rows, _) = read_text(&row.to_string(), &ReadOptions::default()).unwrap();
        round_trips(&rows);
    }
}

#[test]
fn fixtures_survive() {
    for name in [
        "chats.jsonl",
        "datasets.parquet",
        "datasets_json.parquet",
        "alpaca.parquet",
        "types.parquet",
        "layout_zstd_pages.parquet",
    ] {
        let (rows, _) = read(&fixture(name), &ReadOptions::default()).unwrap();
        round_trips(&rows);
    }
    let options = support::columns([("prompt", "question"), ("completion", "answer")]);
    round_trips(&read(&fixture("gsm8k.jsonl"), &options).unwrap().0);
}

#[test]
fn many_rows_of_differing_columns_survive_as_parquet() {
    // More than one row group, optional columns, arguments of any form, null and empty lists.
    let row = |i: u64| {
        let mut row = json!({"text": format!("row {i}"), "n": i, "half": i as f64 / 2.0 + 0.25});
        if i.is_multiple_of(3) {
            row["tags"] = json!(if i.is_multiple_of(2) {
                json!([])
            } else {
                json!(["x", null, i.to_string()])
            });
        }
        if i.is_multiple_of(5) {
            row["call"] = json!({"arguments": {format!("k{i}"): [i, {"x": null}]}});
        }
        row
    };
    let text: Vec<String> = (0..10_050).map(|i| row(i).to_string()).collect();
    let (rows, _) = read_text(&text.join("\n"), &ReadOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.parquet");
    write(&path, &rows);
    let (again, report) = read(&path, &ReadOptions::default()).unwrap();
    assert_eq!((again.len(), report.other_columns.len()), (10_050, 4));
    for (i, row_again) in again.iter().enumerate() {
        // Parquet has each column in each row.
        let mut metadata = row_again.metadata.clone();
        metadata.retain(|_, value| !value.is_null());
        let mut expected = row(i as u64);
        expected.as_object_mut().unwrap().shift_remove("text");
        assert_eq!(Json::Object(metadata), expected);
    }
}

#[test]
fn nothing_is_there_before_it_is_complete() {
    let (folder, path) = file("out.jsonl", "old");
    let (rows, _) = read(&fixture("chats.jsonl"), &ReadOptions::default()).unwrap();
    let mut writer = RowWriter::create(&path).unwrap();
    writer.write(&rows[0]).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    drop(writer);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    write(&path, &rows);
    assert_eq!(Rows::open([&path], &ReadOptions::default()).unwrap().count(), 4);

    let create = |name: &str| RowWriter::create(folder.path().join(name));
    assert!(matches!(create("out.csv"), Err(Error::Files { .. })));
    assert!(matches!(create("none/out.jsonl"), Err(Error::Io { .. })));
    std::fs::create_dir(folder.path().join("dir.jsonl")).unwrap();
    assert!(matches!(create("dir.jsonl"), Err(Error::Io { .. })));
    assert!(matches!(create("out.parquet").unwrap().finish(), Err(Error::Unwritable { .. })));
    let mut row = rows[0].clone();
    row.metadata.insert("messages".into(), 1.into());
    let mut writer = create("x.jsonl").unwrap();
    assert!(matches!(writer.write(&row), Err(Error::Unwritable { row: 1, .. })));
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let (rows, _) = read(&fixture("chats.jsonl"), &ReadOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in KINDS {
        let bytes = || {
            let path = folder.path().join(name);
            write(&path, &rows);
            std::fs::read(path).unwrap()
        };
        assert_eq!(bytes(), bytes(), "{name}");
    }
}

#[test]
fn any_objects_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.jsonl");
    let mut writer = RowWriter::create(&path).unwrap();
    let object = json!({"text": "x", "score": 0.1});
    writer.write_object(object.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{object}\n"));
    let (rows, _) = read(&path, &ReadOptions::default()).unwrap();
    assert_eq!(rows[0].example, Example::Text("x".into()));
}
