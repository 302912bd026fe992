//! The forms of rows: how each is told, and columns under other names.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use posttrain_data::{Body, Error, Example, Fault, Format, ReadOptions, Row};
use serde_json::json;
use support::{as_format, columns, fixture, messages, one, read, read_text};

#[test]
fn formats_are_told_by_their_columns() {
    let chat = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]);
    let answer = json!([{"role": "assistant", "content": "Ho"}]);
    for (row, expected) in [
        (json!({"messages": chat}), Format::Messages),
        (json!({"messages": chat, "prompt": "Hi", "text": "Hi Ho"}), Format::Messages),
        (json!({"conversations": chat}), Format::ShareGpt),
        (json!({"instruction": "a", "output": "b"}), Format::Alpaca),
        (json!({"instruction": "a", "input": "", "output": "b", "text": "c"}), Format::Alpaca),
        (json!({"prompt": "a", "completion": "b"}), Format::PromptCompletion),
        (json!({"prompt": "a", "completion": "b", "label": true}), Format::Unpaired),
        (json!({"prompt": "a", "completion": "b", "label": null}), Format::PromptCompletion),
        (json!({"prompt": "a", "chosen": "b", "rejected": "c"}), Format::Preference),
        (json!({"chosen": "a b", "rejected": "a c"}), Format::Preference),
        (json!({"prompt": "a", "completions": ["b"], "labels": [true]}), Format::Steps),
        (json!({"prompt": "a", "steps": ["b"], "labels": [1]}), Format::Steps),
        (json!({"prompt": "a", "completions": ["b", "c"], "scores": [1, 2]}), Format::Ranked),
        (json!({"prompt": [{"role": "user", "content": "Hi"}], "id": 7}), Format::Prompt),
        (json!({"text": "a"}), Format::Text),
        (
            json!({"prompt": [{"role": "user", "content": "Hi"}], "completion": answer}),
            Format::PromptCompletion,
        ),
    ] {
        let (rows, report) = read_text(&row.to_string(), &ReadOptions::default()).unwrap();
        assert_eq!((report.format, report.detected), (expected, true), "{row}");
        assert_eq!(rows.len(), 1);
        // Forced, it is the same.
        assert_eq!(one(&row, &as_format(expected)).unwrap().example, rows[0].example);
    }
}

#[test]
fn what_fits_no_format_or_several_is_refused() {
    let error = one(&json!({"question": "a", "answer": "b"}), &ReadOptions::default()).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::UnknownFormat { .. }), "{message}");
    for part in [
        "`question`, `answer`",
        "messages (messages)",
        "alpaca (instruction, output[, input]",
        "columns: {prompt: question",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let chat = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]);
    for (row, expected) in [
        (
            json!({"messages": chat, "chosen": chat, "rejected": chat}),
            [Format::Messages, Format::Preference],
        ),
        (json!({"messages": chat, "conversations": chat}), [Format::Messages, Format::ShareGpt]),
        (
            json!({"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"}),
            [Format::PromptCompletion, Format::Preference],
        ),
        (json!({"prompt": "a", "text": "b"}), [Format::Prompt, Format::Text]),
    ] {
        match one(&row, &ReadOptions::default()) {
            Err(Error::AmbiguousFormat { fits, .. }) => assert_eq!(fits, expected),
            other => panic!("{row}: {other:?}"),
        }
    }
    let both = json!({"prompt": "a", "text": "b"});
    assert_eq!(one(&both, &as_format(Format::Text)).unwrap().example, Example::Text("b".into()));
}

#[test]
fn columns_are_looked_for_in_the_first_rows_together() {
    let rows = "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\": \"b\", \"label\": 1}";
    match read_text(rows, &ReadOptions::default()) {
        // The first row lacks the label that the second has.
        Err(Error::BadRow { place, fault, .. }) => {
            assert_eq!(place.line, Some(1));
            assert!(
                matches!(&*fault, Fault::Missing { column, .. } if column == "label"),
                "{fault}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn gsm8k_is_read_by_mapping_its_columns() {
    let path = fixture("gsm8k.jsonl");
    assert!(matches!(read(&path, &ReadOptions::default()), Err(Error::UnknownFormat { .. })));
    let (rows, report) =
        read(&path, &columns([("prompt", "question"), ("completion", "answer")])).unwrap();
    assert_eq!((rows.len(), report.format), (8, Format::PromptCompletion));
    let Example::PromptCompletion { prompt: Body::Text(prompt), completion: Body::Text(answer) } =
        &rows[0].example
    else {
        panic!("{:?}", rows[0])
    };
    assert!(prompt.starts_with("Natalia sold clips to 48 of her friends in April"));
    assert!(answer.ends_with("\n#### 72"));
    let (rows, report) =
        read(&path, &columns([("instruction", "question"), ("output", "answer")])).unwrap();
    assert_eq!(report.format, Format::Alpaca);
    assert_eq!(messages(&rows[0])[0], json!({"role": "user", "content": prompt}));
}

#[test]
fn mapped_columns_have_to_exist_and_to_be_used() {
    let row = json!({"question": "a", "answer": "b", "prompt": "own"});
    let key = |result: Result<Row, Error>| match result {
        Err(Error::Options { key, found, expected }) => {
            (key, format!("{found}, expected {expected}"))
        }
        other => panic!("{other:?}"),
    };
    let (at, message) = key(one(&row, &columns([("promt", "question")])));
    assert_eq!(at, "columns");
    assert!(message.contains("`promt`") && message.contains("prompt, completion"), "{message}");
    let (at, message) =
        key(one(&row, &columns([("prompt", "question"), ("completion", "answers")])));
    assert_eq!(at, "columns.completion");
    assert!(
        message.contains("`answers`") && message.contains("`question`, `answer`, `prompt`"),
        "{message}"
    );
    let (at, _) = key(one(&row, &columns([("prompt", "question"), ("completion", "question")])));
    assert_eq!(at, "columns.prompt");
    let (at, message) = key(one(
        &row,
        &columns([("prompt", "question"), ("completion", "answer"), ("margin", "m")]),
    ));
    assert_eq!(at, "columns.margin");
    assert!(message.contains("`prompt_completion`"), "{message}");
    // An optional column is looked for in all rows before it is missed.
    let pair = json!({"chosen": "a b", "rejected": "a c"});
    let (at, message) = key(one(&pair, &columns([("margin", "m")])));
    assert_eq!(at, "columns.margin");
    assert!(message.contains("some row"), "{message}");
    // A column whose name is taken by another one is metadata.
    let row = one(&row, &columns([("prompt", "question"), ("completion", "answer")])).unwrap();
    assert_eq!(row.metadata["prompt"], "own");
    assert!(row.to_object().unwrap_err().contains("`prompt`"));
}
