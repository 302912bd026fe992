//! The settings that every way of training shares, with the names and defaults of transformers'
//! `TrainingArguments` where it has them.

use std::path::PathBuf;

use posttrain_model::Activations;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::Error;
use crate::data::BatchOptions;
use crate::watch::Selection;

/// How long, how much at a time, what is watched and what is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingArguments {
    /// Where everything is written.
    pub output_dir: PathBuf,
    /// Rows of a forward pass; of packed rows where rows are packed.
    pub per_device_train_batch_size: usize,
    /// Rows of a forward pass of an evaluation.
    pub per_device_eval_batch_size: usize,
    /// Forward passes of a step.
    pub gradient_accumulation_steps: usize,
    /// Passes over the rows; a fraction ends within one.
    pub num_train_epochs: f64,
    /// The learning rate, at its highest.
    pub learning_rate: f64,
    /// Steps, whatever the epochs; −1 goes by the epochs.
    pub max_steps: i64,
    /// The largest norm of all gradients together; 0 does not clip.
    pub max_grad_norm: f64,
    /// Keeps only the inputs of the layers and computes the rest anew.
    pub gradient_checkpointing: bool,
    /// Of everything random.
    pub seed: u64,
    /// Of the order of the rows, if it is another.
    pub data_seed: Option<u64>,
    /// Decay of the exponential moving average of the trained weights; none without it.
    pub ema_decay: Option<f64>,
    /// When the validation rows are evaluated.
    #[serde(deserialize_with = "when")]
    pub eval_strategy: When,
    /// Steps between evaluations; `save_steps` without it.
    pub eval_steps: Option<u64>,
    /// When a checkpoint is written.
    #[serde(deserialize_with = "when")]
    pub save_strategy: When,
    /// Steps between checkpoints.
    pub save_steps: u64,
    /// How many checkpoints are kept, beside the best; all without it.
    pub save_total_limit: Option<usize>,
    /// Ends with the weights of the checkpoint with the best evaluation.
    pub load_best_model_at_end: bool,
    /// What the best checkpoint is best in: a value of the evaluations.
    pub metric_for_best_model: String,
    /// Whether more is better; as the metric wants it without a choice.
    pub greater_is_better: Option<bool>,
    /// Evaluations without an improvement after which training ends.
    pub early_stopping_patience: Option<u64>,
    /// The least improvement that counts.
    pub early_stopping_threshold: f64,
    /// Goes on with the newest checkpoint of `output_dir` (true), or with a given one.
    pub resume_from_checkpoint: Resume,
    /// Moves what an earlier run left in `output_dir` out of the way.
    pub overwrite_output_dir: bool,
    /// Highest arithmetic rate of the device in FLOP/s, for the MFU; [`peak_flops`](crate::watch::peak_flops)
    /// knows those of many.
    pub device_peak_flops: Option<f64>,
    /// Memory of the device in bytes, for the planner: only the host's is known by itself.
    pub device_memory: Option<u64>,
}

impl Default for TrainingArguments {
    fn default() -> Self {
        Self {
            output_dir: PathBuf::new(),
            per_device_train_batch_size: 8,
            per_device_eval_batch_size: 8,
            gradient_accumulation_steps: 1,
            num_train_epochs: 3.0,
            learning_rate: 2e-5,
            max_steps: -1,
            max_grad_norm: 1.0,
            gradient_checkpointing: true,
            seed: 42,
            data_seed: None,
            ema_decay: None,
            eval_strategy: When::Epoch,
            eval_steps: None,
            save_strategy: When::Steps,
            save_steps: 500,
            save_total_limit: None,
            load_best_model_at_end: false,
            metric_for_best_model: "eval_loss".into(),
            greater_is_better: None,
            early_stopping_patience: None,
            early_stopping_threshold: 0.0,
            resume_from_checkpoint: Resume::default(),
            overwrite_output_dir: false,
            device_peak_flops: None,
            device_memory: None,
        }
    }
}

/// When something is done beside the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Never.
    No,
    /// Every so many steps.
    Steps,
    /// At the end of each epoch.
    Epoch,
}

/// An unquoted `no` is YAML's `false`.
fn when<'de, D: Deserializer<'de>>(deserializer: D) -> Result<When, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Bool(false) => Ok(When::No),
        other => When::deserialize(other).map_err(D::Error::custom),
    }
}

/// Which checkpoint a run goes on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Resume {
    /// The newest of `output_dir`, or none.
    Newest(bool),
    /// This one.
    From(PathBuf),
}

impl Default for Resume {
    fn default() -> Self {
        Self::Newest(false)
    }
}

impl TrainingArguments {
    pub(super) fn validate(&self) -> Result<(), Error> {
        let at_least_one = [
            ("per_device_train_batch_size", self.per_device_train_batch_size as u64),
            ("per_device_eval_batch_size", self.per_device_eval_batch_size as u64),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps as u64),
            ("save_steps", self.save_steps),
            ("eval_steps", self.eval_steps.unwrap_or(1)),
            ("save_total_limit", self.save_total_limit.unwrap_or(1) as u64),
        ];
        for (key, value) in at_least_one {
            if value == 0 {
                return Err(Error::config(key, value, "at least 1"));
            }
        }
        if self.output_dir.as_os_str().is_empty() {
            return Err(Error::config("output_dir", "missing", "a folder to write to"));
        }
        let epochs = self.num_train_epochs;
        if self.max_steps <= 0 && !(epochs.is_finite() && epochs > 0.0) {
            return Err(Error::config("num_train_epochs", epochs, "above 0, or `max_steps`"));
        }
        if self.max_steps == 0 || self.max_steps < -1 {
            return Err(Error::config("max_steps", self.max_steps, "at least 1, or -1"));
        }
        let rate = self.learning_rate;
        if !(rate.is_finite() && rate > 0.0) {
            return Err(Error::config("learning_rate", rate, "above 0"));
        }
        if !(self.max_grad_norm.is_finite() && self.max_grad_norm >= 0.0) {
            return Err(Error::config("max_grad_norm", self.max_grad_norm, "0 or more"));
        }
        if let Some(decay) = self.ema_decay.filter(|decay| !(0.0..1.0).contains(decay)) {
            return Err(Error::config("ema_decay", decay, "from 0 to below 1"));
        }
        self.selection()?;
        let watched = self.early_stopping_patience.is_some() || self.load_best_model_at_end;
        if watched && self.eval_strategy == When::No {
            let expected = "`steps` or `epoch`, for early stopping and the best checkpoint";
            return Err(Error::config("eval_strategy", "no", expected));
        }
        if self.load_best_model_at_end && !self.best_is_saved() {
            let expected = "a checkpoint wherever `eval_strategy` evaluates, for \
                            `load_best_model_at_end`";
            return Err(Error::config("save_strategy", "another than that", expected));
        }
        Ok(())
    }

    /// Whether a checkpoint is written wherever the model is evaluated.
    fn best_is_saved(&self) -> bool {
        self.save_strategy == self.eval_strategy
            && (self.save_strategy != When::Steps
                || self.eval_every().is_multiple_of(self.save_steps))
    }

    /// Steps between evaluations.
    pub fn eval_every(&self) -> u64 {
        self.eval_steps.unwrap_or(self.save_steps)
    }

    /// The rule for the best checkpoint and for early stopping.
    ///
    /// # Errors
    /// [`Error::Config`] as [`Selection::new`] has it; whether the evaluations of a recipe have the metric is
    /// known to the recipe ([`Selection::check`]).
    pub fn selection(&self) -> Result<Selection, Error> {
        Selection::new(
            &self.metric_for_best_model,
            self.greater_is_better,
            self.early_stopping_patience,
            self.early_stopping_threshold,
        )
    }

    /// The largest norm of the gradients; infinite where nothing is clipped.
    pub fn max_norm(&self) -> f64 {
        if self.max_grad_norm == 0.0 { f64::INFINITY } else { self.max_grad_norm }
    }

    /// What the backward pass keeps.
    pub fn activations(&self) -> Activations {
        if self.gradient_checkpointing { Activations::Recompute } else { Activations::Keep }
    }

    /// How rows of at most `max_length` tokens become batches.
    pub(super) fn batch_options(&self, max_length: usize) -> BatchOptions {
        BatchOptions {
            per_device_train_batch_size: self.per_device_train_batch_size,
            gradient_accumulation_steps: self.gradient_accumulation_steps,
            num_train_epochs: self.num_train_epochs,
            max_steps: u64::try_from(self.max_steps).ok(),
            max_length: Some(max_length),
            seed: self.order_seed(),
            ..BatchOptions::default()
        }
    }

    /// How validation rows become batches, given how training rows do.
    pub(super) fn eval_batch_options(&self, training: BatchOptions) -> BatchOptions {
        BatchOptions {
            per_device_train_batch_size: self.per_device_eval_batch_size,
            gradient_accumulation_steps: 1,
            ..training
        }
    }

    /// The seed of the order of the rows.
    pub fn order_seed(&self) -> u64 {
        self.data_seed.unwrap_or(self.seed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::{Document, SftConfig};

    #[test]
    fn no_may_stand_without_quotes_and_a_misspelt_word_has_a_suggestion() {
        let read =
            |text: &str| Document::parse("run.yaml", text).unwrap().section::<TrainingArguments>();
        for text in ["eval_strategy: no", "eval_strategy: 'no'", "eval_strategy: false"] {
            assert_eq!(read(text).unwrap().eval_strategy, When::No, "{text}");
        }
        assert_eq!(read("save_strategy: epoch").unwrap().save_strategy, When::Epoch);
        let error = read("save_strategy: stps").unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("did you mean `steps`?"), "{error}");
        assert!(read("eval_strategy: true").is_err());
    }

    #[test]
    fn a_metric_that_the_evaluations_do_not_have_is_refused_before_the_run() {
        let read = |metric: &str| {
            let text = "model: m\ndata: d.jsonl\noutput_dir: o\n";
            let text = format!("{text}metric_for_best_model: {metric}\n");
            SftConfig::from_document(Document::parse("run.yaml", &text).unwrap())
        };
        assert!(read("eval_mean_token_accuracy").is_ok());
        let error = read("rewards/accuracies").unwrap_err().to_string();
        assert_eq!(
            error,
            "`metric_for_best_model` is eval_rewards/accuracies, expected one of eval_loss, eval_perplexity, \
             eval_entropy, eval_mean_token_accuracy"
        );
    }
}
