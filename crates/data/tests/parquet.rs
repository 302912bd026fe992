//! Parquet files as `datasets` and pyarrow write them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use posttrain_data::{Error, Example, Format, ReadOptions, Rows};
use serde_json::Value as Json;
use support::{as_format, columns, fixture, read};

#[test]
fn rows_are_those_that_python_reads() {
    let expected = std::fs::read_to_string(fixture("expected.json")).unwrap();
    let tables: Vec<Json> = serde_json::from_str(&expected).unwrap();
    assert!(tables.len() >= 10);
    for table in &tables {
        let name = table["file"].as_str().unwrap();
        let (rows, report) = read(&fixture(name), &ReadOptions::default()).unwrap();
        let expected = table["rows"].as_array().unwrap();
        assert_eq!(rows.len(), expected.len(), "{name}");
        for (row, expected) in rows.iter().zip(expected) {
            let expected = expected.as_object().unwrap();
            if report.format == Format::Alpaca {
                let Example::Messages(messages) = &row.example else { panic!() };
                assert_eq!(messages.last().unwrap()["content"], expected["output"]);
                let history = expected["history"].as_array().unwrap().len();
                assert_eq!(messages.len(), 2 + 2 * history);
                continue;
            }
            let mut object = row.to_object().unwrap();
            if expected.contains_key("tools") {
                object.entry("tools").or_insert(Json::Null);
            }
            assert_eq!(object.len(), expected.len(), "{name} {}", row.place);
            for (column, value) in expected {
                // Equal as text, so that the order of keys counts as well.
                assert_eq!(
                    object[column].to_string(),
                    value.to_string(),
                    "{name} {} {column}",
                    row.place
                );
            }
        }
    }
}

#[test]
fn places_count_over_row_groups() {
    let (rows, report) =
        read(&fixture("layout_snappy_groups.parquet"), &ReadOptions::default()).unwrap();
    assert_eq!((rows.len(), report.other_columns.len()), (20, 3));
    let place = &rows[19].place;
    assert_eq!((place.row, place.line), (20, None));
    assert!(place.to_string().ends_with("layout_snappy_groups.parquet row 20"));
}

#[test]
fn bytes_are_text_or_a_fault() {
    let path = fixture("bytes.parquet");
    match read(&path, &ReadOptions::default()) {
        Err(Error::BadRow { place, fault, .. }) => {
            assert_eq!(place.row, 2);
            assert_eq!(
                fault.to_string(),
                "`raw` is 2 bytes that are no UTF-8 at byte 1, expected text"
            );
        }
        other => panic!("{other:?}"),
    }
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.jsonl");
    let options =
        ReadOptions { max_bad_rows: 1, bad_rows: Some(bad.clone()), ..ReadOptions::default() };
    let (rows, _) = read(&path, &options).unwrap();
    assert_eq!(rows[1].metadata["raw"], "text");
    let kept: Json = serde_json::from_str(&std::fs::read_to_string(bad).unwrap()).unwrap();
    assert_eq!((&kept["row"], &kept["raw"]["text"]), (&Json::from(2), &Json::from("bad")));
    // A fault of the form keeps the row as well.
    let bad = folder.path().join("form.jsonl");
    let options = ReadOptions {
        max_bad_rows: 20,
        bad_rows: Some(bad.clone()),
        ..columns([("text", "source")])
    };
    let (rows, report) =
        read(&fixture("datasets.parquet"), &ReadOptions { format: Some(Format::Text), ..options })
            .unwrap();
    assert_eq!((rows.len(), report.bad_rows), (9, 3));
    let kept: Json =
        serde_json::from_str(std::fs::read_to_string(bad).unwrap().lines().next().unwrap())
            .unwrap();
    assert_eq!(kept["raw"]["messages"][2]["content"], "Long.");
}

#[test]
fn what_is_not_supported_is_named() {
    let unsupported = |name: &str| match Rows::open([fixture(name)], &as_format(Format::Text)) {
        Err(error @ Error::Unsupported { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let message = unsupported("brotli.parquet");
    let expected =
        "the compression of column `messages.list.element.role` is brotli, expected none, snappy";
    assert!(message.contains(expected), "{message}");
    let message = unsupported("decimal.parquet");
    assert!(message.contains("the type of column `price` is Decimal"), "{message}");
    assert!(matches!(
        Rows::open([fixture("empty.parquet")], &ReadOptions::default()),
        Err(Error::NoRows { .. })
    ));
}
