//! What a user says about the optimizer.

use burn::tensor::DType;
use posttrain_model::Parameter;
use serde::{Deserialize, Serialize};

use super::adafactor::Adafactor;
use super::adamw::AdamW;
use super::arguments::Arguments;
use super::lion::Lion;
use super::muon::Muon;
use super::rule::Rule;
use super::sgd::Sgd;
use crate::Error;

/// The optimizer, by the name that transformers has for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OptimizerName {
    /// AdamW as PyTorch computes it (Loshchilov & Hutter 2019, arXiv:1711.05101).
    #[default]
    #[serde(rename = "adamw_torch", alias = "adamw_torch_fused")]
    AdamW,
    /// AdamW whose state takes one byte a number (Dettmers et al. 2022, arXiv:2110.02861).
    #[serde(rename = "adamw_8bit", alias = "adamw_bnb_8bit")]
    AdamW8Bit,
    /// Adafactor as transformers computes it (Shazeer & Stern 2018, arXiv:1804.04235).
    #[serde(rename = "adafactor")]
    Adafactor,
    /// Lion (Chen et al. 2023, arXiv:2302.06675). As in transformers its betas are `adam_beta1`
    /// and `adam_beta2`; the paper's are 0.9 and 0.99.
    #[serde(rename = "lion_32bit", alias = "lion")]
    Lion,
    /// Muon as PyTorch computes it, for the matrices between embedding and head; AdamW for the
    /// rest. The one name here that transformers does not have.
    #[serde(rename = "muon")]
    Muon,
    /// Stochastic gradient descent.
    #[serde(rename = "sgd")]
    Sgd,
}

impl OptimizerName {
    /// The name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdamW => "adamw_torch",
            Self::AdamW8Bit => "adamw_8bit",
            Self::Adafactor => "adafactor",
            Self::Lion => "lion_32bit",
            Self::Muon => "muon",
            Self::Sgd => "sgd",
        }
    }
}

/// The optimizer and its settings. Names and defaults are those of transformers'
/// `TrainingArguments`, `loraplus_*` those of PEFT's `create_loraplus_optimizer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Which optimizer.
    pub optim: OptimizerName,
    /// Settings of the chosen optimizer alone, `key=value` with commas between:
    /// - `sgd`: `momentum` (0), `dampening` (0), `nesterov` (false);
    /// - `muon`: `momentum` (0.95), `nesterov` (true), `ns_steps` (5), `eps` (1e-7),
    ///   `adjust_lr_fn` (`original`, `match_rms_adamw` or `spectral_unclamped`);
    /// - `adafactor`: `clip_threshold` (1), `decay_rate` (-0.8), `beta1` (none),
    ///   `scale_parameter` (false), `relative_step` (false), `warmup_init` (false).
    pub optim_args: Option<String>,
    /// λ of the weight decay. Biases and norms are not decayed.
    pub weight_decay: f64,
    /// β₁ of Adam and Lion.
    pub adam_beta1: f64,
    /// β₂ of Adam and Lion.
    pub adam_beta2: f64,
    /// ε of Adam.
    pub adam_epsilon: f64,
    /// LoRA+ (Hayou et al. 2024, arXiv:2402.12354): how much faster B and vectors learn than A.
    pub loraplus_lr_ratio: Option<f64>,
    /// The learning rate of adapters of the embeddings under LoRA+.
    pub loraplus_lr_embedding: f64,
    /// Learning rates of parts of the model. The first pattern that matches a parameter's name
    /// counts; each has to match one.
    pub learning_rate_groups: Vec<RateGroup>,
}

/// Parameters that learn faster or slower than the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateGroup {
    /// A regular expression, looked for anywhere in the name: `layers\.[0-7]\.`.
    pub pattern: String,
    /// Factor of the learning rate.
    pub factor: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            optim: OptimizerName::AdamW,
            optim_args: None,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            loraplus_lr_ratio: None,
            loraplus_lr_embedding: 1e-6,
            learning_rate_groups: Vec::new(),
        }
    }
}

impl OptimizerConfig {
    /// Checks every value; [`super::Optimizer::new`] does so too.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is out of range, an argument that the optimizer does not
    /// have, or a pattern that is none.
    pub fn validate(&self) -> Result<(), Error> {
        if self.rule()?.has_its_own_rate() {
            let (key, expected) = ("optim_args.relative_step", "false beside other learning rates");
            if !self.learning_rate_groups.is_empty() || self.loraplus_lr_ratio.is_some() {
                return Err(Error::config(key, true, expected));
            }
        }
        at_least_zero("weight_decay", self.weight_decay)?;
        if let Some(ratio) = self.loraplus_lr_ratio {
            above_zero("loraplus_lr_ratio", ratio)?;
        }
        at_least_zero("loraplus_lr_embedding", self.loraplus_lr_embedding)?;
        super::groups::patterns(self).map(drop)
    }

    /// The bytes that the optimizer holds for a parameter of this type: its state, and the f32
    /// master of a weight that is narrower.
    ///
    /// # Errors
    /// Those of [`OptimizerConfig::validate`].
    pub fn state_bytes(&self, parameter: &Parameter, dtype: DType) -> Result<u64, Error> {
        let rule = self.rule()?.of(parameter);
        let parts = rule.parts(&parameter.shape);
        let state: usize = parts.iter().map(super::rule::Part::bytes).sum();
        let master = if dtype == DType::F32 { 0 } else { 4 * parameter.count() };
        Ok((state + master) as u64)
    }

    /// The chosen optimizer with its settings.
    pub(super) fn rule(&self) -> Result<Rule, Error> {
        beta("adam_beta1", self.adam_beta1)?;
        beta("adam_beta2", self.adam_beta2)?;
        at_least_zero("adam_epsilon", self.adam_epsilon)?;
        let (beta1, beta2) = (self.adam_beta1, self.adam_beta2);
        let adamw = AdamW { beta1, beta2, epsilon: self.adam_epsilon };
        let mut arguments = Arguments::parse(self.optim_args.as_deref().unwrap_or_default())?;
        let rule = match self.optim {
            OptimizerName::AdamW => Rule::AdamW(adamw),
            OptimizerName::AdamW8Bit => Rule::AdamW8Bit(adamw),
            OptimizerName::Adafactor => Rule::Adafactor(Adafactor::new(&mut arguments)?),
            OptimizerName::Lion => Rule::Lion(Lion { beta1, beta2 }),
            OptimizerName::Muon => Rule::Muon(Muon::new(&mut arguments)?, adamw),
            OptimizerName::Sgd => Rule::Sgd(Sgd::new(&mut arguments)?),
        };
        arguments.finish(self.optim.name())?;
        Ok(rule)
    }
}

/// 0 ≤ β < 1.
pub(super) fn beta(key: &str, value: f64) -> Result<(), Error> {
    check((0.0..1.0).contains(&value), key, value, "at least 0 and below 1")
}

pub(super) fn at_least_zero(key: &str, value: f64) -> Result<(), Error> {
    check(value >= 0.0 && value.is_finite(), key, value, "at least 0")
}

pub(super) fn above_zero(key: &str, value: f64) -> Result<(), Error> {
    check(value > 0.0 && value.is_finite(), key, value, "above 0")
}

pub(super) fn check(ok: bool, key: &str, value: f64, expected: &str) -> Result<(), Error> {
    if ok { Ok(()) } else { Err(Error::config(key, value, expected)) }
}
