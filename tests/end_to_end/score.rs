//! `examples/score.rs` against transformers, and on broken rows.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::init_model::tiny_model;
use crate::support::{Files, Program, root};

const PROGRAM: Program = Program("score");
const LLAMA: &str = "tests/fixtures/models/llama3";

/// Scores rows and returns the output, row by row.
fn score(files: &Files, model: &str, rows: &[Value], more: &[&str]) -> Vec<Value> {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    let (input, output) = (files.write("in.jsonl", &lines.join("\n")), files.path("out.jsonl"));
    let args = ["--model", model, "--input", &input, "--output", &output];
    let (out, notes) = PROGRAM.answer(&[&args[..], more].concat(), "");
    assert_eq!((out.as_str(), notes.as_str()), ("", ""), "no progress bar without a terminal");
    assert!(!Path::new(&format!("{output}.tmp")).exists());
    let text = fs::read_to_string(&output).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(row: &Value) -> Vec<f64> {
    row["logprobs"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect()
}

/// The ids of the fixture's batch, and the log-probabilities of all but the first in transformers.
fn expected() -> Vec<(Vec<u32>, Vec<f64>)> {
    let bytes = fs::read(root().join(LLAMA).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = |name: &str| -> Vec<u32> {
        let data = file.tensor(name).unwrap().data().chunks_exact(8);
        data.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    };
    let logits = file.tensor("batch_logits").unwrap();
    let [_, time, vocab] = logits.shape().try_into().unwrap();
    let data = logits.data().chunks_exact(4);
    let logits: Vec<f64> =
        data.map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
    let (all, lengths) = (ids("batch_ids"), ids("batch_lengths"));
    let row = |(index, &length): (usize, &u32)| {
        let ids = all[index * time..][..length as usize].to_vec();
        let logprob = |(place, &token): (usize, &u32)| {
            let row = &logits[(index * time + place) * vocab..][..vocab];
            row[token as usize] - row.iter().map(|z| z.exp()).sum::<f64>().ln()
        };
        let logprobs = ids[1..].iter().enumerate().map(logprob).collect();
        (ids, logprobs)
    };
    lengths.iter().enumerate().map(row).collect()
}

#[test]
fn log_probabilities_are_those_of_transformers() {
    let files = Files::new();
    let expected = expected();
    let rows: Vec<Value> =
        expected.iter().map(|(ids, _)| json!({"id": ids.len(), "ids": ids, "x": null})).collect();
    let scored = score(&files, LLAMA, &rows, &[]);
    assert_eq!(scored.len(), 3);
    for (row, (ids, logprobs)) in scored.iter().zip(&expected) {
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["id", "x", "logprobs", "sum", "tokens"]);
        assert_eq!((&row["id"], &row["tokens"]), (&json!(ids.len()), &json!(ids.len() - 1)));
        let found = numbers(row);
        assert_eq!(found.len(), logprobs.len());
        let far = found.iter().zip(logprobs).any(|(a, b)| (a - b).abs() >= 1e-4);
        assert!(!far, "{found:?}, expected {logprobs:?}");
        assert!((row["sum"].as_f64().unwrap() - logprobs.iter().sum::<f64>()).abs() < 1e-3);
    }
    // On the CPU a row does not depend on its batch.
    for budget in ["0", "30", "100000"] {
        assert_eq!(score(&files, LLAMA, &rows, &["--batch-tokens", budget]), scored, "{budget}");
    }
}

#[test]
fn a_completion_is_scored_behind_its_prompt() {
    let files = Files::new();
    let model = tiny_model(&files);
    let rows = [
        json!({"text": "the copyright of the Work", "n": 1}),
        json!({"prompt": "the copyright", "completion": " of the Work", "n": 2}),
        // The space is a part of ` of`, so it counts for the completion.
        json!({"n": 3, "prompt": "the copyright ", "completion": "of the Work"}),
    ];
    let scored = score(&files, &model, &rows, &[]);
    let (whole, completion) = (numbers(&scored[0]), numbers(&scored[1]));
    assert!(completion.len() < whole.len());
    assert_eq!(completion, whole[whole.len() - completion.len()..]);
    assert_eq!(numbers(&scored[2]), completion);
    assert_eq!(scored[1]["tokens"], 3);
    let numbers: Vec<&Value> = scored.iter().map(|row| &row["n"]).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn init_chat_score() {
    let files = Files::new();
    let model = tiny_model(&files);
    let list = files.write("l.json", r#"[{"role": "user", "content": "Hello"}]"#);
    let args = ["--model", &model, "--messages", &list, "--max-new-tokens", "6", "--json"];
    let answer: Value = serde_json::from_str(&Program("chat").stdout(&args)).unwrap();
    let ids = answer["token_ids"].as_array().unwrap();
    let scored = score(&files, &model, &[json!({"ids": ids})], &[]);
    assert_eq!(scored[0]["tokens"], ids.len() - 1);
    // A random model of 1024 tokens knows nothing.
    let uniform = -(1024_f64).ln();
    assert!(numbers(&scored[0]).iter().all(|p| (p - uniform).abs() < 0.5), "{scored:?}");
}

#[test]
fn a_broken_row_is_named_and_the_output_stays() {
    let files = Files::new();
    let model = tiny_model(&files);
    let output = files.write("out.jsonl", "mine");
    let good = json!({"ids": [1, 2, 3]}).to_string();
    let with = |line: &str, expected: &str| {
        let input = files.write("in.jsonl", &format!("{good}\n{line}\n{good}\n"));
        let args = ["--model", &model, "--input", &input, "--output", &output];
        let message = PROGRAM.failure(&args);
        assert!(message.contains("in.jsonl:2: "), "{line}: {message}");
        assert!(message.contains(expected), "{line}: {message}");
        assert_eq!(fs::read_to_string(&output).unwrap(), "mine", "{line}");
        assert!(!Path::new(&format!("{output}.tmp")).exists(), "{line}");
    };
    with("", "the line is empty");
    with("{\"ids\": [1, 2}", "column 14: expected `,` or `]`");
    with("[1, 2]", "expected a map");
    with(r#"{"idz": [1]}"#, "the keys [\"idz\"], expected one of `ids`, `text`, or `prompt`");
    with(r#"{"ids": [1, 2], "text": "x y"}"#, "the keys [\"ids\", \"text\"]");
    with(r#"{"prompt": "x"}"#, "the keys [\"prompt\"]");
    with(r#"{"ids": [1, -2]}"#, "`ids`: invalid value: integer `-2`");
    with(r#"{"ids": "1 2"}"#, "`ids`: invalid type: string");
    with(r#"{"ids": [1]}"#, "the row has 1 tokens, expected at least 2");
    with(r#"{"ids": []}"#, "the row has 0 tokens");
    with(r#"{"ids": [1, 1024]}"#, "a token id is 1024, expected one below the vocabulary, 1024");
    with(&json!({"ids": vec![1; 2049]}).to_string(), "at most the context, 2048");
    with(r#"{"text": 5}"#, "`text` is 5, expected a string");
    with(r#"{"text": ""}"#, "the row has 0 tokens");
    with(r#"{"prompt": "x", "completion": ""}"#, "`completion` has no tokens");
    with(r#"{"prompt": "", "completion": "x"}"#, "`prompt` has no tokens");
    with(r#"{"ids": [1, 2], "sum": 1}"#, "the key `sum`");
}

#[test]
fn missing_files_are_named() {
    let files = Files::new();
    let model = tiny_model(&files);
    let input = files.write("in.jsonl", "{\"ids\": [1, 2]}\n");
    let empty = files.write("empty.jsonl", "");
    let output = files.path("out.jsonl");
    let with = |model: &str, input: &str, output: &str, expected: &str| {
        let message = PROGRAM.failure(&["--model", model, "--input", input, "--output", output]);
        assert!(message.contains(expected), "{message}");
    };
    with("./no/such", &input, &output, "./no/such: the folder does not exist");
    with(&model, "no.jsonl", &output, "cannot read no.jsonl");
    with(&model, &empty, &output, "empty.jsonl has no rows");
    with(&model, &input, "no/such/out.jsonl", "cannot write no/such/out.jsonl.tmp");
    with(&model, &input, &files.path(""), "is a folder, expected a file");
    let text = files.write("text.jsonl", "{\"text\": \"x y\"}\n");
    with(LLAMA, &text, &output, "a row of text needs tests/fixtures/models/llama3/tokenizer.json");
}
