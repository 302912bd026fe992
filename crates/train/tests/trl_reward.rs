//! Twenty steps beside TRL's trainers for reward models (`RewardTrainer` of 1.16, `PRMTrainer` of 1.13): the
//! same rows in the same order, the same numbers. `tests/fixtures/preference_runs` says how they were made.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use posttrain_chat::{ChatTokenizer, JsonChat, TrainedTurns};
use posttrain_core::{
    Conversation, Message, Prompt, Reward, Sample as RewardSample, StepReward, StepSample,
};
use posttrain_model::Decoder;
use posttrain_model::reward::{
    Convention, ProcessRewardModel, RewardModel, RewardOptions, RewardTokenizer, Trl,
};
use posttrain_train::config::{Document, RewardConfig};
use posttrain_train::data::{Answers, Batches, Row, RowId, RowOptions, encode_answers};
use posttrain_train::reward::{
    StepRow, encode_steps, outcome_reward, process_reward, score_pairs, score_steps,
};
use posttrain_train::watch::RunInfo;
use posttrain_train::{Run, Weights};
use serde_json::{Value, json};
use support::{Memory, close, device, fixtures, ids, lines, same_weights};

const FOLDER: &str = "preference_runs";

fn config(case: &Value, output: &Path, extra: &[(&str, Value)]) -> RewardConfig {
    let mut settings = case["settings"].as_object().unwrap().clone();
    settings.retain(|key, _| key != "bf16" && key != "step_separator");
    let model = fixtures().join("sft/model").to_str().unwrap().to_owned();
    for (key, value) in [
        ("model", json!(model)),
        ("data", json!("rows.jsonl")),
        ("output_dir", json!(output.to_str().unwrap())),
        ("eval_strategy", json!("no")),
        ("save_strategy", json!("no")),
    ] {
        settings.insert(key.into(), value);
    }
    for (key, value) in extra {
        settings.insert((*key).into(), value.clone());
    }
    let text = Value::Object(settings).to_string();
    RewardConfig::from_document(Document::parse("case.yaml", &text).unwrap()).unwrap()
}

/// The head that TRL began with.
fn with_head_of(model: Decoder, file: &str) -> Decoder {
    let bytes = fs::read(fixtures().join(FOLDER).join(file)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut replaced = 0;
    let model = model.map_trainable(&mut |parameter, old| {
        let Ok(view) = file.tensor(&parameter.name) else { return old };
        replaced += 1;
        let numbers = view.data().chunks_exact(4);
        let numbers: Vec<f32> =
            numbers.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        Tensor::from_data(TensorData::new(numbers, old.dims()), &device())
    });
    assert_eq!(replaced, file.len());
    model
}

fn chat(messages: &[Value]) -> JsonChat {
    JsonChat::new(json!({ "messages": messages })).unwrap()
}

fn pairs(with_margin: bool) -> Answers {
    let tokenizer = ChatTokenizer::from_model(fixtures().join("sft/model")).unwrap();
    let mut options = RowOptions { whole: true, ..RowOptions::default() };
    options.chat.turns = TrainedTurns::Everything;
    options.chat.max_length = Some(512);
    let rows = (1..).zip(lines(&format!("{FOLDER}/pairs.jsonl"))).map(|(line, row)| {
        let prompt = row["prompt"].as_array().unwrap();
        let text = |answer: &str| Row::ChatCompletion {
            prompt: chat(prompt),
            whole: chat(&[&prompt[..], &row[answer].as_array().unwrap()[..]].concat()),
        };
        let margin = row["margin"].as_f64().filter(|_| with_margin).into_iter().collect();
        let texts = vec![(text("chosen"), margin), (text("rejected"), vec![])];
        Ok((RowId::new("pairs.jsonl", line), texts))
    });
    encode_answers(rows, &tokenizer, &options, &mut |_| {}).unwrap().0
}

fn compare(name: &str, case: &Value, memory: &Memory) {
    let expected = case["steps"].as_array().unwrap();
    assert_eq!(memory.steps.len(), expected.len(), "{name}");
    for (step, expected) in memory.steps.iter().zip(expected) {
        for (key, value) in expected.as_object().unwrap() {
            let what = format!("{name}, step {}, {key}", step.step);
            let (found, scale) = match key.as_str() {
                "loss" => (step.loss, 1e-30),
                "grad_norm" => (step.grad_norm, 1e-30),
                "learning_rate" => (step.learning_rate, 1e-30),
                "micro_losses" => continue,
                // Differences of scores of the size of 1.
                other => (step.extra.get(other).unwrap_or_else(|| panic!("{what}")), 1.0),
            };
            close(found, value.as_f64().unwrap(), scale, &what);
        }
    }
}

fn outcome(name: &str, with_margin: bool) {
    let case: Value = support::json(&format!("{FOLDER}/{name}.json"));
    let folder = tempfile::tempdir().unwrap();
    let config = config(&case, &folder.path().join("run"), &[]);
    let base = fixtures().join("sft/model");
    let mut memory = Memory::default();
    let mut run = Run::open(&config.training, &mut memory).unwrap();
    let (weights, model) = Weights::load(&config, &base, None, &device()).unwrap();
    let model = with_head_of(model, "reward_head.safetensors");
    let rows = pairs(with_margin);
    let mut batches = Batches::of_answers(rows.clone(), config.batch_options()).unwrap();
    let info = RunInfo::default();
    let model = outcome_reward(model, &weights, &mut batches, None, &config, info, &mut run);
    let model = model.unwrap();
    run.end(None, None).unwrap();
    compare(name, &case, &memory);
    let weights_of_trl = fixtures().join(format!("{FOLDER}/{name}_final.safetensors"));
    if weights_of_trl.exists() {
        same_weights(&model, &weights_of_trl);
    }
    let all = Batches::of_answers(rows, config.eval_batch_options()).unwrap();
    let report = score_pairs(&model, &all).unwrap();
    assert_eq!(report.all.order.pairs, 42);

    // As it is saved, it scores rows that it has not seen as TRL's.
    weights.save_final(&model, folder.path()).unwrap();
    let model =
        RewardModel::load_with(folder.path(), &device(), &RewardOptions::default()).unwrap();
    let (columns, held_out) = (serde_json::Map::new(), lines(&format!("{FOLDER}/held_out.jsonl")));
    for (row, expected) in held_out.iter().zip(case["held_out"].as_array().unwrap()) {
        let mut messages: Vec<Message> = serde_json::from_value(row["messages"].clone()).unwrap();
        let answer = messages.pop().unwrap().text().into_owned();
        let prompt = Prompt::from(Conversation::new(messages));
        let sample = RewardSample { prompt: &prompt, response: &answer, columns: &columns };
        let score = *model.reward(&[sample])[0].as_ref().unwrap();
        // The weights of both are a thousandth apart.
        let expected = expected.as_f64().unwrap();
        assert!((score - expected).abs() <= 1e-3 * expected.abs().max(1.0), "{score}, {expected}");
    }
}

#[test]
fn outcome_of_pairs() {
    outcome("reward", false);
}

#[test]
fn outcome_of_pairs_with_margins_and_centring() {
    outcome("reward_margin", true);
}

#[test]
fn encoded_as_by_trl() {
    let (found, expected) = (pairs(false), lines(&format!("{FOLDER}/encoded_reward.jsonl")));
    assert_eq!(found.len(), expected.len());
    for (row, expected) in expected.iter().enumerate() {
        for (text, key) in found.row(row).zip(["chosen_ids", "rejected_ids"]) {
            assert_eq!(found.texts().ids(text), ids(expected, key), "row {row}, {key}");
        }
    }
}

fn steps(file: &str) -> Vec<StepRow> {
    let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    let row = |row: Value| StepRow {
        prompt: Prompt::from(row["prompt"].as_str().unwrap()),
        steps: texts(&row["completions"]),
        labels: row["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|label| f64::from(u8::from(label.as_bool().unwrap())))
            .collect(),
    };
    lines(&format!("{FOLDER}/{file}")).into_iter().map(row).collect()
}

#[test]
fn process_of_labelled_steps() {
    let case: Value = support::json(&format!("{FOLDER}/prm.json"));
    let folder = tempfile::tempdir().unwrap();
    let extra = [("kind", json!("process")), ("convention", json!("trl"))];
    let config = config(&case, &folder.path().join("run"), &extra);
    let base = fixtures().join("sft/model");
    let mut memory = Memory::default();
    let mut run = Run::open(&config.training, &mut memory).unwrap();
    let (weights, model) = Weights::load(&config, &base, None, &device()).unwrap();
    let model = with_head_of(model, "prm_head.safetensors");
    let convention = config.method.convention(model.config()).unwrap();
    assert_eq!(convention, Convention::Trl(Trl::default()));
    let tokenizer = RewardTokenizer::from_model(&base).unwrap();
    let rows =
        (1..).zip(steps("stepwise.jsonl")).map(|(line, row)| Ok((RowId::new("s", line), row)));
    let (rows, _) = encode_steps(rows, &tokenizer, &convention, &config, &mut |_| {}).unwrap();
    let expected = lines(&format!("{FOLDER}/encoded_prm.jsonl"));
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in expected.iter().enumerate() {
        assert_eq!(rows.texts().ids(row), ids(expected, "input_ids"), "row {row}");
        let labels = expected["labels"].as_array().unwrap().iter().map(|l| l.as_i64().unwrap());
        let marks: Vec<bool> = labels.clone().map(|label| label >= 0).collect();
        assert_eq!(rows.texts().trained(row).collect::<Vec<_>>(), marks, "row {row}");
        let labels: Vec<f64> = labels.filter(|l| *l >= 0).map(|l| l as f64).collect();
        assert_eq!(rows.values(row), labels, "row {row}");
    }
    let reading = convention.reading(&tokenizer, model.config()).unwrap();
    let mut batches = Batches::of_answers(rows.clone(), config.batch_options()).unwrap();
    let (read, info) = ((&config, reading), RunInfo::default());
    let model = process_reward(model, &weights, &mut batches, None, read, info, &mut run).unwrap();
    run.end(None, None).unwrap();
    compare("prm", &case, &memory);
    same_weights(&model, &fixtures().join(format!("{FOLDER}/prm_final.safetensors")));
    let all = Batches::of_answers(rows, config.eval_batch_options()).unwrap();
    let report = score_steps(&model, &all, reading).unwrap();
    assert!(report.all.steps > 100 && report.all.auc.is_some());

    weights.save_final(&model, folder.path()).unwrap();
    let model = ProcessRewardModel::load(folder.path(), &device()).unwrap();
    let held_out = steps("held_out_stepwise.jsonl");
    for (row, expected) in held_out.iter().zip(case["held_out"].as_array().unwrap()) {
        let sample = StepSample { prompt: &row.prompt, steps: &row.steps };
        let found = model.step_reward(&[sample]).pop().unwrap().unwrap();
        for (score, logits) in found.iter().zip(expected.as_array().unwrap()) {
            let odds = logits[1].as_f64().unwrap() - logits[0].as_f64().unwrap();
            let expected = 1.0 / (1.0 + (-odds).exp());
            assert!((score - expected).abs() <= 1e-3, "{score}, {expected}");
        }
    }
}
