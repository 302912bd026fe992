//! Supervised fine-tuning: which tokens are trained, and by which objective.

use posttrain_chat::TrainedTurns;
use posttrain_model::Objective;
use serde::{Deserialize, Serialize};

use super::{Method, SftConfig};
use crate::Error;
use crate::data::{BatchOptions, Packing, RowOptions, SamplingStrategy};

/// What the evaluations of supervised fine-tuning measure.
const MEASURED: [&str; 4] = ["loss", "perplexity", "entropy", "mean_token_accuracy"];

/// The settings of supervised fine-tuning, with TRL's names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the switches that users know from TRL")]
pub struct SftArguments {
    /// Of conversations only the assistant's turns are trained; else every token.
    pub assistant_only_loss: bool,
    /// Which of the assistant's turns, with `assistant_only_loss`: `flagged` (all that are not flagged with
    /// weight 0), `all` or `last`.
    pub trained_turns: TrainedTurns,
    /// Of prompt and completion only the completion is trained; by default so where rows have both.
    pub completion_only_loss: Option<bool>,
    /// Puts several rows into one of `max_length` tokens; they do not see each other.
    pub packing: bool,
    /// How rows are put together.
    pub packing_strategy: Packing,
    /// Puts the rows of a pass behind each other instead of filling them up; they do not see each other.
    pub padding_free: bool,
    /// Whether validation rows are packed, too; as the training rows without it.
    pub eval_packing: Option<bool>,
    /// The order of the rows.
    pub train_sampling_strategy: SamplingStrategy,
    /// Shuffles the rows once, before they are packed.
    pub shuffle_dataset: bool,
    /// What is minimised.
    pub loss_type: LossType,
    /// Share of the target's probability that is spread over the vocabulary (Szegedy et al. 2016,
    /// arXiv:1512.00567); with `nll`.
    pub label_smoothing_factor: f32,
    /// α of NEFTune's noise on the embeddings (Jain et al. 2023, arXiv:2310.05914).
    pub neftune_noise_alpha: Option<f32>,
}

impl Default for SftArguments {
    fn default() -> Self {
        Self {
            assistant_only_loss: false,
            trained_turns: TrainedTurns::Flagged,
            completion_only_loss: None,
            packing: false,
            packing_strategy: Packing::Bfd,
            padding_free: false,
            eval_packing: None,
            train_sampling_strategy: SamplingStrategy::Random,
            shuffle_dataset: false,
            loss_type: LossType::Nll,
            label_smoothing_factor: 0.0,
            neftune_noise_alpha: None,
        }
    }
}

/// What is minimised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossType {
    /// −log p of the next token.
    #[default]
    Nll,
    /// −p log p with the factor held fixed: dynamic fine-tuning (Wu et al. 2025, arXiv:2508.05629).
    Dft,
}

impl SftArguments {
    /// Which turns of a conversation are trained.
    pub fn turns(&self) -> TrainedTurns {
        if self.assistant_only_loss { self.trained_turns } else { TrainedTurns::Everything }
    }

    /// The objective.
    ///
    /// # Errors
    /// [`Error::Config`] for label smoothing out of range or with another loss than `nll`.
    pub fn objective(&self) -> Result<Objective, Error> {
        let smoothing = self.label_smoothing_factor;
        if !(0.0..1.0).contains(&smoothing) {
            let expected = "from 0 to below 1";
            return Err(Error::config("label_smoothing_factor", smoothing, expected));
        }
        match self.loss_type {
            LossType::Nll if smoothing == 0.0 => Ok(Objective::Nll),
            LossType::Nll => Ok(Objective::LabelSmoothing(smoothing)),
            LossType::Dft if smoothing == 0.0 => Ok(Objective::Dft),
            LossType::Dft => {
                let expected = "0 with `loss_type: dft`";
                Err(Error::config("label_smoothing_factor", smoothing, expected))
            }
        }
    }
}

impl Method for SftArguments {
    const LEARNING_RATE: f64 = 2e-5;

    fn validate(&self, settings: &SftConfig) -> Result<(), Error> {
        settings.training.selection()?.check(&MEASURED)?;
        if let Some(alpha) = self.neftune_noise_alpha.filter(|a| !(a.is_finite() && *a >= 0.0)) {
            return Err(Error::config("neftune_noise_alpha", alpha, "0 or more"));
        }
        self.objective().map(drop)
    }
}

impl SftConfig {
    /// How rows become token ids.
    pub fn row_options(&self) -> RowOptions {
        let mut options = RowOptions::default();
        options.chat.max_length = Some(self.data.max_length);
        options.chat.truncation = self.data.truncation_mode;
        options.chat.turns = self.method.turns();
        options.completion_only_loss = self.method.completion_only_loss.unwrap_or(true);
        options.bad_rows = self.data.untrained_rows;
        options.packing = self.packing();
        options
    }

    /// How rows share sequences.
    pub fn packing(&self) -> Option<Packing> {
        self.method.packing.then_some(self.method.packing_strategy)
    }

    /// How rows become batches.
    pub fn batch_options(&self) -> BatchOptions {
        BatchOptions {
            packing: self.packing(),
            padding_free: self.method.padding_free,
            shuffle_dataset: self.method.shuffle_dataset,
            train_sampling_strategy: self.method.train_sampling_strategy,
            ..self.training.batch_options(self.data.max_length)
        }
    }

    /// How validation rows become batches.
    pub fn eval_batch_options(&self) -> BatchOptions {
        let packed = self.method.eval_packing.unwrap_or(self.method.packing);
        let packing = packed.then_some(self.method.packing_strategy);
        self.training.eval_batch_options(BatchOptions { packing, ..self.batch_options() })
    }
}
