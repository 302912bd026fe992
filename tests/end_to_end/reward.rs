//! `examples/reward.rs` with each of its configurations, and on broken input.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::init_model::tiny_model;
use crate::runs::{self, json as read_json, left, nothing_is_left, numbers};
use crate::support::{Files, Program};

const PROGRAM: Program = Program("reward");
const PAIRS: &str = "examples/data/gsm8k_pairs.jsonl";
const STEPS: &str = "examples/data/gsm8k_steps.jsonl";

#[test]
fn whole_answers_get_a_score_and_the_scores_a_report() {
    let files = Files::new();
    let (out, said) = runs::short_run(&PROGRAM, &files, "reward_outcome", &["learning_rate=5e-3"]);
    let (steps, evaluations) = left(&out);
    assert_eq!(steps.len(), 6);
    for step in &steps {
        numbers(step, &["accuracy", "margin", "min_reward", "mean_reward", "max_reward"]);
        assert!(step.get("nll").is_none(), "nothing predicts tokens: {step}");
    }
    let names = ["eval_accuracy", "eval_margin", "eval_auc", "eval_brier", "eval_ece"];
    for evaluation in &evaluations {
        numbers(evaluation, &names);
    }
    assert!(!evaluations.is_empty());
    let scores = read_json(&format!("{out}/scores.json"));
    assert_eq!(scores["all"]["order"]["pairs"], 20);
    let page = fs::read_to_string(format!("{out}/scores.html")).unwrap();
    assert!(page.contains("Scores of") && page.contains("<svg"));
    let report = fs::read_to_string(format!("{out}/report.html")).unwrap();
    assert!(report.contains("id=\"scores\""), "the last scores stand in the report, too");
    assert!(said.contains("validation") && said.contains("accuracy"), "{said}");
    let config = read_json(&format!("{out}/config.json"));
    assert_eq!(config["architectures"], json!(["LlamaForSequenceClassification"]));
    // The last evaluation and the scores are of the same model.
    let last = evaluations.last().unwrap();
    let auc = (last["eval_auc"].as_f64().unwrap(), scores["all"]["auc"].as_f64().unwrap());
    assert!((auc.0 - auc.1).abs() < 1e-9, "{auc:?}");
}

#[test]
fn steps_get_scores_and_the_head_stands_in_the_adapter() {
    let files = Files::new();
    let (out, said) = runs::short_run(&PROGRAM, &files, "reward_process", &[]);
    let (steps, evaluations) = left(&out);
    assert_eq!(steps.len(), 6);
    for step in &steps {
        numbers(step, &["accuracy"]);
    }
    let names = ["eval_accuracy", "eval_brier", "eval_ece"];
    for evaluation in &evaluations {
        numbers(evaluation, &names);
    }
    assert!(!evaluations.is_empty() && said.contains("validation"));
    let adapter = read_json(&format!("{out}/adapter_config.json"));
    assert_eq!(adapter["task_type"], "TOKEN_CLS");
    let whole = adapter["modules_to_save"].as_array().unwrap();
    assert!(whole.contains(&json!("score")), "{adapter}");
    assert!(read_json(&format!("{out}/scores.json"))["all"]["steps"].as_u64().unwrap() > 10);
    assert!(Path::new(&out).join("scores.html").exists());
    assert!(!Path::new(&out).join("model.safetensors").exists(), "the base stays where it is");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_trained() {
    let files = Files::new();
    let (model, out) = (tiny_model(&files), files.path("out"));
    let fails = |data: &str, more: &str, expected: &[&str]| {
        let text =
            format!("model: {model}\ndata: {data}\noutput_dir: {out}\nval_set_size: 0\n{more}");
        let message = PROGRAM.failure(&["--config", &files.write("run.yaml", &text)]);
        for expected in expected {
            assert!(message.contains(expected), "{message} has no {expected}");
        }
        nothing_is_left(&out);
    };
    let process = "kind: process\nconvention: trl\n";
    fails(PAIRS, "kind: outcom", &["line 5: `kind`: unknown variant", "did you mean `outcome`?"]);
    fails(
        PAIRS,
        "convention: trl",
        &["`convention` is given, expected nothing with `kind: outcome`"],
    );
    fails(STEPS, "kind: process", &["`convention` is missing", "math_shepherd, rlhflow"]);
    fails(
        STEPS,
        "kind: process\nconvention: prm",
        &["line 6: `convention`: unknown variant `prm`"],
    );
    // The tokenizer of the example has no such tag.
    fails(STEPS, "kind: process\nconvention: qwen_math", &["<extra_0>"]);
    fails("nowhere.jsonl", "", &["nowhere.jsonl: "]);
    // Rows of the other kind.
    fails(STEPS, "", &["gsm8k_steps.jsonl:1", "a preference: `chosen` and `rejected`"]);
    fails(PAIRS, process, &["gsm8k_pairs.jsonl:1", "`completions` (or `steps`) and `labels`"]);
    // A row whose end would be lost, or that says nothing.
    fails(PAIRS, "max_length: 64", &["gsm8k_pairs.jsonl:1", "max_length is 64"]);
    fails(STEPS, &format!("{process}max_length: 64"), &["gsm8k_steps.jsonl:", "max_length is 64"]);
    let good = json!({"prompt": "x", "completions": ["a", "b"], "labels": [true, 0.5]});
    for (name, row, expected) in [
        (
            "labels.jsonl",
            json!({"prompt": "x", "completions": ["a"], "labels": [true, true]}),
            "labels",
        ),
        ("range.jsonl", json!({"prompt": "x", "completions": ["a"], "labels": [1.5]}), "0 to 1"),
        ("none.jsonl", json!({"prompt": "x", "completions": [], "labels": []}), "completions"),
        ("missing.jsonl", json!({"prompt": "x", "completions": ["a"]}), "labels"),
    ] {
        let path = files.write(name, &format!("{good}\n{row}\n"));
        fails(&path, process, &[&format!("{name}:2"), expected]);
    }
    let same = json!({"prompt": "x", "chosen": "y", "rejected": "y"});
    let path = files.write("equal.jsonl", &format!("{same}\n"));
    fails(&path, "", &["equal.jsonl:1", "`chosen` and `rejected` are the same"]);
}

/// Long rows are dropped where that is wanted, and counted.
#[test]
fn long_rows_are_counted() {
    let files = Files::new();
    let (model, out) = (tiny_model(&files), files.path("out"));
    let text = format!(
        "model: {model}\ndata: {PAIRS}\noutput_dir: {out}\nval_set_size: 0\nmax_steps: 1\n\
         per_device_train_batch_size: 2\nmax_length: 256\nuntrained_rows: drop\n\
         save_strategy: 'no'\n"
    );
    let (_, said) = PROGRAM.answer(&["--config", &files.write("run.yaml", &text)], "");
    assert!(said.contains("longer than max_length"), "{said}");
    let report = read_json(&format!("{out}/data_report.json"));
    assert!(report.to_string().contains("too_long"), "{report}");
}
