//! The events of a run: plain values, each complete in itself.
//!
//! Counts are those of one event, never running totals, so that a resumed run needs no counter of old ones
//! and any window of steps can be summed.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;

use super::extra::{Extras, prefixed};

/// What is known before the first step.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RunInfo {
    /// A title for people: `Llama-3.2-1B, LoRA r 16`.
    pub name: String,
    /// The resolved configuration.
    pub config: Json,
    /// What the model is and what of it is trained, in the order to be shown: `("parameters", "32 million")`.
    pub facts: Vec<(String, String)>,
    /// The data report as HTML, shown as it is; [`html`](super::html) and [`Bars`](super::chart::Bars) make it
    /// from values and texts.
    pub data_report: String,
    /// The step after which the run ends unless it is stopped before.
    pub total_steps: u64,
    /// The step of the checkpoint from which the run goes on; what was written of later steps is void.
    pub resumed_from: Option<u64>,
    /// When the run began, in seconds since 1970.
    pub started: u64,
}

/// One step of the optimizer.
///
/// Numbers that are not finite become `null` in JSON and NaN again when they are read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepMetrics {
    /// The step, from 1 on.
    pub step: u64,
    /// How often the data has been seen, with fraction.
    pub epoch: f64,
    /// The objective: the mean over the trained tokens, or the pairs, of all micro-batches of the step.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The global norm of the gradients before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// The learning rate that this step used.
    pub learning_rate: f64,
    /// Tokens that went through the model in this step, without padding.
    pub tokens: u64,
    /// Those of them that had a target with a loss.
    pub trained_tokens: u64,
    /// How long the step took, data, forward, backward and update together.
    pub seconds: f64,
    /// Mean negative log-likelihood of the trained tokens in nats. The same as `loss` for the plain
    /// objective, another number with label smoothing or DFT; none where nothing predicts tokens.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_or_nan")]
    pub nll: Option<f64>,
    /// Mean entropy of the predicted distributions at the trained tokens, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
    /// The share of trained tokens that had the highest probability, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_token_accuracy: Option<f64>,
    /// The share of the device's peak that the step reached, from 0 to 1; see [`mfu`](super::mfu).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// The most memory in use so far, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// The rows of the batch, by the names that the data gives them (`train.jsonl:17`).
    #[serde(skip)]
    pub rows: Vec<String>,
    /// What only some recipes have: `rewards/chosen`, `kl`, ...
    #[serde(flatten)]
    pub extra: Extras,
}

impl StepMetrics {
    /// `tokens / seconds`, 0 where no time was measured.
    pub fn tokens_per_second(&self) -> f64 {
        ratio(self.tokens as f64, self.seconds)
    }

    /// `trained_tokens / tokens`, 0 without tokens.
    pub fn trained_share(&self) -> f64 {
        ratio(self.trained_tokens as f64, self.tokens as f64)
    }

    /// `exp(nll)`, where that is known.
    pub fn perplexity(&self) -> Option<f64> {
        self.nll.map(f64::exp)
    }
}

/// One pass over the validation rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvalMetrics {
    /// The step after which it was made; 0 before the first.
    pub step: u64,
    /// How often the training data has been seen, with fraction.
    pub epoch: f64,
    /// The objective over all validation rows: for supervised fine-tuning the mean negative log-likelihood of
    /// their trained tokens, in nats.
    #[serde(deserialize_with = "null_is_nan")]
    pub eval_loss: f64,
    /// Tokens of the validation rows.
    pub tokens: u64,
    /// Those of them that have a target with a loss.
    pub trained_tokens: u64,
    /// How long it took.
    pub seconds: f64,
    /// Mean entropy of the predicted distributions, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_entropy: Option<f64>,
    /// The share of tokens that had the highest probability, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_mean_token_accuracy: Option<f64>,
    /// `exp` of the mean negative log-likelihood of the trained tokens; none where nothing predicts tokens.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_or_nan")]
    pub perplexity: Option<f64>,
    /// More to be read about it, as HTML for the report, which shows that of the last evaluation; a
    /// [`ScoreReport`](crate::reward::ScoreReport) makes some.
    #[serde(skip)]
    pub details: String,
    /// What only some recipes have; here without the `eval_` of the files.
    #[serde(flatten, with = "prefixed")]
    pub extra: Extras,
}

/// A checkpoint that is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The step after which it was made.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
    /// Whether it is the best so far.
    pub best: bool,
}

/// Something that a person should look at; the run goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// One loss far above those before it.
    LossSpike {
        /// The step.
        step: u64,
        /// Its loss.
        loss: f64,
        /// The median loss of the steps before it.
        usual: f64,
        /// How far above: `(loss - usual)` over the robust standard deviation of the steps before it.
        deviations: f64,
        /// The gradient norm of the step.
        grad_norm: f64,
        /// The median gradient norm of the steps before it.
        usual_grad_norm: f64,
        /// The rows of the batch.
        rows: Vec<String>,
        /// What to try if it happens again.
        suggested_learning_rate: f64,
    },
    /// One gradient far longer than those before it.
    GradNormSpike {
        /// The step.
        step: u64,
        /// Its gradient norm, before clipping.
        grad_norm: f64,
        /// The median gradient norm of the steps before it.
        usual: f64,
        /// The rows of the batch.
        rows: Vec<String>,
        /// What to try if it happens again.
        suggested_learning_rate: f64,
    },
    /// The smoothed loss rises.
    Divergence {
        /// The step at which it was noticed.
        step: u64,
        /// The smoothed loss at this step.
        smoothed: f64,
        /// The lowest smoothed loss so far.
        lowest: f64,
        /// The step of the lowest.
        lowest_step: u64,
        /// The rows of the batch.
        rows: Vec<String>,
        /// What to try instead.
        suggested_learning_rate: f64,
    },
    /// The margin of pairs grows while both of their answers become less likely. Each pair of numbers is where
    /// a fitted line begins and where it ends.
    LikelihoodDisplacement {
        /// The step at which it was noticed.
        step: u64,
        /// The steps over which it was seen.
        steps: u64,
        /// `rewards/margins`.
        margins: [f64; 2],
        /// `logps/chosen`.
        chosen: [f64; 2],
        /// `logps/rejected`.
        rejected: [f64; 2],
    },
    /// Anything else, in words.
    Other {
        /// The step; 0 before the first.
        step: u64,
        /// A sentence.
        message: String,
    },
}

impl Warning {
    /// The step at which it was noticed; 0 before the first.
    pub fn step(&self) -> u64 {
        match self {
            Self::LossSpike { step, .. }
            | Self::GradNormSpike { step, .. }
            | Self::Divergence { step, .. }
            | Self::LikelihoodDisplacement { step, .. }
            | Self::Other { step, .. } => *step,
        }
    }

    /// The rows of the batch, where the warning is about a batch.
    pub fn rows(&self) -> &[String] {
        match self {
            Self::LossSpike { rows, .. }
            | Self::GradNormSpike { rows, .. }
            | Self::Divergence { rows, .. } => rows,
            Self::LikelihoodDisplacement { .. } | Self::Other { .. } => &[],
        }
    }
}

/// One sentence without the rows, which may be many.
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LossSpike {
                step,
                loss,
                usual,
                deviations,
                grad_norm,
                usual_grad_norm,
                suggested_learning_rate,
                ..
            } => write!(
                f,
                "step {step}: the loss jumped to {loss:.4}, {deviations:.0} standard deviations above the usual \
                 {usual:.4} (gradient norm {grad_norm:.4}, usually {usual_grad_norm:.4}). Look at the rows of this \
                 batch; if it happens again, try a learning rate of {suggested_learning_rate:.2e}"
            ),
            Self::GradNormSpike { step, grad_norm, usual, suggested_learning_rate, .. } => write!(
                f,
                "step {step}: the gradient norm jumped to {grad_norm:.4}, {:.0} times the usual {usual:.4}. Look at \
                 the rows of this batch; if it happens again, try a learning rate of {suggested_learning_rate:.2e}",
                grad_norm / usual
            ),
            Self::Divergence {
                step,
                smoothed,
                lowest,
                lowest_step,
                suggested_learning_rate,
                ..
            } => write!(
                f,
                "step {step}: the loss rises; smoothed it is {smoothed:.4} after {lowest:.4} at step {lowest_step}. \
                 Try a learning rate of {suggested_learning_rate:.2e}"
            ),
            Self::LikelihoodDisplacement { step, steps, margins, chosen, rejected } => write!(
                f,
                "step {step}: the margin grew from {:.4} to {:.4} over {steps} steps while logps/chosen fell from \
                 {:.2} to {:.2} and logps/rejected from {:.2} to {:.2}: what the chosen answers lose goes to others \
                 (likelihood displacement, arXiv:2410.08847). Try an `sft` term beside the loss, a lower learning \
                 rate, or pairs whose answers differ more",
                margins[0], margins[1], chosen[0], chosen[1], rejected[0], rejected[1],
            ),
            Self::Other { step: 0, message } => f.write_str(message),
            Self::Other { step, message } => write!(f, "step {step}: {message}"),
        }
    }
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stop {
    /// All steps were made.
    #[default]
    Finished,
    /// The validation metric has not improved for as long as `early_stopping_patience` allows.
    Early,
    /// Somebody asked for it.
    Interrupted,
    /// An error, in words.
    Failed(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Early => f.write_str("stopped early"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

/// What is known after the last step. Counts and time are those of this process, without what a resumed
/// run had done before.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The last step.
    pub step: u64,
    /// Why the run ended.
    pub stop: Stop,
    /// The mean loss over the steps.
    pub train_loss: f64,
    /// Tokens that went through the model in training.
    pub tokens: u64,
    /// Those of them that had a target with a loss.
    pub trained_tokens: u64,
    /// How long it took, with evaluations and checkpoints.
    pub seconds: f64,
    /// The best validation metric and its step.
    pub best: Option<(f64, u64)>,
    /// The most memory in use, in bytes.
    pub peak_memory: Option<u64>,
    /// Where the final model or adapter is.
    pub output: Option<PathBuf>,
}

/// A sentence or two.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, stop, train_loss, tokens, trained_tokens, seconds, .. } = self;
        write!(
            f,
            "{stop} after step {step}: mean loss {train_loss:.4}, {tokens} tokens ({trained_tokens} trained) \
             in {seconds:.1} s"
        )?;
        if let Some((best, step)) = self.best {
            write!(f, "; best evaluation {best:.4} at step {step}")?;
        }
        match &self.output {
            Some(output) => write!(f, "; {}", output.display()),
            None => Ok(()),
        }
    }
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// JSON has no NaN: `serde_json` writes `null` for what is not finite.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// The same for what may be absent: `null` was there.
fn some_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    null_is_nan(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_numbers() {
        let step = StepMetrics {
            tokens: 200,
            trained_tokens: 50,
            seconds: 0.5,
            nll: Some(2f64.ln()),
            ..StepMetrics::default()
        };
        assert_eq!(step.tokens_per_second(), 400.0);
        assert_eq!(step.trained_share(), 0.25);
        assert!((step.perplexity().unwrap() - 2.0).abs() < 1e-15);
        assert_eq!(StepMetrics::default().tokens_per_second(), 0.0);
        assert_eq!(StepMetrics::default().perplexity(), None);
    }

    #[test]
    fn what_is_not_finite_is_null_and_comes_back() {
        let (loss, grad_norm, nll) = (f64::NAN, f64::INFINITY, Some(f64::NAN));
        let step = StepMetrics { loss, grad_norm, nll, ..StepMetrics::default() };
        let text = serde_json::to_string(&step).unwrap();
        assert!(text.contains(r#""loss":null,"grad_norm":null"#), "{text}");
        let read: StepMetrics = serde_json::from_str(&text).unwrap();
        assert!(read.loss.is_nan() && read.grad_norm.is_nan());
        assert!(read.nll.is_some_and(f64::is_nan));
    }

    /// Written by 0.1.0 before recipes had metrics of their own.
    #[test]
    fn old_lines_are_read() {
        let line = r#"{"step":1,"epoch":0.5,"loss":1.5,"grad_norm":0.25,"learning_rate":0.00002,"tokens":100,"trained_tokens":40,"seconds":0.5,"nll":1.25,"tokens_per_second":200.0,"trained_share":0.4,"perplexity":3.4903429574618414}"#;
        let step: StepMetrics = serde_json::from_str(line).unwrap();
        assert_eq!((step.nll, step.extra.is_empty()), (Some(1.25), true));
        let line = r#"{"step":5,"epoch":0.25,"eval_loss":0.5,"tokens":20,"trained_tokens":10,"seconds":1.5,"eval_entropy":0.75,"perplexity":1.6487212707001282}"#;
        let evaluation: EvalMetrics = serde_json::from_str(line).unwrap();
        assert_eq!((evaluation.step, evaluation.eval_entropy), (5, Some(0.75)));
        assert!((evaluation.perplexity.unwrap() - 0.5_f64.exp()).abs() < 1e-12);
        assert!(evaluation.extra.is_empty());
    }

    #[test]
    fn warnings_are_sentences_and_json() {
        let warning = Warning::LossSpike {
            step: 7,
            loss: 9.5,
            usual: 2.0,
            deviations: 31.2,
            grad_norm: 40.0,
            usual_grad_norm: 0.5,
            rows: vec!["a.jsonl:3".into()],
            suggested_learning_rate: 1e-5,
        };
        assert_eq!(
            warning.to_string(),
            "step 7: the loss jumped to 9.5000, 31 standard deviations above the usual 2.0000 (gradient norm \
             40.0000, usually 0.5000). Look at the rows of this batch; if it happens again, try a learning rate \
             of 1.00e-5"
        );
        let text = serde_json::to_string(&warning).unwrap();
        assert!(text.starts_with(r#"{"kind":"loss_spike","step":7,"loss":9.5"#), "{text}");
        assert_eq!(serde_json::from_str::<Warning>(&text).unwrap(), warning);
        let displaced = Warning::LikelihoodDisplacement {
            step: 120,
            steps: 100,
            margins: [0.125, 0.75],
            chosen: [-210.0, -230.5],
            rejected: [-215.0, -260.25],
        };
        assert!(
            displaced.to_string().starts_with(
                "step 120: the margin grew from 0.1250 to 0.7500 over 100 steps while logps/chosen fell from -210.00 \
                 to -230.50 and logps/rejected from -215.00 to -260.25: "
            ),
            "{displaced}"
        );
        let text = serde_json::to_string(&displaced).unwrap();
        assert!(text.starts_with(r#"{"kind":"likelihood_displacement","step":120"#), "{text}");
        assert_eq!(serde_json::from_str::<Warning>(&text).unwrap(), displaced);
        let other = Warning::Other { step: 0, message: "3 rows are longer than max_length".into() };
        assert_eq!(other.to_string(), "3 rows are longer than max_length");
    }
}
