//! KTO (Ethayarajh et al. 2024, arXiv:2402.01306, equation 7) and APO-zero for answers without a
//! partner (D'Oosterlinck et al. 2024, arXiv:2408.06266).
//!
//! ```text
//! u = log π(y) − log π_ref(y)
//! kto:                good  w₊ (1 − s(β (u − z))),   bad  w₋ (1 − s(β (z − u)))
//! apo_zero_unpaired:  good  w₊ (1 − s(β u)),         bad  w₋ s(β u)
//! ```
//!
//! L is the mean over the batch. z is [`reference_point`], held fixed.

use serde::{Deserialize, Serialize};

use super::batch::{Answer, AnswerGradient, Loss, Metrics};
use super::maths::{mean, sigmoid, sigmoid_slope};
use super::{positive, weight};
use crate::Error;

/// The losses by TRL's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KtoType {
    /// Against the reference point.
    #[default]
    Kto,
    /// Without one.
    ApoZeroUnpaired,
}

/// Names and defaults are those of TRL's `KTOConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kto {
    /// Which of the two.
    pub loss_type: KtoType,
    /// How strongly the policy is held to the reference, above 0.
    pub beta: f64,
    /// w₊
    pub desirable_weight: f64,
    /// w₋
    pub undesirable_weight: f64,
}

impl Default for Kto {
    fn default() -> Self {
        let loss_type = KtoType::Kto;
        Self { loss_type, beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0 }
    }
}

/// z = `max(0, mean(log π(y) − log π_ref(y)))` over answers y to other prompts.
///
/// TRL pairs each prompt of the batch with the next one's answer. That needs two rows at least.
pub fn reference_point(policy: &[f64], reference: &[f64]) -> f64 {
    assert_eq!(policy.len(), reference.len(), "answers under policy and reference");
    mean(policy.iter().zip(reference).map(|(p, q)| p - q)).max(0.0)
}

impl Kto {
    /// That all values are in range.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of the first that is not.
    pub fn validate(&self) -> Result<(), Error> {
        positive("beta", self.beta)?;
        weight("desirable_weight", self.desirable_weight)?;
        weight("undesirable_weight", self.undesirable_weight)
    }

    /// What to change where the weights do not balance so many good and bad answers: the authors want
    /// w₊ n₊ between 1 and 4/3 of w₋ n₋ (section 4.2).
    pub fn balance(&self, good: usize, bad: usize) -> Option<String> {
        let (up, down) =
            (self.desirable_weight * good as f64, self.undesirable_weight * bad as f64);
        if good == 0 || bad == 0 {
            let kind = if good == 0 { "good" } else { "bad" };
            return Some(format!("no answer is {kind}: nothing tells what is to be learned"));
        }
        let ratio = up / down;
        if (1.0 - 1e-9..=4.0 / 3.0 + 1e-9).contains(&ratio) {
            return None;
        }
        let least = down / good as f64;
        let most = up / bad as f64;
        Some(format!(
            "{good} good and {bad} bad answers with their weights are {ratio:.2} to 1, and the authors \
             of KTO want 1 to 1.33: try a desirable_weight from {least:.2} to {:.2}, or an \
             undesirable_weight from {:.2} to {most:.2}",
            least * 4.0 / 3.0,
            most * 0.75
        ))
    }

    /// The loss of a batch; `good` are the labels. `apo_zero_unpaired` does not read `z`.
    pub fn loss(
        &self,
        policy: &[Answer],
        reference: &[Answer],
        good: &[bool],
        z: f64,
    ) -> Loss<AnswerGradient> {
        assert_eq!(policy.len(), reference.len(), "answers under policy and reference");
        assert_eq!(policy.len(), good.len(), "answers and labels");
        let share = 1.0 / policy.len().max(1) as f64;
        let z = match self.loss_type {
            KtoType::Kto => z,
            KtoType::ApoZeroUnpaired => 0.0,
        };
        let (mut loss, mut gradient, mut rewards) = (0.0, Vec::new(), Vec::new());
        for ((p, q), &good) in policy.iter().zip(reference).zip(good) {
            let u = p.sum - q.sum;
            let x = self.beta * (u - z);
            let (weight, sign) =
                if good { (self.desirable_weight, 1.0) } else { (self.undesirable_weight, -1.0) };
            loss += share * weight * sigmoid(-sign * x);
            let sum = -share * weight * sign * self.beta * sigmoid_slope(x);
            gradient.push(AnswerGradient { sum, tail: 0.0 });
            rewards.push(self.beta * u);
        }
        let mut metrics = labelled_metrics(&rewards, policy, good);
        if self.loss_type == KtoType::Kto {
            metrics.push(("kl", z));
        }
        Loss { loss, gradient, by_nll_token: 0.0, metrics }
    }
}

/// Means over good and over bad answers; those of a kind that is missing are left out.
pub(super) fn labelled_metrics(rewards: &[f64], policy: &[Answer], good: &[bool]) -> Metrics {
    let of = |numbers: &mut dyn Iterator<Item = f64>, which: bool| {
        mean(numbers.zip(good).filter(|it| *it.1 == which).map(|it| it.0))
    };
    let mut metrics = Vec::new();
    let names = [("rewards/chosen", "logps/chosen"), ("rewards/rejected", "logps/rejected")];
    for ((reward, logps), which) in names.into_iter().zip([true, false]) {
        if good.contains(&which) {
            metrics.push((reward, of(&mut rewards.iter().copied(), which)));
            metrics.push((logps, of(&mut policy.iter().map(|answer| answer.sum), which)));
        }
    }
    if let [("rewards/chosen", c), _, (_, r), _] = metrics[..] {
        metrics.push(("rewards/margins", c - r));
    }
    metrics
}
