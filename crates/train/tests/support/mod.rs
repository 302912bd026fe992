//! What several tests need: the fixtures, and an observer that remembers.
#![allow(dead_code, clippy::print_stdout, reason = "each test uses a part of it")]

pub(crate) mod answers;

use std::fs;
use std::path::{Path, PathBuf};

use posttrain_model::{Decoder, device};
use posttrain_train::config::{Document, SftConfig};
use posttrain_train::data::{Batches, RowId, Sample, Samples};
use posttrain_train::watch::{
    Checkpoint, EvalMetrics, Observer, RunInfo, StepMetrics, Summary, Warning,
};
use posttrain_train::{Error, Run, Weights, sft};
use serde_json::Value;

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// The device of `POSTTRAIN_DEVICE`, or the CPU.
pub(crate) fn device() -> burn::tensor::Device {
    device::choose(None).unwrap()
}

pub(crate) fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join(path)).unwrap()).unwrap()
}

/// The rows of `tests/fixtures/sft`, encoded by transformers.
pub(crate) fn samples() -> Samples {
    let mut samples = Samples::default();
    let lines = fs::read_to_string(fixtures().join("sft/encoded.jsonl")).unwrap();
    for (line, number) in lines.lines().zip(1..) {
        let row: Value = serde_json::from_str(line).unwrap();
        let numbers = |key: &str| -> Vec<u64> {
            row[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
        };
        let ids = numbers("ids").into_iter().map(|id| id as u32).collect();
        let trained = numbers("trained").into_iter().map(|trained| trained == 1).collect();
        samples.push(&Sample { ids, trained, row: RowId::new("rows.jsonl", number) }).unwrap();
    }
    samples
}

/// A configuration for the tiny model of `tests/fixtures/sft`, with settings in YAML over it.
pub(crate) fn config(output: &Path, settings: &str) -> SftConfig {
    let text = format!(
        "model: {}\ndata: rows.jsonl\noutput_dir: {}\nmax_length: 512\n\
         gradient_checkpointing: false\neval_strategy: 'no'\n{settings}",
        fixtures().join("sft/model").display(),
        output.display()
    );
    SftConfig::from_document(Document::parse("test.yaml", &text).unwrap()).unwrap()
}

/// Remembers what it is told.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) started: Option<RunInfo>,
    /// What was done before the first step, how much of it.
    pub(crate) progress: Vec<(String, u64, u64)>,
    pub(crate) steps: Vec<StepMetrics>,
    pub(crate) evaluations: Vec<EvalMetrics>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) summary: Option<Summary>,
}

impl Observer for Memory {
    fn start(&mut self, run: &RunInfo) -> Result<(), Error> {
        self.started = Some(run.clone());
        Ok(())
    }
    fn progress(&mut self, what: &str, done: u64, total: u64) -> Result<(), Error> {
        self.progress.push((what.to_owned(), done, total));
        Ok(())
    }
    fn step(&mut self, step: &StepMetrics) -> Result<(), Error> {
        self.steps.push(step.clone());
        Ok(())
    }
    fn evaluation(&mut self, evaluation: &EvalMetrics) -> Result<(), Error> {
        self.evaluations.push(evaluation.clone());
        Ok(())
    }
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.checkpoints.push(checkpoint.clone());
        Ok(())
    }
    fn warning(&mut self, warning: &Warning) -> Result<(), Error> {
        self.warnings.push(warning.clone());
        Ok(())
    }
    fn end(&mut self, summary: &Summary) -> Result<(), Error> {
        self.summary = Some(summary.clone());
        Ok(())
    }
}

/// Trains as the configuration says, on the rows given, and remembers.
pub(crate) fn train(
    config: &SftConfig,
    rows: Samples,
    validation: Option<Samples>,
) -> Result<(Decoder, Memory), Error> {
    let mut memory = Memory::default();
    let mut run = Run::open(&config.training, &mut memory)?;
    let base = PathBuf::from(config.model.name()?);
    let (weights, model) = Weights::load(config, &base, run.resumed_from(), &device())?;
    let mut batches = Batches::new(rows, config.batch_options())?;
    let validation =
        validation.map(|rows| Batches::new(rows, config.eval_batch_options())).transpose()?;
    let info = RunInfo::default();
    let result = sft(model, &weights, &mut batches, validation.as_ref(), config, info, &mut run);
    run.end(result.as_ref().err(), None)?;
    Ok((result?, memory))
}

/// The trained weights by name.
pub(crate) fn weights(model: &Decoder) -> Vec<(String, Vec<f32>)> {
    let mut found = Vec::new();
    let _ = model.clone().map_trainable(&mut |parameter, tensor| {
        let numbers = tensor.clone().into_data().convert::<f32>().iter::<f32>().collect();
        found.push((parameter.name.clone(), numbers));
        tensor
    });
    found
}

/// A weight by its name in a fixture.
pub(crate) fn named<'a>(
    found: &'a std::collections::BTreeMap<String, Vec<f32>>,
    name: &str,
) -> &'a [f32] {
    found.get(name).unwrap_or_else(|| panic!("no trained weight {name} among {:?}", found.keys()))
}

/// The rows of a fixture.
pub(crate) fn lines(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(fixtures().join(path)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Token ids of a row.
pub(crate) fn ids(row: &Value, key: &str) -> Vec<u32> {
    row[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Within 1e-4 of the number, or of `scale` where that is more.
pub(crate) fn close(found: f64, expected: f64, scale: f64, what: &str) {
    let distance = (found - expected).abs() / expected.abs().max(scale);
    assert!(distance <= 1e-4, "{what}: {found}, not {expected} ({distance:.1e})");
}

/// Trained weights within a thousandth of the largest of each tensor of a fixture; PEFT's keys may say
/// which adapter.
pub(crate) fn same_weights(model: &Decoder, path: &Path) {
    let found: std::collections::BTreeMap<_, _> = weights(model).into_iter().collect();
    let file = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    for (tensor, view) in file.tensors() {
        let numbers = view.data().chunks_exact(4);
        let expected: Vec<f32> =
            numbers.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        let name = tensor.trim_start_matches("base_model.model.").replace(".default", "");
        let scale = expected.iter().fold(0f32, |scale, x| scale.max(x.abs()));
        let found = named(&found, &name);
        let distance =
            found.iter().zip(&expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        let what = format!("{}: {tensor} is off by {:.1e}", path.display(), distance / scale);
        println!("{what}");
        assert!(distance <= 1e-3 * scale, "{what}");
    }
}

/// The largest difference of trained weights, relative to the largest of its tensor.
pub(crate) fn distance(a: &[(String, Vec<f32>)], b: &[(String, Vec<f32>)]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).map(|((name, a), (other, b))| {
        assert_eq!(name, other);
        let scale = a.iter().fold(1e-30f32, |scale, x| scale.max(x.abs()));
        a.iter().zip(b).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / scale
    });
    pairs.fold(0.0, f32::max)
}

/// Copies a folder of files.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
