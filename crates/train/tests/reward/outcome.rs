//! Pairs: what is read of them, margins, and rows that are too long.

use posttrain_chat::{ChatTokenizer, JsonChat};
use posttrain_core::{Conversation, Message, Prompt};
use posttrain_model::Decoder;
use posttrain_model::config::Head;
use posttrain_model::reward::{RewardModel, RewardOptions, RewardTokenizer};
use posttrain_train::Error;
use posttrain_train::data::{Answers, Row, RowCounts, RowId, encode_answers};
use serde_json::{Value, json};

use crate::kit::{base, config, encoded, solutions, train};
use crate::support::answers::{extra, pairs, with_margins};
use crate::support::{device, fixtures, lines};

fn chat(messages: &[Value]) -> JsonChat {
    JsonChat::new(json!({ "messages": messages })).unwrap()
}

/// Rows of a file of pairs.
fn read(file: &str, sets: &[&str]) -> Result<(Answers, RowCounts), Error> {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), sets);
    let tokenizer = ChatTokenizer::from_model(base(&config)).unwrap();
    let rows = (1..).zip(lines(&format!("preference_runs/{file}"))).map(|(line, row)| {
        let text = |answer: &str| match (&row["prompt"], &row[answer]) {
            (Value::Array(prompt), Value::Array(answer)) => Row::ChatCompletion {
                prompt: chat(prompt),
                whole: chat(&[&prompt[..], &answer[..]].concat()),
            },
            (prompt, answer) => Row::Completion {
                prompt: prompt.as_str().unwrap().into(),
                completion: answer.as_str().unwrap().into(),
            },
        };
        let texts = ["chosen", "rejected"].map(|answer| (text(answer), vec![])).to_vec();
        Ok((RowId::new(file, line), texts))
    });
    encode_answers(rows, &tokenizer, &config.row_options(), &mut |_| {})
}

fn scorer() -> RewardModel {
    let base = fixtures().join("sft/model");
    let model = Decoder::load(&base, &device()).unwrap();
    let model = model.with_head(Head::Sequence { labels: 1 }, 42).unwrap();
    let tokenizer = RewardTokenizer::from_model(&base).unwrap();
    RewardModel::new(model, tokenizer, &RewardOptions::default()).unwrap()
}

#[test]
fn what_is_trained_is_what_is_scored() {
    let scorer = scorer();
    for file in ["pairs.jsonl", "texts.jsonl"] {
        let (found, _) = read(file, &[]).unwrap();
        let rows = lines(&format!("preference_runs/{file}"));
        assert_eq!(found.len(), rows.len());
        for (row, json) in rows.iter().enumerate() {
            for (text, key) in found.row(row).zip(["chosen", "rejected"]) {
                let (prompt, answer) = match (&json["prompt"], &json[key]) {
                    (Value::String(prompt), Value::String(answer)) => {
                        (Prompt::from(prompt.as_str()), answer.clone())
                    }
                    (prompt, answer) => {
                        let messages: Vec<Message> =
                            serde_json::from_value(prompt.clone()).unwrap();
                        let answer = answer[0]["content"].as_str().unwrap().to_owned();
                        (Prompt::from(Conversation::new(messages)), answer)
                    }
                };
                let ids = scorer.encode(&prompt, &answer).unwrap();
                assert_eq!(found.texts().ids(text), ids, "{file}, row {row}, {key}");
            }
        }
    }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[test]
fn margins_and_centring_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let scorer = scorer();
    let texts = pairs(0..4);
    let ids: Vec<Vec<u32>> = (0..8).map(|text| texts.texts().ids(text).to_vec()).collect();
    let scores: Vec<f64> = scorer.reward_ids(&ids).into_iter().map(Result::unwrap).collect();
    let margins = [0.5, -0.25, 1.5, 0.0];
    let run = |name: &str, sets: &[&str], rows: Answers| {
        let sets = [&["per_device_train_batch_size=4", "max_steps=1"], sets].concat();
        let config = config(&folder.path().join(name), &sets);
        train(&config, rows, None).unwrap().1.steps.remove(0)
    };
    let expected = |kappa: f64, margins: &[f64]| {
        let of = |(pair, margin): (&[f64], &f64)| {
            softplus(-(pair[0] - pair[1] - margin)) + kappa * (pair[0] + pair[1]).powi(2)
        };
        scores.chunks(2).zip(margins).map(of).sum::<f64>() / 4.0
    };
    let plain = run("plain", &[], pairs(0..4));
    assert!((plain.loss - expected(0.0, &[0.0; 4])).abs() < 1e-5);
    let centred = run("centred", &["center_rewards_coefficient=0.5"], pairs(0..4));
    assert!((centred.loss - expected(0.5, &[0.0; 4])).abs() < 1e-5);
    let with = run("margins", &[], with_margins(0..4, &margins));
    assert!((with.loss - expected(0.0, &margins)).abs() < 1e-5);
    assert!((with.loss - plain.loss).abs() > 1e-3, "margins are used");
    // The metrics are of the scores alone.
    let margin = scores.chunks(2).map(|pair| pair[0] - pair[1]).sum::<f64>() / 4.0;
    for step in [&plain, &with] {
        assert!((extra(step, "margin") - margin).abs() < 1e-5);
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!((extra(step, "max_reward") - most).abs() < 1e-5);
    }
}

#[test]
fn it_learns_and_passes_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, sets: &[&str]| {
        let sets = [&["learning_rate=1e-2", "optim=sgd"], sets].concat();
        let config = config(&folder.path().join(name), &sets);
        let (model, memory) = train(&config, pairs(0..6), None).unwrap();
        (crate::support::weights(&model), memory.steps)
    };
    let (whole, steps) = run("whole", &["per_device_train_batch_size=6"]);
    assert!(steps[3].loss < steps[0].loss);
    for (name, sets) in [
        ("passes", &["per_device_train_batch_size=2", "gradient_accumulation_steps=3"][..]),
        ("uneven", &["per_device_train_batch_size=4", "gradient_accumulation_steps=2"]),
        ("anew", &["per_device_train_batch_size=6", "gradient_checkpointing=true"]),
    ] {
        let (parts, others) = run(name, sets);
        for (a, b) in steps.iter().zip(&others) {
            assert!(
                (a.loss - b.loss).abs() < 1e-6 && (a.grad_norm / b.grad_norm - 1.0).abs() < 1e-5
            );
        }
        let off = crate::support::distance(&whole, &parts);
        assert!(off < 1e-5, "{name}: {off:.1e}");
    }
}

#[test]
fn rows_that_are_too_long_are_refused_or_dropped_and_counted() {
    let whole = read("pairs.jsonl", &[]).unwrap().0;
    let longest = (0..whole.texts().len()).map(|text| whole.texts().length(text)).max().unwrap();
    let (fits, short) = (format!("max_length={longest}"), format!("max_length={}", longest - 1));
    assert_eq!(read("pairs.jsonl", &[&fits]).unwrap().0.len(), 42);
    let error = read("pairs.jsonl", &[&short]).unwrap_err().to_string();
    assert!(error.starts_with("pairs.jsonl:"), "{error}");
    assert!(error.contains(&format!("{longest} tokens, max_length is {}", longest - 1)), "{error}");
    let (kept, counts) = read("pairs.jsonl", &["max_length=128", "untrained_rows=drop"]).unwrap();
    let dropped: u64 = counts.dropped.values().map(|counted| counted.rows).sum();
    assert!(dropped > 0 && !kept.is_empty());
    assert_eq!(kept.len() as u64 + dropped, 42);
    assert_eq!(counts.truncated.rows, 0, "no answer loses the end where it is scored");
}

#[test]
fn other_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let steps = ["kind=process", "convention=trl"];
    let process = config(&folder.path().join("process"), &steps);
    let outcome = config(&folder.path().join("outcome"), &[]);
    let solutions = encoded(&process, solutions(0..3)).unwrap().0;
    let error = train(&outcome, solutions, None).unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    let error = train(&process, pairs(0..2), None).unwrap_err().to_string();
    assert!(error.contains("marks and 0 labels"), "{error}");
}
