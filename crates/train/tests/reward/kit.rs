//! Settings, rows and runs of a few steps.

use std::path::{Path, PathBuf};

use posttrain_core::{Conversation, Message, Prompt};
use posttrain_model::Decoder;
use posttrain_model::reward::RewardTokenizer;
use posttrain_train::config::{Document, RewardConfig, RewardKind};
use posttrain_train::data::{Answers, Batches, RowCounts, RowId};
use posttrain_train::reward::{StepRow, encode_steps, outcome_reward, process_reward};
use posttrain_train::watch::RunInfo;
use posttrain_train::{Error, Run, Weights};

use crate::support::{Memory, device, fixtures, lines};

pub(crate) const NEW_ADAPTER: &str = "lora={r: 4, target_modules: all-linear}";
pub(crate) const TRL: [&str; 2] = ["kind=process", "convention=trl"];

/// Settings for the tiny model of `tests/fixtures/sft`, each as `--set` takes it.
pub(crate) fn config(output: &Path, sets: &[&str]) -> RewardConfig {
    let text = format!(
        "model: {}\ndata: rows.jsonl\noutput_dir: {}\nmax_length: 512\nlearning_rate: 2e-3\n\
         gradient_checkpointing: false\neval_strategy: 'no'\nsave_strategy: 'no'\nmax_steps: 4\n\
         per_device_train_batch_size: 2\nlr_scheduler_type: constant\n",
        fixtures().join("sft/model").display(),
        output.display()
    );
    let mut document = Document::parse("reward.yaml", &text).unwrap();
    for set in sets {
        document.set(set).unwrap();
    }
    RewardConfig::from_document(document).unwrap()
}

pub(crate) fn base(config: &RewardConfig) -> PathBuf {
    PathBuf::from(config.model.name().unwrap())
}

/// Solutions of the fixtures in labelled steps.
pub(crate) fn solutions(rows: std::ops::Range<usize>) -> Vec<StepRow> {
    let all = lines("preference_runs/stepwise.jsonl");
    let row = |row: &serde_json::Value| StepRow {
        prompt: Prompt::from(row["prompt"].as_str().unwrap()),
        steps: serde_json::from_value(row["completions"].clone()).unwrap(),
        labels: row["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|label| f64::from(u8::from(label.as_bool().unwrap())))
            .collect(),
    };
    all[rows].iter().map(row).collect()
}

/// A question of a user.
pub(crate) fn asked(text: &str) -> Prompt {
    Prompt::from(Conversation::new([Message::user(text)]))
}

pub(crate) fn encoded(
    config: &RewardConfig,
    rows: Vec<StepRow>,
) -> Result<(Answers, RowCounts), Error> {
    let tokenizer = RewardTokenizer::from_model(base(config)).unwrap();
    let model = posttrain_model::config::Config::from_model(&base(config)).unwrap();
    let convention = config.method.convention(&model)?;
    let rows = (1..).zip(rows).map(|(line, row)| Ok((RowId::new("rows.jsonl", line), row)));
    encode_steps(rows, &tokenizer, &convention, config, &mut |_| {})
}

/// Trains, evaluates on other rows where there are some, and writes the model where `save` says.
pub(crate) fn train_and_save(
    config: &RewardConfig,
    rows: Answers,
    validation: Option<Answers>,
    save: Option<&Path>,
) -> Result<(Decoder, Memory), Error> {
    let mut memory = Memory::default();
    let mut run = Run::open(&config.training, &mut memory)?;
    let (weights, model) = Weights::load(config, &base(config), run.resumed_from(), &device())?;
    let info = RunInfo::of(&model, config.to_json());
    let mut batches = Batches::of_answers(rows, config.batch_options())?;
    let of_answers = |rows| Batches::of_answers(rows, config.eval_batch_options());
    let validation = validation.map(of_answers).transpose()?;
    let held_out = validation.as_ref();
    let result = match config.method.kind {
        RewardKind::Outcome => {
            outcome_reward(model, &weights, &mut batches, held_out, config, info, &mut run)
        }
        RewardKind::Process => {
            let tokenizer = RewardTokenizer::from_model(base(config))?;
            let convention = config.method.convention(model.config())?;
            let reading = convention.reading(&tokenizer, model.config())?;
            let read = (config, reading);
            process_reward(model, &weights, &mut batches, held_out, read, info, &mut run)
        }
    };
    run.end(result.as_ref().err(), None)?;
    let model = result?;
    if let Some(folder) = save {
        weights.save_final(&model, folder)?;
    }
    Ok((model, memory))
}

pub(crate) fn train(
    config: &RewardConfig,
    rows: Answers,
    validation: Option<Answers>,
) -> Result<(Decoder, Memory), Error> {
    train_and_save(config, rows, validation, None)
}
