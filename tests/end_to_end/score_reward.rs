//! `examples/score_reward.rs` on models that `examples/reward.rs` has trained, and on broken rows.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::runs::{json as read_json, lines, short_run};
use crate::support::{Files, Program, root};

const PROGRAM: Program = Program("score_reward");

fn outcome(files: &Files) -> String {
    short_run(&Program("reward"), files, "reward_outcome", &["learning_rate=5e-3"]).0
}

/// Scores rows; the output row by row.
fn score(files: &Files, model: &[&str], rows: &[Value]) -> Vec<Value> {
    let text: Vec<String> = rows.iter().map(Value::to_string).collect();
    let (input, output) = (files.write("in.jsonl", &text.join("\n")), files.path("out.jsonl"));
    let args = [model, &["--input", &input, "--output", &output]].concat();
    let (stdout, said) = PROGRAM.answer(&args, "");
    assert!(stdout.is_empty() && said.contains(&format!("{} rows in", rows.len())), "{said}");
    assert!(!Path::new(&format!("{output}.tmp")).exists());
    lines(&output)
}

fn numbers(rows: &[Value]) -> Vec<f64> {
    rows.iter().map(|row| row["score"].as_f64().unwrap_or_else(|| panic!("{row}"))).collect()
}

#[test]
fn answers_in_every_form_and_in_their_order() {
    let files = Files::new();
    let out = outcome(&files);
    let model = ["--model", out.as_str()];
    let user = json!([{"role": "user", "content": "6 times 7?"}]);
    let whole =
        json!([{"role": "user", "content": "6 times 7?"}, {"role": "assistant", "content": "42"}]);
    let rows = [
        json!({"id": 1, "messages": whole}),
        json!({"prompt": user, "completion": "42", "id": 2}),
        json!({"prompt": user, "completion": [{"role": "assistant", "content": "42"}]}),
        json!({"prompt": "6 times 7?", "completion": "42", "kept": {"a": [null, 1.5]}}),
        json!({"prompt": user, "completion": "Is it perhaps forty, or a little more than that?"}),
    ];
    let scored = score(&files, &model, &rows);
    for (row, scored) in rows.iter().zip(&scored) {
        let mut expected = row.clone();
        expected["score"] = scored["score"].clone();
        assert_eq!(scored.to_string(), expected.to_string(), "the row with its score behind");
    }
    let found = numbers(&scored);
    assert_eq!((found[0], found[1]), (found[2], found[2]));
    assert!(found[3] != found[0] && found[4] != found[0], "{found:?}");
    // What is scored beside it, and before it, changes nothing.
    let turned: Vec<Value> = rows.iter().rev().cloned().collect();
    let mut again = numbers(&score(&files, &model, &turned));
    again.reverse();
    assert_eq!(again, found);
    let logistic = numbers(&score(&files, &[&model[..], &["--logistic"]].concat(), &rows));
    for (score, p) in found.iter().zip(&logistic) {
        assert!((1.0 / (1.0 + (-score).exp()) - p).abs() < 1e-9);
    }
}

/// The rows that were held out have the scores of which the run has made its report.
#[test]
fn scores_are_those_of_the_run() {
    let files = Files::new();
    let out = outcome(&files);
    let pairs = lines(root().join("examples/data/gsm8k_pairs_eval.jsonl").to_str().unwrap());
    let rows: Vec<Value> = pairs
        .iter()
        .flat_map(|pair| {
            ["chosen", "rejected"]
                .map(|which| json!({"prompt": pair["prompt"], "completion": pair[which]}))
        })
        .collect();
    let found = numbers(&score(&files, &["--model", &out], &rows));
    let wins = found.chunks(2).filter(|pair| pair[0] > pair[1]).count();
    let margin = found.chunks(2).map(|pair| pair[0] - pair[1]).sum::<f64>() / pairs.len() as f64;
    let report = read_json(&format!("{out}/scores.json"));
    assert_eq!(report["all"]["order"]["wins"], wins);
    let evaluations = lines(&format!("{out}/evaluations.jsonl"));
    let last = evaluations.last().unwrap();
    let expected = last["eval_margin"].as_f64().unwrap();
    assert!((margin - expected).abs() < 1e-4 * expected.abs().max(1.0), "{margin}, {expected}");
}

#[test]
fn steps_by_an_adapter() {
    let files = Files::new();
    let (adapter, _) = short_run(&Program("reward"), &files, "reward_process", &[]);
    let base = files.path("model");
    let model = ["--model", &base, "--adapter", &adapter, "--convention", "trl"];
    let steps = ["6 times 7 is 7 times 6.", "So it is 42.", "A: 42"];
    let rows = [
        json!({"n": 1, "prompt": "6 times 7?", "steps": steps}),
        json!({"n": 2, "prompt": "6 times 7?", "steps": steps[..1]}),
        json!({"n": 3, "prompt": [{"role": "user", "content": "6 times 7?"}], "steps": steps}),
    ];
    let scored = score(&files, &model, &rows);
    let of = |row: &Value| -> Vec<f64> { serde_json::from_value(row["scores"].clone()).unwrap() };
    for (row, given) in scored.iter().zip(&rows) {
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["n", "prompt", "steps", "scores", "min", "last", "prod"]);
        assert_eq!(row["n"], given["n"]);
        let scores = of(row);
        assert_eq!(scores.len(), given["steps"].as_array().unwrap().len());
        assert!(scores.iter().all(|p| (0.0..=1.0).contains(p)), "{scores:?}");
        let (min, prod) = (row["min"].as_f64().unwrap(), row["prod"].as_f64().unwrap());
        assert_eq!(min, scores.iter().copied().fold(1.0, f64::min));
        assert_eq!(row["last"].as_f64().unwrap(), *scores.last().unwrap());
        assert!((prod - scores.iter().product::<f64>()).abs() < 1e-12);
    }
    // The folder of the adapter tells the convention, too.
    assert_eq!(score(&files, &model[..4], &rows), scored);
    // What comes later says nothing about a step; how the prompt is written does.
    assert_eq!(of(&scored[0])[..1], of(&scored[1])[..]);
    assert_ne!(of(&scored[0]), of(&scored[2]));
    let answer = files.write("answer.jsonl", r#"{"prompt": "x", "completion": "y"}"#);
    let args = ["--input", &answer, "--output", &files.path("no.jsonl")];
    let message = PROGRAM.failure(&[&model[..], &args].concat());
    assert!(
        message.contains("answer.jsonl:1: an answer, expected `prompt` and `steps`"),
        "{message}"
    );
    let message = PROGRAM.failure(&[&model[..], &args, &["--logistic"]].concat());
    assert!(message.contains("--logistic is for answers"), "{message}");
}

#[test]
fn a_broken_row_is_named_and_the_output_stays() {
    let files = Files::new();
    let out = outcome(&files);
    let good = json!({"prompt": "x", "completion": "y"}).to_string();
    let output = files.write("scores.jsonl", "mine");
    let with = |line: &str, expected: &str| {
        let input = files.write("in.jsonl", &format!("{good}\n{line}\n{good}\n"));
        let message = PROGRAM.failure(&["--model", &out, "--input", &input, "--output", &output]);
        assert!(message.contains("in.jsonl:2: "), "{line}: {message}");
        assert!(message.contains(expected), "{line}: {message}");
        assert_eq!(fs::read_to_string(&output).unwrap(), "mine", "{line}");
        assert!(!Path::new(&format!("{output}.tmp")).exists(), "{line}");
    };
    with("", "the line is empty");
    with(r#"{"prompt": "x", "completion": "#, "column ");
    with(r#"{"prompt": "x"}"#, "the keys [\"prompt\"], expected `messages`");
    with(r#"{"prompt": "x", "completion": "y", "steps": ["z"]}"#, "the keys");
    with(r#"{"prompt": "x", "completion": "y", "score": 1}"#, "the key `score`, expected it free");
    with(r#"{"prompt": 5, "completion": "y"}"#, "5 stands where a list of messages is expected");
    with(r#"{"prompt": "x", "completion": 5}"#, "stands where a list of messages is expected");
    with(r#"{"prompt": "x", "completion": " "}"#, "`completion` is empty");
    with(
        r#"{"messages": [{"role": "user", "content": "x"}]}"#,
        "does not end with the assistant's",
    );
    with(r#"{"messages": []}"#, "`messages` is empty");
    with(r#"{"prompt": "x", "steps": ["y"]}"#, "the model scores whole answers");
    with(r#"{"prompt": "x", "steps": []}"#, "`steps` is empty");
    with(r#"{"prompt": "x", "steps": "y"}"#, "`steps`");
}

/// A row that can be read and not scored says why; the others have their scores.
#[test]
fn a_row_that_cannot_be_scored_has_its_error() {
    let files = Files::new();
    let out = outcome(&files);
    let long = "word ".repeat(3000);
    let rows = [
        json!({"prompt": "x", "completion": "y"}),
        json!({"prompt": "x", "completion": long}),
        json!({"prompt": "x", "completion": "z"}),
    ];
    let text: Vec<String> = rows.iter().map(Value::to_string).collect();
    let (input, output) = (files.write("in.jsonl", &text.join("\n")), files.path("out.jsonl"));
    let message = PROGRAM.failure(&["--model", &out, "--input", &input, "--output", &output]);
    assert!(message.contains("1 rows could not be scored"), "{message}");
    let found = lines(&output);
    assert!(found[0]["score"].is_number() && found[2]["score"].is_number());
    assert!(found[1].get("score").is_none());
    assert!(
        found[1]["error"].as_str().unwrap().contains("the context of 2048"),
        "{}",
        found[1]["error"]
    );
}

#[test]
fn what_is_missing_is_named() {
    let files = Files::new();
    let out = outcome(&files);
    let base = files.path("model");
    let row = files.write("in.jsonl", "{\"prompt\": \"x\", \"completion\": \"y\"}\n");
    let empty = files.write("empty.jsonl", "");
    let output = files.path("out.jsonl");
    let with = |args: &[&str], input: &str, expected: &str| {
        let message = PROGRAM.failure(&[args, &["--input", input, "--output", &output]].concat());
        assert!(message.contains(expected), "{message}");
        assert!(!Path::new(&output).exists());
    };
    with(&["--model", "./no/such"], &row, "./no/such: the folder does not exist");
    with(&["--model", &out], "no.jsonl", "cannot read no.jsonl");
    with(&["--model", &out], &empty, "empty.jsonl has no rows");
    with(&["--model", &base], &row, "has the head Language");
    with(&["--model", &base, "--convention", "prm"], &row, "--convention prm: ");
    with(&["--model", &base, "--convention", "trl"], &row, "two scores");
    with(&["--model", &base, "--adapter", "./no/adapter"], &row, "no/adapter");
    let folder = files.path("");
    let message = PROGRAM.failure(&["--model", &out, "--input", &row, "--output", &folder]);
    assert!(message.contains("is a folder, expected a file"), "{message}");
}
