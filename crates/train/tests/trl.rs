//! Twenty steps beside TRL 1.16: the same rows in the same order, the same numbers.
//!
//! `tests/fixtures/sft` says how they were made.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::fs;

use posttrain_chat::ChatTokenizer;
use posttrain_core::Conversation;
use posttrain_train::config::{Document, SftConfig};
use posttrain_train::data::{Row, RowId, Samples, encode};
use serde_json::Value;
use support::{close, fixtures, json, same_weights, samples, train};

/// The settings of a case are those of a configuration file.
fn config(case: &Value, output: &std::path::Path, extra: &str) -> SftConfig {
    let mut settings = case["settings"].as_object().unwrap().clone();
    settings.retain(|key, _| key != "bf16");
    settings.insert("model".into(), fixtures().join("sft/model").to_str().unwrap().into());
    settings.insert("data".into(), "rows.jsonl".into());
    settings.insert("output_dir".into(), output.to_str().unwrap().into());
    settings.insert("eval_strategy".into(), "no".into());
    let mut document = Document::parse("case.yaml", &Value::Object(settings).to_string()).unwrap();
    if !extra.is_empty() {
        document.set(extra).unwrap();
    }
    SftConfig::from_document(document).unwrap()
}

/// Runs a case and compares every step and the weights after the last.
fn compare(name: &str, extra: &str, rows: Samples) {
    let case = json(&format!("sft/{name}.json"));
    let folder = tempfile::tempdir().unwrap();
    let config = config(&case, &folder.path().join("run"), extra);
    let (model, memory) = train(&config, rows, None).unwrap();
    let expected = case["steps"].as_array().unwrap();
    assert_eq!(memory.steps.len(), expected.len(), "{name}");
    for (step, expected) in memory.steps.iter().zip(expected) {
        let number = |key: &str| expected[key].as_f64().unwrap();
        let what = |key| format!("{name}, step {}, {key}", step.step);
        assert_eq!(step.trained_tokens as f64, number("trained_tokens"), "{}", what("tokens"));
        let rate = (step.learning_rate, number("learning_rate"));
        assert!((rate.0 - rate.1).abs() <= 1e-12 * rate.1, "{}", what("learning_rate"));
        close(step.loss, number("loss"), 1e-30, &what("loss"));
        close(step.grad_norm, number("grad_norm"), 1e-30, &what("grad_norm"));
    }
    same_weights(&model, &fixtures().join(format!("sft/{name}_final.safetensors")));
}

#[test]
fn full_fine_tuning() {
    compare("full", "", samples());
}

#[test]
fn full_fine_tuning_with_layers_computed_anew() {
    compare("full", "gradient_checkpointing=true", samples());
}

#[test]
fn dynamic_fine_tuning() {
    compare("dft", "", samples());
}

#[test]
fn label_smoothing() {
    compare("label_smoothing", "", samples());
}

#[test]
fn packed() {
    compare("packed", "", samples());
}

#[test]
fn wrapped_documents() {
    let folder = fixtures().join("sft");
    let case = json("sft/wrapped.json");
    let config = config(&case, &folder, "");
    let tokenizer = ChatTokenizer::from_model(folder.join("model")).unwrap();
    let lines = fs::read_to_string(folder.join("documents.jsonl")).unwrap();
    let rows = lines.lines().zip(1..).map(|(line, number)| {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = row["text"].as_str().unwrap().to_owned();
        Ok((RowId::new("documents.jsonl", number), Row::<Conversation>::Text(text)))
    });
    let (rows, _) = encode(rows, &tokenizer, &config.row_options(), &mut |_| {}).unwrap();
    compare("wrapped", "", rows);
}

#[test]
fn lora() {
    let adapter = fixtures().join("sft/adapter");
    compare("lora", &format!("adapter={}", adapter.display()), samples());
}
