//! Twenty steps beside TRL 1.16's trainers for preferences: the same rows in the same order, the same
//! numbers. `tests/fixtures/preference_runs` says how they were made.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::path::Path;

use posttrain_chat::{ChatTokenizer, JsonChat};
use posttrain_model::Decoder;
use posttrain_train::config::{Document, PreferenceConfig};
use posttrain_train::data::{
    Answers, BadRows, Batches, Row, RowId, RowOptions, Sample, encode_answers,
};
use posttrain_train::watch::RunInfo;
use posttrain_train::{Run, Weights, preference};
use serde_json::{Value, json};
use support::{Memory, close, device, fixtures, ids, lines, same_weights};

const FOLDER: &str = "preference_runs";
/// Keys of TRL's settings that are the loss's here.
const OF_THE_LOSS: [&str; 8] = [
    "loss_type",
    "loss_weights",
    "beta",
    "desirable_weight",
    "undesirable_weight",
    "cpo_alpha",
    "simpo_gamma",
    "label_smoothing",
];

/// A prompt with an answer.
fn text(row: &Value, answer: &str, line: u64) -> Sample {
    let (prompt, answer) = (ids(row, "prompt_ids"), ids(row, answer));
    let trained = [vec![false; prompt.len()], vec![true; answer.len()]].concat();
    Sample { ids: [prompt, answer].concat(), trained, row: RowId::new("rows.jsonl", line) }
}

/// The rows of a trainer as TRL encoded them; ORPO's and CPO's have another end than ours.
fn rows(trainer: &str) -> Answers {
    let mut answers = Answers::default();
    let file = match trainer {
        "kto" => "encoded_kto.jsonl",
        "dpo" => "encoded_dpo.jsonl",
        _ => "encoded_orpo.jsonl",
    };
    for (line, row) in (1..).zip(lines(&format!("{FOLDER}/{file}"))) {
        if trainer == "kto" {
            let label = f64::from(u8::from(row["label"].as_bool().unwrap()));
            answers.push(&[(text(&row, "completion_ids", line), vec![label])]).unwrap();
        } else {
            let text = |answer| (text(&row, answer, line), Vec::new());
            answers.push(&[text("chosen_ids"), text("rejected_ids")]).unwrap();
        }
    }
    answers
}

/// Rows cut at their end; those whose prompt leaves no room are dropped. TRL also trains on pairs that
/// are the same then, which [`encode_answers`] refuses.
fn cut(rows: &Answers, max_length: usize) -> Answers {
    let mut answers = Answers::default();
    for row in 0..rows.len() {
        let cut = |text| {
            let Sample { mut ids, mut trained, row } = rows.texts().sample(text);
            ids.truncate(max_length);
            trained.truncate(max_length);
            (Sample { ids, trained, row }, Vec::new())
        };
        if rows.prompt(rows.row(row).start).len() < max_length {
            answers.push(&rows.row(row).map(cut).collect::<Vec<_>>()).unwrap();
        }
    }
    answers
}

/// The rows of a file as we encode them; those that cannot be trained on are dropped.
fn encoded(file: &str, answers: &[&str], max_length: usize) -> Answers {
    let tokenizer = ChatTokenizer::from_model(fixtures().join("sft/model")).unwrap();
    let chat = |messages: Vec<Value>| JsonChat::new(json!({ "messages": messages })).unwrap();
    let texts = |row: &Value, answer: &str| match (&row["prompt"], &row[answer]) {
        (Value::Array(prompt), Value::Array(answer)) => Row::ChatCompletion {
            prompt: chat(prompt.clone()),
            whole: chat([&prompt[..], &answer[..]].concat()),
        },
        (prompt, completion) => Row::Completion {
            prompt: prompt.as_str().unwrap().into(),
            completion: completion.as_str().unwrap().into(),
        },
    };
    let mut options = RowOptions { bad_rows: BadRows::Drop, ..RowOptions::default() };
    options.chat.turns = posttrain_chat::TrainedTurns::Everything;
    options.chat.max_length = Some(max_length);
    let rows = (1..).zip(lines(&format!("{FOLDER}/{file}"))).map(|(line, row)| {
        let label = row["label"].as_bool().map(|label| f64::from(u8::from(label)));
        let values: Vec<f64> = label.into_iter().collect();
        let texts = answers.iter().map(|answer| (texts(&row, answer), values.clone())).collect();
        Ok((RowId::new(file, line), texts))
    });
    encode_answers(rows, &tokenizer, &options, &mut |_| {}).unwrap().0
}

/// The settings of a case are those of a configuration file, but that a loss has its own.
fn config(case: &Value, output: &Path, extra: &[(&str, Value)]) -> PreferenceConfig {
    let mut settings = case["settings"].as_object().unwrap().clone();
    settings.retain(|key, _| key != "bf16");
    let mut loss = serde_json::Map::from_iter([("type".into(), case["trainer"].clone())]);
    for key in OF_THE_LOSS {
        if let Some(value) = settings.remove(key) {
            loss.insert(key.into(), value);
        }
    }
    let model = fixtures().join("sft/model").to_str().unwrap().to_owned();
    settings.insert("loss".into(), loss.into());
    settings.insert("model".into(), model.clone().into());
    settings.insert("data".into(), "rows.jsonl".into());
    settings.insert("output_dir".into(), output.to_str().unwrap().into());
    settings.insert("eval_strategy".into(), "no".into());
    settings.insert("save_strategy".into(), "no".into());
    for (key, value) in extra {
        let value = if value == "MODEL" { model.clone().into() } else { value.clone() };
        settings.insert((*key).into(), value);
    }
    let text = Value::Object(settings).to_string();
    PreferenceConfig::from_document(Document::parse("case.yaml", &text).unwrap()).unwrap()
}

fn train(config: &PreferenceConfig, rows: Answers) -> (Decoder, Memory) {
    let mut memory = Memory::default();
    let mut run = Run::open(&config.training, &mut memory).unwrap();
    let base = fixtures().join("sft/model");
    let (weights, model) = Weights::load(config, &base, run.resumed_from(), &device()).unwrap();
    let mut batches = Batches::of_answers(rows, config.batch_options()).unwrap();
    let info = RunInfo::default();
    let model = preference(model, &weights, &mut batches, None, config, info, &mut run).unwrap();
    run.end(None, None).unwrap();
    (model, memory)
}

fn compare(name: &str, extra: &[(&str, Value)]) {
    let case: Value = support::json(&format!("{FOLDER}/{name}.json"));
    let trainer = case["trainer"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&case, &folder.path().join("run"), extra);
    let rows = match (trainer, config.data.max_length) {
        ("dpo", max @ 128) => cut(&rows("dpo"), max),
        ("kto", max @ 128) => encoded("unpaired.jsonl", &["completion"], max),
        _ => rows(trainer),
    };
    assert_eq!(rows.len() as u64, case["rows"].as_u64().unwrap(), "{name}");
    let (model, memory) = train(&config, rows);
    let expected = case["steps"].as_array().unwrap();
    assert_eq!(memory.steps.len(), expected.len(), "{name}");
    let mut compared = 0;
    for (step, expected) in memory.steps.iter().zip(expected) {
        let number = |key: &str| expected[key].as_f64();
        let what = |key| format!("{name}, step {}, {key}", step.step);
        let rate = (step.learning_rate, number("learning_rate").unwrap());
        assert!((rate.0 - rate.1).abs() <= 1e-12 * rate.1, "{}", what("learning_rate"));
        close(step.loss, number("loss").unwrap(), 1e-30, &what("loss"));
        close(step.grad_norm, number("grad_norm").unwrap(), 1e-30, &what("grad_norm"));
        for (key, value) in expected.as_object().unwrap() {
            let found = match key.as_str() {
                "mean_token_accuracy" => step.mean_token_accuracy,
                _ => step.extra.get(key),
            };
            let Some(found) = found else { continue };
            // Rewards are differences of log-probabilities of hundreds of nats.
            let scale = if key.starts_with("rewards/") || key == "kl" { 1.0 } else { 1e-2 };
            if key == "rewards/accuracies" && step.step == 1 {
                // Policy and reference are the same: rounding decides.
                continue;
            }
            close(found, value.as_f64().unwrap(), scale, &what(key));
            compared += 1;
        }
    }
    assert!(compared >= 4 * expected.len(), "{name}: {compared} metrics");
    let weights = fixtures().join(format!("{FOLDER}/{name}_final.safetensors"));
    if weights.exists() {
        same_weights(&model, &weights);
    }
}

fn adapter() -> Value {
    fixtures().join("sft/adapter").to_str().unwrap().into()
}

#[test]
fn dpo_of_all_weights() {
    compare("dpo", &[]);
}

#[test]
fn dpo_with_layers_computed_anew_and_the_reference_computed_before() {
    let extra =
        [("gradient_checkpointing", json!(true)), ("precompute_ref_log_probs", json!(true))];
    compare("dpo", &extra);
}

#[test]
fn dpo_of_an_adapter_against_the_base() {
    compare("dpo_lora", &[("adapter", adapter()), ("ref_model", json!("MODEL"))]);
}

#[test]
fn dpo_of_an_adapter_against_itself_as_it_began() {
    compare("dpo_lora_copy", &[("adapter", adapter())]);
}

#[test]
fn dpo_of_truncated_rows() {
    compare("dpo_truncated", &[]);
}

#[test]
fn several_losses_at_once() {
    compare("mpo", &[]);
}

#[test]
fn ipo() {
    compare("ipo", &[]);
}

#[test]
fn kto_of_all_weights() {
    compare("kto", &[]);
}

#[test]
fn kto_of_an_adapter() {
    compare("kto_lora", &[("adapter", adapter()), ("ref_model", json!("MODEL"))]);
}

#[test]
fn kto_of_truncated_rows() {
    compare("kto_truncated", &[]);
}

#[test]
fn orpo() {
    compare("orpo", &[]);
}

#[test]
fn cpo_and_simpo() {
    for case in ["cpo", "simpo", "cpo_simpo"] {
        compare(case, &[]);
    }
}

/// Four pairs differ only behind the cut.
#[test]
fn pairs_that_are_the_same_after_truncation_are_refused() {
    let whole = encoded("pairs.jsonl", &["chosen", "rejected"], 512);
    assert_eq!(cut(&whole, 128).len(), 31);
    assert_eq!(encoded("pairs.jsonl", &["chosen", "rejected"], 128).len(), 27);
}

#[test]
fn encoded_as_by_trl() {
    for (file, expected, answers) in [
        ("pairs.jsonl", "encoded_dpo.jsonl", &["chosen", "rejected"][..]),
        ("texts.jsonl", "encoded_texts.jsonl", &["chosen", "rejected"]),
        ("unpaired.jsonl", "encoded_kto.jsonl", &["completion"]),
    ] {
        let (found, expected) =
            (encoded(file, answers, 512), lines(&format!("{FOLDER}/{expected}")));
        assert_eq!(found.len(), expected.len(), "{file}");
        for (row, expected) in expected.iter().enumerate() {
            for (index, answer) in found.row(row).zip(answers) {
                let what = format!("{file}, row {row}, {answer}");
                let expected = text(expected, &format!("{answer}_ids"), 1);
                assert_eq!(found.texts().ids(index), expected.ids, "{what}");
                let trained: Vec<bool> = found.texts().trained(index).collect();
                assert_eq!(trained, expected.trained, "{what}");
            }
        }
    }
}
