//! Preference alignment: by which loss, and against which reference.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Method, Settings};
use crate::Error;
use crate::data::{BatchOptions, RowOptions, SamplingStrategy};
use crate::memory::Reference;
use crate::preference::{KtoType, LossType, PreferenceLoss};

/// The settings of preference alignment.
pub type PreferenceConfig = Settings<PreferenceArguments>;

/// The section of preference alignment, with TRL's names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PreferenceArguments {
    /// The loss, with its own settings: `{type: dpo, beta: 0.1}`.
    pub loss: PreferenceLoss,
    /// The order of the rows.
    pub train_sampling_strategy: SamplingStrategy,
    /// Shuffles the rows once, before everything else.
    pub shuffle_dataset: bool,
    /// Trains without the dropout of adapters, so that the policy is the model that is compared with
    /// its reference. With dropout prompts are computed for each answer.
    pub disable_dropout: bool,
    /// A checkpoint to compare with, where that is not the model as it is before the first step.
    pub ref_model: Option<String>,
    /// Computes the log-probabilities of the reference once, before the first step, and forgets the
    /// reference.
    pub precompute_ref_log_probs: bool,
    /// Where they are kept; `ref_log_probs.safetensors` in `output_dir` without it. A file that was
    /// made of another model, other rows or another template is refused.
    pub ref_log_probs: Option<PathBuf>,
    /// Lets the reference follow the policy (Gorbatovski et al. 2024, TR-DPO, arXiv:2404.09656).
    pub sync_ref_model: bool,
    /// α of π_ref ← α π + (1 − α) π_ref.
    pub ref_model_mixup_alpha: f64,
    /// Steps between two of these.
    pub ref_model_sync_steps: u64,
}

impl Default for PreferenceArguments {
    fn default() -> Self {
        Self {
            loss: PreferenceLoss::default(),
            train_sampling_strategy: SamplingStrategy::Random,
            shuffle_dataset: false,
            disable_dropout: true,
            ref_model: None,
            precompute_ref_log_probs: false,
            ref_log_probs: None,
            sync_ref_model: false,
            ref_model_mixup_alpha: 0.6,
            ref_model_sync_steps: 512,
        }
    }
}

impl Method for PreferenceArguments {
    const LEARNING_RATE: f64 = 1e-6;

    fn reference(&self, new_adapter: bool) -> Reference {
        if !self.loss.has_reference() || self.precompute_ref_log_probs {
            Reference::Shared
        } else if self.sync_ref_model {
            Reference::Copies(2)
        } else if self.ref_model.is_some() {
            Reference::Model
        } else if new_adapter {
            Reference::Shared
        } else {
            Reference::Copies(1)
        }
    }

    fn validate(&self, settings: &Settings<Self>) -> Result<(), Error> {
        self.loss.validate().map_err(|error| within("loss", error))?;
        if let Some(measured) = self.loss.measured() {
            settings.training.selection()?.check(&measured)?;
        }
        let asked = [
            ("ref_model", self.ref_model.is_some()),
            ("precompute_ref_log_probs", self.precompute_ref_log_probs),
            ("sync_ref_model", self.sync_ref_model),
        ];
        let refuse = |key: &str, expected: &str| Err(Error::config(key, "given", expected));
        if let Some((key, _)) = asked.iter().find(|(_, asked)| *asked && !self.loss.has_reference())
        {
            return refuse(key, "nothing: this loss has no reference");
        }
        if self.ref_log_probs.is_some() && !self.precompute_ref_log_probs {
            return refuse("ref_log_probs", "`precompute_ref_log_probs: true` with it");
        }
        if self.sync_ref_model {
            if self.precompute_ref_log_probs || self.ref_model.is_some() {
                return refuse("sync_ref_model", "neither `ref_model` nor computing it before");
            }
            if settings.peft.lora.is_some() || settings.model.adapter.is_some() {
                return refuse(
                    "sync_ref_model",
                    "full fine-tuning: an adapter's base stays as it is",
                );
            }
            let alpha = self.ref_model_mixup_alpha;
            if !(alpha > 0.0 && alpha < 1.0) {
                return Err(Error::config("ref_model_mixup_alpha", alpha, "above 0 and below 1"));
            }
            if self.ref_model_sync_steps == 0 {
                return Err(Error::config("ref_model_sync_steps", 0, "at least 1"));
            }
        }
        let batch = settings.training.per_device_train_batch_size;
        let rows = settings
            .training
            .per_device_train_batch_size
            .min(settings.training.per_device_eval_batch_size);
        match &self.loss {
            PreferenceLoss::Kto(kto) if kto.loss_type == KtoType::Kto && rows < 2 => {
                let expected = "at least 2, in training and evaluation, for kto: the reference point is \
                                made of the answers of other prompts of the pass";
                Err(Error::config("per_device_train_batch_size", rows, expected))
            }
            PreferenceLoss::Kto(kto)
                if kto.loss_type == KtoType::Kto && self.precompute_ref_log_probs =>
            {
                refuse("precompute_ref_log_probs", "false for kto: each pass has pairs of its own")
            }
            PreferenceLoss::Dpo(dpo) if batch < 2 && dpo.loss_type.iter().any(sorts) => {
                let expected =
                    "at least 2 for aot and aot_unpaired, which compare the pairs of a pass";
                Err(Error::config("per_device_train_batch_size", batch, expected))
            }
            _ => Ok(()),
        }
    }
}

fn sorts(kind: &LossType) -> bool {
    matches!(kind, LossType::Aot | LossType::AotUnpaired)
}

/// An error of a value of a section, under the section's key.
fn within(section: &str, error: Error) -> Error {
    match error {
        Error::Config { key, found, expected } => {
            Error::Config { key: format!("{section}.{key}"), found, expected }
        }
        other => other,
    }
}

impl PreferenceConfig {
    /// How rows become token ids.
    pub fn row_options(&self) -> RowOptions {
        let mut options = RowOptions::default();
        options.chat.max_length = Some(self.data.max_length);
        options.chat.truncation = self.data.truncation_mode;
        options.chat.turns = posttrain_chat::TrainedTurns::Everything;
        options.bad_rows = self.data.untrained_rows;
        options
    }

    /// How rows become batches.
    pub fn batch_options(&self) -> BatchOptions {
        BatchOptions {
            shuffle_dataset: self.method.shuffle_dataset,
            train_sampling_strategy: self.method.train_sampling_strategy,
            ..self.training.batch_options(self.data.max_length)
        }
    }

    /// How validation rows become batches.
    pub fn eval_batch_options(&self) -> BatchOptions {
        BatchOptions {
            per_device_train_batch_size: self.training.per_device_eval_batch_size,
            gradient_accumulation_steps: 1,
            ..self.batch_options()
        }
    }

    /// Where the log-probabilities of the reference are kept.
    pub fn ref_log_probs(&self) -> PathBuf {
        let default = || self.training.output_dir.join("ref_log_probs.safetensors");
        self.method.ref_log_probs.clone().unwrap_or_else(default)
    }
}
