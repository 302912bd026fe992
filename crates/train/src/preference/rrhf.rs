//! RRHF (Yuan et al. 2023, arXiv:2304.05302): a ranking of any number of answers.
//!
//! ```text
//! p = log π(y)/|y|
//! L = w Σ over (better i, worse j) max(0, p_j − p_i) − log π(y_best)/|y_best|
//! ```
//!
//! L is the mean over groups. The NLL of the best answer is a mean over its tokens, as in the
//! authors' code; the paper's equation has the sum.

use serde::{Deserialize, Serialize};

use super::batch::Loss;
use super::ranking::{Group, metrics};
use super::weight;
use crate::{Error, preference::batch::Answer};

/// The name is that of the authors' code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rrhf {
    /// w: the weight of the ranking.
    pub rrhf_weight: f64,
}

impl Default for Rrhf {
    fn default() -> Self {
        Self { rrhf_weight: 1.0 }
    }
}

impl Rrhf {
    /// That all values are in range.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of the first that is not.
    pub fn validate(&self) -> Result<(), Error> {
        weight("rrhf_weight", self.rrhf_weight)
    }

    /// The loss of a batch of groups, none of them empty. The gradient is by each answer's sum.
    pub fn loss(&self, groups: &[Group]) -> Loss<Vec<f64>> {
        let share = 1.0 / groups.len().max(1) as f64;
        let (mut loss, mut gradient) = (0.0, Vec::new());
        for group in groups {
            let answers = &group.answers;
            let mut by = vec![0.0; answers.len()];
            for (i, j) in group.pairs() {
                let wrong = answers[j].average() - answers[i].average();
                if wrong > 0.0 {
                    loss += share * self.rrhf_weight * wrong;
                    by[i] -= share * self.rrhf_weight / answers[i].length();
                    by[j] += share * self.rrhf_weight / answers[j].length();
                }
            }
            let best = group.best();
            loss -= share * answers[best].average();
            by[best] -= share / answers[best].length();
            gradient.push(by);
        }
        Loss { loss, gradient, by_nll_token: 0.0, metrics: metrics(groups, Answer::average) }
    }
}
