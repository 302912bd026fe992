//! Adapter folders that PEFT wrote, with the batch and the numbers that it found.

use std::path::{Path, PathBuf};

use posttrain_model::adapter::LoraConfig;
use posttrain_model::{
    Activations, Batch, Decoder, Gradients, LoadOptions, Noise, Objective, Targets,
};

use super::{Expected, device, distance, models, numbers};

const PREFIX: &str = "base_model.model.";

pub(crate) fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A base model with its batch, and what PEFT says.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) base: Decoder,
    pub(crate) batch: Batch,
    pub(crate) expected: Expected,
    folder: PathBuf,
    lengths: Vec<usize>,
}

impl Case {
    pub(crate) fn open(folder: &Path, options: &LoadOptions) -> Self {
        let config = json(&folder.join("adapter_config.json"));
        let base = config["base_model_name_or_path"].as_str().unwrap();
        let base = match base.strip_prefix("tiny/") {
            Some(name) => models().join(name),
            None => folder.join(base),
        };
        let base = Decoder::load_with(base, &device(), options).unwrap();
        let expected = Expected::read(&folder.join("expected.safetensors"));
        let ((ids, shape), (lengths, _)) = (expected.ids("ids"), expected.ids("lengths"));
        let lengths: Vec<usize> = lengths.into_iter().map(|length| length as usize).collect();
        let rows: Vec<&[u32]> =
            ids.chunks(shape[1]).zip(&lengths).map(|(row, &length)| &row[..length]).collect();
        let batch = Batch::padded(&rows, 0).unwrap();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        Self { name, base, batch, lengths, expected, folder: folder.into() }
    }

    /// The base with the adapter of the folder.
    pub(crate) fn adapted(&self) -> Decoder {
        let mut model = self.base.clone();
        model.load_adapter(&self.folder, "default").unwrap();
        model
    }

    pub(crate) fn config(&self) -> LoraConfig {
        serde_json::from_value(json(&self.folder.join("adapter_config.json"))).unwrap()
    }

    /// The logits at places that are not padding.
    pub(crate) fn logits(&self, model: &Decoder) -> Vec<f32> {
        self.unpadded(&numbers(model.logits(model.forward(&self.batch))))
    }

    pub(crate) fn unpadded(&self, logits: &[f32]) -> Vec<f32> {
        let vocab = self.base.config().vocab_size;
        let rows = logits.chunks(self.batch.time() * vocab).zip(&self.lengths);
        rows.flat_map(|(row, &length)| row[..length * vocab].iter().copied()).collect()
    }

    pub(crate) fn known_logits(&self, name: &str) -> Vec<f32> {
        self.unpadded(&self.expected.floats(name).0)
    }

    /// Logits are compared as parts of the largest. Where PEFT decomposes a matrix it does so in f32;
    /// there the same in f64 is known too, and PEFT itself need not be nearer to it.
    pub(crate) fn assert_logits(&self, found: &[f32], name: &str) {
        let off = self.distance(found, name);
        let exact = format!("exact_{name}");
        let known = self.expected.names().contains(&exact);
        let from_exact = if known { self.distance(found, &exact) } else { off };
        println!("{:20} {name:16} {off:.1e} {from_exact:.1e}", self.name);
        let limit = if known { 1e-4 } else { 1e-5 };
        assert!(off < limit, "{}: {name} is off by {off:e}", self.name);
        assert!(from_exact < 1e-5, "{}: {exact} is off by {from_exact:e}", self.name);
    }

    pub(crate) fn distance(&self, found: &[f32], name: &str) -> f32 {
        let known = self.known_logits(name);
        distance(found, &known) / known.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()))
    }

    /// Loss and gradients of training, with all activations or those of one layer.
    pub(crate) fn assert_gradients(&self, model: &Decoder, noise: Option<Noise>) {
        let (name, expected) = (&self.name, &self.expected);
        let targets = Targets::all(&self.batch);
        let weights = vec![1.0 / targets.len() as f32; targets.len()];
        let hidden = model.forward_with(&self.batch, noise);
        self.assert_logits(&self.unpadded(&numbers(model.logits(hidden))), "logits");
        let mut known: Vec<(String, Vec<f32>)> = expected
            .names()
            .iter()
            .filter_map(|key| {
                let parameter = parameter_of(key.strip_prefix("gradient.")?);
                Some((parameter, expected.floats(key).0))
            })
            .collect();
        known.sort_by(|a, b| a.0.cmp(&b.0));
        let trained = model.parameters().into_iter().filter(|parameter| parameter.trainable);
        let mut trained: Vec<String> = trained.map(|parameter| parameter.name).collect();
        trained.sort();
        assert_eq!(trained, known.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        for activations in [Activations::Keep, Activations::Recompute] {
            let mut gradients = Gradients::default();
            model.backward(&self.batch, noise, activations, &mut gradients, |hidden, gradients| {
                let nll = Objective::Nll;
                let found = model.cross_entropy(hidden, &targets, &weights, nll, Some(gradients));
                let loss = f64::from(expected.floats("loss").0[0]);
                assert!((found.loss / loss - 1.0).abs() < 1e-5, "{name}: {} {loss}", found.loss);
                found.by_hidden.unwrap()
            });
            let found: Vec<&str> = gradients.iter().map(|(name, _)| name).collect();
            assert_eq!(found, trained, "{name}");
            let mut worst = 0.0_f32;
            for (parameter, known) in &known {
                let found = numbers(gradients.get(parameter).unwrap().clone());
                let largest = known.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                let off = distance(&found, known) / largest;
                assert!(off < 1e-4, "{name}: gradient of {parameter} is off by {off:e}");
                worst = worst.max(off);
            }
            println!("{name:20} gradients {worst:.1e}");
        }
    }
}

/// The name of a parameter here, given PEFT's key of it.
fn parameter_of(key: &str) -> String {
    key.strip_prefix(PREFIX).unwrap().replace(".base_layer.bias", ".bias")
}

/// The folder of a case of `tests/fixtures/adapters`.
pub(crate) fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/adapters").join(case)
}
