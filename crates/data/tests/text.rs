//! JSON lines and lists: what is read, what is bad, what is broken.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::Write;
use std::path::Path;

use posttrain_data::{Error, Example, Fault, Format, ReadOptions, Rows};
use serde_json::{Value as Json, json};
use support::{as_format, file, fixture, read, read_text};

fn objects(path: &Path) -> Vec<Json> {
    let (rows, _) = read(path, &ReadOptions::default()).unwrap();
    rows.iter().map(|row| Json::Object(row.to_object().unwrap())).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Options that tolerate bad rows, kept beside the file.
fn tolerant(path: &Path, max_bad_rows: u64) -> ReadOptions {
    let bad_rows = Some(path.with_file_name("bad.jsonl"));
    ReadOptions { max_bad_rows, bad_rows, ..ReadOptions::default() }
}

fn kept(path: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(path.with_file_name("bad.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn python_writes_the_same_rows_in_each_way() {
    let expected = objects(&fixture("chats.jsonl"));
    assert_eq!(expected.len(), 4);
    assert_eq!(expected[3]["messages"][0]["content"], "And \u{2028} this?");
    for name in ["chats.jsonl.gz", "chats.jsonl.zst", "chats.json", "chats_bom_crlf.jsonl"] {
        assert_eq!(objects(&fixture(name)), expected, "{name}");
    }
}

#[test]
fn places_are_lines_and_rows() {
    let places = |path: &Path| -> Vec<String> {
        let (rows, _) = read(path, &ReadOptions::default()).unwrap();
        let name = |row: &posttrain_data::Row| {
            row.place.to_string().replace(&format!("{}", path.display()), "f")
        };
        rows.iter().map(name).collect()
    };
    let (_folder, path) = file("a", "\n{\"text\": \"a\"}\n \t\r\n{\"text\": \"b\"}");
    assert_eq!(places(&path), ["f:2 (row 1)", "f:4 (row 2)"]);
    let (_, report) = read(&path, &ReadOptions::default()).unwrap();
    assert_eq!(report.files[0].blank_lines, 2);
    assert_eq!(report.to_string(), "2 rows from 1 file, format text (detected), 2 blank lines");
    let (_folder, path) =
        file("a", " [\n{\"text\":\n\"a, [\\\"\"}, {\"text\": \"b\"},\n\n{\"text\": \"c\"}\n]\n ");
    assert_eq!(places(&path), ["f:2 (row 1)", "f:3 (row 2)", "f:5 (row 3)"]);
}

#[test]
fn bad_rows_are_named_kept_and_counted() {
    let rows: &[&[u8]] = &[
        b"{\"text\": \"good\"}",
        b"{\"text\": \"broken}",
        b"{\"text\": 7}",
        b"{\"txt\": \"missing\"}",
        b"{\"text\": \"\xff\xfe not UTF-8\"}",
        b"\0\0\0\0",
        b"{\"text\": \"a\", \"text\": \"b\"}",
        b"[1]",
        b"{\"text\": \"a\", \"id\": 123456789012345678901}",
        b"{\"text\": \"a\"} trailing",
        b"\xef\xbb\xbf{\"text\": \"a\"}",
        b"{\"text\": null}",
        b"{\"text\": \"good again\"}",
    ];
    let (_folder, path) = file("rows.jsonl", rows.join(&b'\n'));
    let options = ReadOptions { format: Some(Format::Text), ..tolerant(&path, 20) };
    let (read_rows, report) = read(&path, &options).unwrap();
    assert_eq!(read_rows.len(), 2);
    assert_eq!((report.rows, report.bad_rows, report.files[0].bad_rows), (2, 11, 11));
    assert_eq!(report.first_bad_rows.len(), 11);
    let kept = kept(&path);
    let reasons: Vec<(u64, &str)> = kept
        .iter()
        .map(|bad| (bad["line"].as_u64().unwrap(), bad["reason"].as_str().unwrap()))
        .collect();
    let expected = [
        (2, "not valid JSON at byte 18: found the end, expected `\"`"),
        (3, "`text` is the number 7, expected a string"),
        (4, "`text` is missing; the row has `txt`"),
        (5, "not valid UTF-8 at byte 11"),
        (6, "a NUL byte at byte 1"),
        (7, "the key `text` stands twice in one object, again at byte 15"),
        (8, "the row is a list, expected an object with columns"),
        (9, "123456789012345678901 at byte 21 is not a number that JSON and 64 bits can hold"),
        (10, "not valid JSON at byte 15: found 't', expected the end of the row"),
        (11, "not valid JSON at byte 1: found '\\u{feff}'"),
        (12, "`text` is null, expected a value"),
    ];
    assert_eq!(reasons.len(), expected.len());
    for ((line, reason), (at, start)) in reasons.iter().zip(expected) {
        assert!(*line == at && reason.starts_with(start), "{line}: {reason}");
    }
    assert_eq!(kept[0]["raw"], "{\"text\": \"broken}");
    assert_eq!(kept[3]["raw"], "{\"text\": \"\\xff\\xfe not UTF-8\"}");
    assert_eq!(kept[0]["file"], path.display().to_string());

    // One fewer is one too few.
    let options = ReadOptions { format: Some(Format::Text), ..tolerant(&path, 10) };
    match read(&path, &options) {
        Err(Error::BadRow { place, bad: 11, allowed: 10, kept: Some(_), fault }) => {
            assert_eq!(place.line, Some(12));
            assert!(matches!(*fault, Fault::Value { .. }));
        }
        other => panic!("{other:?}"),
    }
    // By default none is tolerated, and the error says all.
    let error = read(&path, &as_format(Format::Text)).unwrap_err().to_string();
    let expected = format!(
        "{}:2: not valid JSON at byte 18: found the end, expected `\"`, or the control character \
         escaped (bad rows: 1, max_bad_rows is 0)",
        path.display()
    );
    assert_eq!(error, expected);
}

#[test]
fn tolerated_rows_have_to_be_kept_in_a_file_of_their_own() {
    let (_folder, path) = file("rows.jsonl", "{\"text\": \"a\"}");
    let options = ReadOptions { max_bad_rows: 1, ..ReadOptions::default() };
    let error = Rows::open([&path], &options).unwrap_err().to_string();
    assert!(error.contains("`max_bad_rows` is 1, expected 0, or a file in `bad_rows`"), "{error}");
    let options = ReadOptions { bad_rows: Some(path.clone()), ..ReadOptions::default() };
    assert!(
        matches!(Rows::open([&path], &options), Err(Error::Options { key, .. }) if key == "bad_rows")
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"text\": \"a\"}");
    // An old side file does not survive a run without bad rows.
    std::fs::write(path.with_file_name("bad.jsonl"), "old").unwrap();
    read(&path, &tolerant(&path, 1)).unwrap();
    assert!(kept(&path).is_empty());
}

#[test]
fn long_rows_are_bad() {
    let long = format!("{{\"text\": \"{}\"}}", "x".repeat(10_000));
    let options = |path: &Path| ReadOptions { max_row_bytes: 8_000, ..tolerant(path, 1) };
    for text in [
        format!("{{\"text\": \"a\"}}\n{long}\n{{\"text\": \"b\"}}\n"),
        format!("[{{\"text\": \"a\"}},{long},{{\"text\": \"b\"}}]"),
    ] {
        let (_folder, path) = file("rows", &text);
        let (rows, report) = read(&path, &options(&path)).unwrap();
        assert_eq!((rows.len(), report.bad_rows), (2, 1));
        let kept = &kept(&path)[0];
        assert_eq!(
            kept["reason"],
            format!("the row has {} bytes, max_row_bytes is 8000", long.len())
        );
        assert_eq!(kept["raw"], long[..4096]);
    }
    // At the limit it is not.
    let (_folder, path) = file("rows", &long);
    let exact = ReadOptions { max_row_bytes: long.len() as u64, ..ReadOptions::default() };
    assert_eq!(read(&path, &exact).unwrap().0.len(), 1);
    let (_folder, path) = file("rows", format!("{long}\n"));
    assert_eq!(read(&path, &exact).unwrap().0.len(), 1);
    let below = ReadOptions { max_row_bytes: long.len() as u64 - 1, ..ReadOptions::default() };
    assert!(read(&path, &below).is_err());
}

#[test]
fn damaged_files_are_never_tolerated() {
    let rows: Vec<String> =
        (0..500).map(|i| format!("{{\"text\": \"row {i} {}\"}}", i * i)).collect();
    let text = rows.join("\n");
    let whole = gzip(text.as_bytes());
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let zstd = zstd::encode_all(text.as_bytes(), 3).unwrap();
    let mut trailing = whole.clone();
    trailing.extend(b"garbage");
    for (name, bytes) in [
        ("cut.gz", &whole[..whole.len() / 2]),
        ("no_checksum.gz", &whole[..whole.len() - 8]),
        ("checksum.gz", &flipped),
        ("trailing.gz", &trailing),
        ("cut.zst", &zstd[..zstd.len() / 2]),
        ("cut.json", b"[{\"text\": \"a\"}, {\"text\": \"b\""),
        ("cut_behind.json", b"[{\"text\": \"a\"},"),
        ("behind.json", b"[{\"text\": \"a\"}] {}"),
    ] {
        let (_folder, path) = file(name, bytes);
        match read(&path, &tolerant(&path, 1_000)) {
            Err(Error::Damaged { place, reason }) => {
                // A frame of zstd is one block here.
                assert!(place.row > 1 || name == "cut.zst", "{name}: {place}");
                assert!(!reason.is_empty(), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // What came before is handed out, and nothing after.
    let (_folder, path) = file("cut.json", "[{\"text\": \"a\"}, {\"text\": \"b\"");
    let mut rows = Rows::open([&path], &ReadOptions::default()).unwrap();
    assert!(rows.next().unwrap().is_ok());
    assert!(rows.next().unwrap().is_err());
    assert!(rows.next().is_none());
    // A plain file that is cut inside a row has a bad row.
    let (_folder, path) = file("cut.jsonl", "{\"text\": \"a\"}\n{\"te");
    assert!(matches!(read(&path, &ReadOptions::default()), Err(Error::BadRow { .. })));
}

#[test]
fn elements_of_lists_are_judged_one_by_one() {
    let (_folder, path) = file(
        "a.json",
        "[{\"text\": \"a\"}, {\"text\": nope}, {\"text\": \"b\"} {\"text\": \"c\"}, 7, {\"text\": \"d\"}]",
    );
    let (rows, report) = read(&path, &tolerant(&path, 3)).unwrap();
    assert_eq!((rows.len(), report.bad_rows), (2, 3));
    let reasons: Vec<Json> = kept(&path).iter().map(|bad| bad["reason"].clone()).collect();
    assert_eq!(reasons[1], "not valid JSON at byte 15: found '{', expected the end of the row");
    assert_eq!(reasons[2], "the row is the number 7, expected an object with columns");
    let (_folder, path) = file("a.json", "[{\"text\": \"a\"},]");
    let fault = read(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(fault.contains("row 2): not valid JSON at byte 1: found the end"), "{fault}");
    let (_folder, path) = file("a.json", "[]");
    assert!(matches!(read(&path, &ReadOptions::default()), Err(Error::NoRows { .. })));
}

#[test]
fn other_kinds_of_files_are_named() {
    for (bytes, found) in [
        (&b"PK\x03\x04...."[..], "a zip archive"),
        (b"BZh91AY", "compressed by bzip2"),
        (b"\xff\xfe{\0", "UTF-16, little-endian"),
        (b"ARROW1\0\0", "an Arrow file"),
    ] {
        let (_folder, path) = file("rows.jsonl", bytes);
        match Rows::open([&path], &ReadOptions::default()) {
            Err(Error::Unsupported { found: name, .. }) => assert_eq!(name, found),
            other => panic!("{other:?}"),
        }
    }
    for bytes in [&b""[..], b"\n \n", b"\xef\xbb\xbf"] {
        let (_folder, path) = file("rows.jsonl", bytes);
        assert!(matches!(Rows::open([&path], &ReadOptions::default()), Err(Error::NoRows { .. })));
    }
    let error =
        Rows::open(["/nowhere/rows.jsonl"], &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("/nowhere/rows.jsonl"), "{error}");
}

#[test]
fn folders_and_patterns_are_read_in_sorted_order() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, json!({"text": text}).to_string()).unwrap();
    };
    let texts = |paths: &[&str]| -> Result<Vec<String>, Error> {
        let paths = paths.iter().map(|path| folder.path().join(path));
        let rows = Rows::open(paths, &ReadOptions::default())?;
        rows.map(|row| match row?.example {
            Example::Text(text) => Ok(text),
            other => panic!("{other:?}"),
        })
        .collect()
    };
    write("a/train-2.jsonl", "2");
    write("a/train-1.jsonl", "1");
    write("a/README.md", "no rows");
    write("a/.train-0.jsonl", "hidden");
    write("b/x.jsonl", "x");
    assert_eq!(texts(&["a"]).unwrap(), ["1", "2"]);
    assert_eq!(texts(&["b", "a"]).unwrap(), ["x", "1", "2"]);
    assert_eq!(texts(&["a/train-*.jsonl"]).unwrap(), ["1", "2"]);
    assert_eq!(texts(&["?/*.jsonl"]).unwrap(), ["1", "2", "x"]);
    let reason = |paths: &[&str]| match texts(paths) {
        Err(Error::Files { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&["c*/*.jsonl"]), "matches no file");
    assert!(reason(&["a", "a/train-1.jsonl"]).contains("named twice"));
    write("a/test-1.jsonl", "t");
    assert_eq!(reason(&["a"]), "holds several splits, test and train; name one, as in train*");
    write("b/x.parquet", "x");
    assert!(reason(&["b"]).contains("several kinds, jsonl and parquet"));
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(reason(&["empty"]).contains("without files of rows"));
    assert!(matches!(texts(&[]), Err(Error::Options { .. })));
    // A name with a star that is there is a name.
    write("c/*.jsonl", "star");
    write("c/other.jsonl", "other");
    assert_eq!(texts(&["c/*.jsonl"]).unwrap(), ["star"]);
}

#[test]
fn reports_tell_each_file() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = ["a.jsonl", "b.jsonl"].map(|name| folder.path().join(name)).into();
    std::fs::write(&paths[0], "{\"text\": \"1\", \"x\": 1}\n{\"text\": 2}\n").unwrap();
    std::fs::write(&paths[1], "{\"y\": null, \"text\": \"3\"}\n").unwrap();
    let options = tolerant(&paths[0], 1);
    let mut rows = Rows::open(&paths, &options).unwrap();
    let places: Vec<_> = rows.by_ref().map(|row| row.unwrap().place).collect();
    assert_eq!(&*places[1].file, paths[1].as_path());
    let report = rows.report();
    let counts: Vec<_> = report.files.iter().map(|file| (file.rows, file.bad_rows)).collect();
    assert_eq!(counts, [(1, 1), (1, 0)]);
    assert_eq!(report.other_columns, ["x", "y"]);
    let json = serde_json::to_value(report).unwrap();
    assert_eq!((&json["format"], &json["bad_rows"]), (&json!("text"), &json!(1)));
    assert!(report.to_string().contains(
        "2 rows from 2 files, format text (detected), other columns: x, y, 1 bad row kept in"
    ));
}

#[test]
fn options_are_read_strictly() {
    let options: ReadOptions =
        serde_json::from_value(json!({"format": "sharegpt", "max_bad_rows": 3})).unwrap();
    assert_eq!(options.format, Some(Format::ShareGpt));
    let error = serde_json::from_value::<ReadOptions>(json!({"max_bad_row": 3})).unwrap_err();
    assert!(error.to_string().contains("unknown field `max_bad_row`"));
    for format in [
        "messages",
        "sharegpt",
        "alpaca",
        "prompt_completion",
        "preference",
        "unpaired",
        "steps",
        "prompt",
        "text",
    ] {
        let read: Format = serde_json::from_value(json!(format)).unwrap();
        assert_eq!(read.as_str(), format);
    }
    let (_folder, path) = file("a", "{\"text\": \"a\"}");
    let options = ReadOptions { max_row_bytes: 0, ..ReadOptions::default() };
    assert!(matches!(Rows::open([&path], &options), Err(Error::Options { .. })));
    assert!(read_text("{\"text\": \"a\"}", &ReadOptions::default()).is_ok());
}
