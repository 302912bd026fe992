//! `SLiC` (Zhao et al. 2022, arXiv:2210.00045) with its loss over a ranked list; for two answers it is
//! `SLiC-HF` (Zhao et al. 2023, arXiv:2305.10425).
//!
//! ```text
//! L = Σ over (better i, worse j) max(0, δ (rank j − rank i) − log π(y_i) + log π(y_j)) + λ NLL
//! ```
//!
//! The sum is the mean over groups; the rank of an answer is how many are better. The NLL goes over
//! tokens of given targets, such as those of supervised fine-tuning.

use serde::{Deserialize, Serialize};

use super::batch::{Answer, Loss, nll};
use super::ranking::{self, Group};
use super::weight;
use crate::Error;

/// The names are those of the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slic {
    /// δ: the margin between neighbours.
    pub delta: f64,
    /// λ: the weight of the NLL.
    pub lambda: f64,
}

impl Default for Slic {
    fn default() -> Self {
        Self { delta: 1.0, lambda: 1.0 }
    }
}

impl Slic {
    /// That all values are in range.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of the first that is not.
    pub fn validate(&self) -> Result<(), Error> {
        weight("delta", self.delta)?;
        weight("lambda", self.lambda)
    }

    /// The loss of a batch of groups. The gradient is by each answer's sum. `targets`: the
    /// sequences of the NLL; not read if λ is 0.
    pub fn loss(&self, groups: &[Group], targets: &[Answer]) -> Loss<Vec<f64>> {
        let share = 1.0 / groups.len().max(1) as f64;
        let (mut loss, mut gradient) = (0.0, Vec::new());
        for group in groups {
            let mut by = vec![0.0; group.answers.len()];
            for (i, j) in group.pairs() {
                let margin = self.delta * (group.rank(j) - group.rank(i)) as f64;
                let short = margin - group.answers[i].sum + group.answers[j].sum;
                if short > 0.0 {
                    loss += share * short;
                    by[i] -= share;
                    by[j] += share;
                }
            }
            gradient.push(by);
        }
        let mut metrics = ranking::metrics(groups, |answer| answer.sum);
        let mut by_nll_token = 0.0;
        if self.lambda != 0.0 {
            let (nll, slope) = nll(targets);
            loss += self.lambda * nll;
            by_nll_token = self.lambda * slope;
            metrics.push(("nll_loss", nll));
        }
        Loss { loss, gradient, by_nll_token, metrics }
    }
}
