//! Settings, rows and runs of a few steps.

use std::path::{Path, PathBuf};

use posttrain_model::{Batch, Decoder, Targets};
use posttrain_train::config::{Document, PreferenceConfig};
use posttrain_train::data::{Answers, Batches, Sample};
use posttrain_train::watch::RunInfo;
use posttrain_train::{Error, Run, Weights, preference};
use serde_json::Value;

pub(crate) use crate::support::answers::{extra, numbers, pairs};
use crate::support::answers::{made, text};
use crate::support::{Memory, device, fixtures, ids, lines};

pub(crate) const NEW_ADAPTER: &str = "lora={r: 4, target_modules: all-linear}";

/// Settings for the tiny model of `tests/fixtures/sft`, each as `--set` takes it.
pub(crate) fn config(output: &Path, sets: &[&str]) -> PreferenceConfig {
    try_config(output, sets).unwrap()
}

pub(crate) fn try_config(output: &Path, sets: &[&str]) -> Result<PreferenceConfig, Error> {
    let text = format!(
        "model: {}\ndata: rows.jsonl\noutput_dir: {}\nmax_length: 512\nlearning_rate: 2e-3\n\
         gradient_checkpointing: false\neval_strategy: 'no'\nsave_strategy: 'no'\nmax_steps: 4\n\
         per_device_train_batch_size: 2\nlr_scheduler_type: constant\n",
        fixtures().join("sft/model").display(),
        output.display()
    );
    let mut document = Document::parse("preference.yaml", &text)?;
    for set in sets {
        document.set(set)?;
    }
    PreferenceConfig::from_document(document)
}

/// The setting of the fixture's adapter.
pub(crate) fn adapter() -> String {
    format!("adapter={}", fixtures().join("sft/adapter").display())
}

/// Pairs with a gold answer: the better one without its last words.
pub(crate) fn triples(rows: std::ops::Range<usize>) -> Answers {
    made(rows, |[prompt, chosen, rejected], line| {
        let gold = &chosen[..chosen.len() - 2];
        [chosen, rejected, gold].map(|answer| (text(prompt, answer, line), vec![])).to_vec()
    })
}

/// Three answers with scores, the best in the middle.
pub(crate) fn rankings(rows: std::ops::Range<usize>) -> Answers {
    made(rows, |[prompt, chosen, rejected], line| {
        let worst = [&rejected[..2], &chosen[..2]].concat();
        vec![
            (text(prompt, rejected, line), vec![0.5]),
            (text(prompt, chosen, line), vec![2.0]),
            (text(prompt, &worst, line), vec![-1.0]),
        ]
    })
}

/// Good and bad answers, each on its own.
pub(crate) fn labelled(rows: std::ops::Range<usize>) -> Answers {
    let mut answers = Answers::default();
    let all = lines("preference_runs/encoded_kto.jsonl");
    for line in rows {
        let [prompt, answer] = ["prompt_ids", "completion_ids"].map(|key| ids(&all[line], key));
        let label = f64::from(u8::from(all[line]["label"].as_bool().unwrap()));
        answers.push(&[(text(&prompt, &answer, line as u64 + 1), vec![label])]).unwrap();
    }
    answers
}

/// Trains, evaluates on other rows where there are some, and remembers.
pub(crate) fn train(
    config: &PreferenceConfig,
    rows: Answers,
    validation: Option<Answers>,
) -> Result<(Decoder, Memory), Error> {
    let batches = Batches::of_answers(rows, config.batch_options())?;
    let of_answers = |rows| Batches::of_answers(rows, config.eval_batch_options());
    train_on(config, batches, validation.map(of_answers).transpose()?)
}

pub(crate) fn train_on(
    config: &PreferenceConfig,
    mut batches: Batches,
    validation: Option<Batches>,
) -> Result<(Decoder, Memory), Error> {
    let mut memory = Memory::default();
    let mut run = Run::open(&config.training, &mut memory)?;
    let base = PathBuf::from(config.model.name()?);
    let (weights, model) = Weights::load(config, &base, run.resumed_from(), &device())?;
    let info = RunInfo::of(&model, config.to_json());
    let validation = validation.as_ref();
    let result = preference(model, &weights, &mut batches, validation, config, info, &mut run);
    run.end(result.as_ref().err(), None)?;
    Ok((result?, memory))
}

/// Σ log p of the answer of every text under a model, each text in a batch of its own.
pub(crate) fn by_hand(model: &Decoder, rows: &Answers) -> Vec<f64> {
    let texts = 0..rows.texts().len();
    let of = |text: usize| {
        let Sample { ids, trained, .. } = rows.texts().sample(text);
        let batch = Batch::padded(&[&ids], 0).unwrap();
        let targets = Targets::masked(&batch, &trained).unwrap();
        let found = model.logprobs(model.forward(&batch), &targets).logprobs.into_data();
        found.convert::<f32>().iter::<f32>().map(f64::from).sum()
    };
    texts.map(of).collect()
}

/// The tiny model in a folder of its own, with another configuration.
pub(crate) fn model_with(folder: &Path, change: impl Fn(&mut Value)) -> PathBuf {
    let to = folder.join("other-model");
    crate::support::copy(&fixtures().join("sft/model"), &to);
    let path = to.join("config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(&path, json.to_string()).unwrap();
    to
}
