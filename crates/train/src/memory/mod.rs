//! How much memory a run will need, before anything is loaded.
//!
//! Weights, gradients and the state of the optimizer are counted, tensor by tensor. Activations are
//! estimated from what the operations of the model keep for their backward pass.

mod activations;
mod advice;
mod host;
mod weights;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use posttrain_model::checkpoint::Dtype;
use posttrain_model::config::Config;
use posttrain_model::loops::rows_at_a_time;
use posttrain_model::quant::Quantization;
use posttrain_model::{Activations, Parameter};
use serde::Serialize;

pub use advice::Trial;
pub use host::host_memory;
pub use weights::all_parameters;

use crate::error::Error;
use crate::optim::OptimizerConfig;

/// What memory depends on, beside the model.
#[derive(Clone, Debug, PartialEq)]
pub struct MemorySettings {
    /// The type of matrices.
    pub dtype: Dtype,
    /// The type of hidden states and vectors: f32 on the CPU, elsewhere that of the matrices.
    pub compute: Dtype,
    /// How frozen linear layers are held, where it is in few bits.
    pub quantization: Option<Quantization>,
    /// The model's own tensors, each trained or not ([`all_parameters`], or those of a decoder), or
    /// an adapter's ([`LoraConfig::parameters`](posttrain_model::adapter::LoraConfig::parameters)).
    pub parameters: Vec<Parameter>,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Whether an average of the weights is kept.
    pub ema: bool,
    /// What is kept to compare with.
    pub reference: Reference,
    /// Sequences of one pass.
    pub per_device_train_batch_size: usize,
    /// Passes of one step.
    pub gradient_accumulation_steps: usize,
    /// Tokens of a sequence: the longest row, or the length of packed ones.
    pub max_length: usize,
    /// What the backward pass keeps of the forward pass.
    pub activations: Activations,
}

impl MemorySettings {
    /// Whether an adapter is trained, whose tensors are beside the model's.
    fn is_adapter(&self) -> bool {
        self.parameters.iter().any(|parameter| weights::is_update(&parameter.name))
    }

    /// The tensors that are trained.
    fn trained(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(|parameter| parameter.trainable)
    }
}

/// What a recipe keeps in memory to compare its model with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reference {
    /// Nothing, or weights that the model has anyway.
    #[default]
    Shared,
    /// So many copies of what is trained.
    Copies(u64),
    /// Another model of the same size.
    Model,
}

/// Bytes by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// All weights, those of an adapter included.
    pub weights: u64,
    /// Sums of gradients, in f32.
    pub gradients: u64,
    /// The state of the optimizer, and f32 masters of narrower weights.
    pub optimizer: u64,
    /// An average of the weights.
    pub ema: u64,
    /// A reference of its own.
    pub reference: u64,
    /// What is kept of the forward pass.
    pub activations: u64,
    /// Logits of the rows that are projected at a time, with their gradient.
    pub logits: u64,
    /// Gradients of the activations of one layer while they are made, and with activations computed
    /// anew those of its weights.
    pub working: u64,
    /// Gradients of a pass behind the first of a window, before they are added to the sums.
    pub pass_gradients: u64,
}

impl Plan {
    /// The estimate for a model and settings.
    ///
    /// # Errors
    /// Those of [`OptimizerConfig::validate`] and [`Quantization::matrices`].
    pub fn new(config: &Config, settings: &MemorySettings) -> Result<Self, Error> {
        let count = |p: &Parameter| p.count() as u64;
        let dtype = |p: &Parameter| weights::type_of(settings, p);
        let gradients: u64 = settings.trained().map(|p| 4 * count(p)).sum();
        let mut optimizer = 0;
        for p in settings.trained() {
            optimizer += settings.optimizer.state_bytes(p, weights::on_device(dtype(p)))?;
        }
        let pass = activations::of(config, settings);
        // Where there are sums already, what a pass finds is beside them: all of it, or with
        // activations computed anew that of one layer or matrix.
        let found = settings.trained().filter(|_| settings.gradient_accumulation_steps > 1);
        let found = found.map(|p| (p.name.as_str(), count(p) * weights::size_of(dtype(p))));
        let (one_layer, pass_gradients) = match settings.activations {
            Activations::Keep => (0, found.map(|(_, bytes)| bytes).sum()),
            Activations::Recompute => (largest_part(found), 0),
        };
        let tokens = (settings.per_device_train_batch_size * settings.max_length) as u64;
        let rows = tokens.min(rows_at_a_time(config.vocab_size) as u64);
        let rows = if config.has_logits() { rows } else { 0 };
        let trained =
            settings.trained().map(|p| count(p) * weights::size_of(dtype(p))).sum::<u64>();
        let weights = weights::bytes(config, settings)?;
        Ok(Self {
            weights,
            gradients,
            optimizer,
            ema: if settings.ema { gradients } else { 0 },
            reference: match settings.reference {
                Reference::Shared => 0,
                Reference::Copies(copies) => copies * trained,
                Reference::Model => weights,
            },
            activations: pass.kept,
            logits: 4 * rows * config.vocab_size as u64,
            working: pass.working + one_layer,
            pass_gradients,
        })
    }

    /// The most that is needed at a time: logits are gone when the backward pass of the layers
    /// begins, and activations are when all its gradients are found.
    pub fn total(&self) -> u64 {
        let lasting = self.weights + self.gradients + self.optimizer + self.ema + self.reference;
        let pass = self.activations + self.logits.max(self.working);
        lasting + pass.max(self.pass_gradients)
    }

    /// What to change to fit into `limit` bytes: nothing where this plan does, otherwise one change
    /// after the other, each with those before it, up to the first that fits. Where the last does not
    /// fit either, none of these changes is enough.
    ///
    /// # Errors
    /// Those of [`Plan::new`].
    pub fn advice(
        config: &Config,
        settings: &MemorySettings,
        limit: u64,
    ) -> Result<Vec<Trial>, Error> {
        if Self::new(config, settings)?.total() <= limit {
            return Ok(Vec::new());
        }
        advice::trials(config, settings, limit)
    }

    /// The plan and, where it does not fit, what would, as text.
    ///
    /// # Errors
    /// Those of [`Plan::new`].
    pub fn text(
        config: &Config,
        settings: &MemorySettings,
        limit: Option<u64>,
    ) -> Result<String, Error> {
        let plan = Self::new(config, settings)?;
        let mut text = plan.to_string();
        let Some(limit) = limit else { return Ok(text) };
        let verdict = if plan.total() <= limit { "enough" } else { "not enough" };
        let _ = writeln!(text, "{:<12} {:>10}  {verdict}", "there is", shown(limit));
        let trials = Self::advice(config, settings, limit)?;
        for (index, Trial { change, total, fits }) in trials.iter().enumerate() {
            let and = if index == 0 { "with" } else { "and" };
            let fits = if *fits { ", which fits" } else { "" };
            let _ = writeln!(text, "{and} {change}: {}{fits}", shown(*total));
        }
        if trials.last().is_some_and(|last| !last.fits) {
            text += "none of this is enough: take a smaller model or a shorter max_length\n";
        }
        Ok(text)
    }
}

/// Bytes of the layer, embedding, norm or head with the most.
fn largest_part<'a>(gradients: impl Iterator<Item = (&'a str, u64)>) -> u64 {
    let mut parts = BTreeMap::<&str, u64>::new();
    for (name, bytes) in gradients {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
        *parts.entry(layer.unwrap_or(name)).or_default() += bytes;
    }
    parts.into_values().max().unwrap_or(0)
}

/// A table.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, bytes) in [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("ema", self.ema),
            ("reference", self.reference),
            ("activations", self.activations),
            ("logits", self.logits),
            ("working", self.working),
            ("pass", self.pass_gradients),
            ("at a time", self.total()),
        ] {
            writeln!(f, "{name:<12} {:>10}", shown(bytes))?;
        }
        Ok(())
    }
}

/// Bytes for people.
fn shown(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}
