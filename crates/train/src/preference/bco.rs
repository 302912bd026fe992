//! BCO for answers without a partner (Jung et al. 2024, arXiv:2404.04656), as TRL 1.13, the last to
//! have its trainer, computes it.
//!
//! ```text
//! u = β (log π(y) − log π_ref(y))
//! good  −log s(u − δ),   bad  −log s(−(u − δ))
//! ```
//!
//! L is the mean over the batch. δ is the mean of all rewards u seen in training, those of the
//! batch among them, and held fixed. The weights of TRL for bad answers, which need embeddings
//! of prompts (`prompt_sample_size`), are not here.

use serde::{Deserialize, Serialize};

use super::batch::{Answer, AnswerGradient, Loss};
use super::kto::labelled_metrics;
use super::maths::{sigmoid, softplus};
use super::positive;
use crate::Error;
use crate::watch::exact;

/// Names and defaults are those of TRL's `BCOConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bco {
    /// How strongly the policy is held to the reference, above 0.
    pub beta: f64,
}

impl Default for Bco {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// δ: the running mean of rewards. A checkpoint has to keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// The mean; 0 before the first batch. In files it is a text that keeps every bit.
    #[serde(with = "exact")]
    pub mean: f64,
    /// Over how many answers.
    pub count: u64,
}

impl Shift {
    /// Takes in the rewards of a batch, before its loss. Not in evaluation.
    pub fn update(&mut self, rewards: &[f64]) {
        self.count += rewards.len() as u64;
        if self.count > 0 {
            let off: f64 = rewards.iter().map(|reward| reward - self.mean).sum();
            self.mean += off / self.count as f64;
        }
    }
}

impl Bco {
    /// That all values are in range.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of the first that is not.
    pub fn validate(&self) -> Result<(), Error> {
        positive("beta", self.beta)
    }

    /// u of each answer.
    pub fn rewards(&self, policy: &[Answer], reference: &[Answer]) -> Vec<f64> {
        assert_eq!(policy.len(), reference.len(), "answers under policy and reference");
        policy.iter().zip(reference).map(|(p, q)| self.beta * (p.sum - q.sum)).collect()
    }

    /// The loss of a batch; `good` are the labels.
    pub fn loss(
        &self,
        policy: &[Answer],
        reference: &[Answer],
        good: &[bool],
        shift: Shift,
    ) -> Loss<AnswerGradient> {
        let rewards = self.rewards(policy, reference);
        assert_eq!(rewards.len(), good.len(), "answers and labels");
        let share = 1.0 / rewards.len().max(1) as f64;
        let (mut loss, mut gradient) = (0.0, Vec::new());
        for (u, &good) in rewards.iter().zip(good) {
            let sign = if good { 1.0 } else { -1.0 };
            let x = sign * (u - shift.mean);
            loss += share * softplus(-x);
            gradient
                .push(AnswerGradient { sum: -share * sign * self.beta * sigmoid(-x), tail: 0.0 });
        }
        let mut metrics = labelled_metrics(&rewards, policy, good);
        metrics.push(("delta", shift.mean));
        Loss { loss, gradient, by_nll_token: 0.0, metrics }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// A decimal fraction that is read quickly may be off in its last bit.
    #[test]
    fn a_shift_comes_back_as_it_was_written() {
        for mean in [0.206_549_314_377_237_45, -1.0 / 3.0, 1e-17, 0.0] {
            let shift = Shift { mean, count: 7 };
            let text = serde_json::to_string(&shift).unwrap();
            let read: Shift = serde_json::from_str(&text).unwrap();
            assert_eq!((read.mean.to_bits(), read.count), (mean.to_bits(), 7), "{text}");
        }
    }
}
