//! What passes find for their tokens, added up.

use posttrain_model::{CrossEntropy, Scored};

use crate::data::Window;
use crate::watch::StepMetrics;

/// What the passes of a step, or of an evaluation, found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// The objective, as the passes weighted it.
    pub loss: f64,
    /// Trained tokens.
    pub targets: u64,
    /// Σ −log p over them.
    pub nll: f64,
    /// Σ of the entropies.
    pub entropy: f64,
    /// How many had the highest probability.
    pub top1: u64,
}

impl Found {
    /// Adds a pass.
    pub fn add(&mut self, pass: &CrossEntropy) {
        self.loss += pass.loss;
        self.add_tokens(&pass.logprobs, &pass.entropy, &pass.top1);
    }

    /// Adds the tokens of a pass; its loss is the caller's to add.
    pub fn add_scored(&mut self, pass: &Scored<'_>) {
        self.add_tokens(&pass.logprobs, &pass.entropy, &pass.top1);
    }

    fn add_tokens(&mut self, logprobs: &[f32], entropy: &[f32], top1: &[bool]) {
        let sum = |numbers: &[f32]| numbers.iter().copied().map(f64::from).sum::<f64>();
        self.targets += logprobs.len() as u64;
        self.nll -= sum(logprobs);
        self.entropy += sum(entropy);
        self.top1 += top1.iter().filter(|&&top1| top1).count() as u64;
    }

    /// −log p, entropy and accuracy, for each trained token.
    pub fn means(&self) -> (f64, f64, f64) {
        let count = self.targets.max(1) as f64;
        (self.nll / count, self.entropy / count, self.top1 as f64 / count)
    }

    /// As the metrics of a step; gradient norm and learning rate are the recipe's to say.
    pub fn metrics(&self, window: &Window) -> StepMetrics {
        let (nll, entropy, accuracy) = self.means();
        StepMetrics {
            loss: self.loss,
            nll: Some(nll),
            entropy: Some(entropy),
            mean_token_accuracy: Some(accuracy),
            ..window.metrics()
        }
    }
}

impl Window {
    /// What the data says of the metrics of a step.
    pub(crate) fn metrics(&self) -> StepMetrics {
        let rows = self.micro_batches.iter().flat_map(|batch| batch.rows.iter().flatten());
        StepMetrics {
            step: self.step,
            epoch: self.epoch,
            tokens: self.tokens as u64,
            trained_tokens: self.trained_tokens as u64,
            rows: rows.map(ToString::to_string).collect(),
            ..StepMetrics::default()
        }
    }
}

impl std::ops::AddAssign for Found {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.targets += other.targets;
        self.nll += other.nll;
        self.entropy += other.entropy;
        self.top1 += other.top1;
    }
}
