//! Triple preference optimisation (Saeidi et al. 2024, arXiv:2405.16681): a pair and a gold answer.
//!
//! ```text
//! x = log π(y) (sigmoid, hinge) or log π(y)/|y| (ipo, tpo-l),   d = x(y_c) − x(y_r)
//! sigmoid:  −(1 − ε) log s(β d) − ε log s(−β d)
//! tpo-l:    the same with d − γ/β
//! hinge:    max(0, 1 − β d)
//! ipo:      (d − 1/(2β))²
//! L = mean over pairs + tpo_alpha · NLL of the gold answers
//! ```
//!
//! The NLL is a mean over tokens, as in TRL 1.16.

use serde::{Deserialize, Serialize};

use super::batch::{Answer, Loss, Pair, PairGradient, nll, pair_metrics};
use super::dpo::{hinge, ipo, sigmoid};
use super::{positive, smoothing, weight};
use crate::Error;

/// The losses by TRL's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TpoType {
    /// TPO.
    #[default]
    Sigmoid,
    /// The hinge of `SLiC`.
    Hinge,
    /// IPO without a reference.
    Ipo,
    /// TPO-L: over lengths and with a margin.
    TpoL,
}

/// Names and defaults are those of TRL's `TPOConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tpo {
    /// Which of them.
    pub loss_type: TpoType,
    /// The scale of the difference, above 0.
    pub beta: f64,
    /// ε: the probability that a label is wrong.
    pub label_smoothing: f64,
    /// The weight of the NLL.
    pub tpo_alpha: f64,
    /// γ: the margin of `tpo-l`.
    pub tpo_l_gamma: f64,
}

impl Default for Tpo {
    fn default() -> Self {
        let loss_type = TpoType::Sigmoid;
        Self { loss_type, beta: 0.01, label_smoothing: 0.0, tpo_alpha: 1.0, tpo_l_gamma: 0.5 }
    }
}

impl Tpo {
    /// That all values are in range and fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of the first that does not.
    pub fn validate(&self) -> Result<(), Error> {
        positive("beta", self.beta)?;
        smoothing(self.label_smoothing)?;
        weight("tpo_alpha", self.tpo_alpha)?;
        if !self.tpo_l_gamma.is_finite() {
            return Err(Error::config("tpo_l_gamma", self.tpo_l_gamma, "a finite number"));
        }
        let unsmoothed = matches!(self.loss_type, TpoType::Hinge | TpoType::Ipo);
        if unsmoothed && self.label_smoothing != 0.0 {
            let expected = "0 for hinge and ipo, which do not read it";
            return Err(Error::config("label_smoothing", self.label_smoothing, expected));
        }
        Ok(())
    }

    /// The loss of a batch. `gold`: the gold answers; not read if `tpo_alpha` is 0.
    pub fn loss(&self, policy: &[Pair], gold: &[Answer]) -> Loss<PairGradient> {
        let (beta, epsilon) = (self.beta, self.label_smoothing);
        let share = 1.0 / policy.len().max(1) as f64;
        let length = |answer: &Answer| match self.loss_type {
            TpoType::Sigmoid | TpoType::Hinge => 1.0,
            TpoType::Ipo | TpoType::TpoL => answer.length(),
        };
        let (mut loss, mut gradient, mut logps) = (0.0, Vec::new(), Vec::new());
        for Pair { chosen, rejected } in policy {
            let lengths = [length(chosen), length(rejected)];
            let [c, r] = [chosen.sum / lengths[0], rejected.sum / lengths[1]];
            let (value, slope) = match self.loss_type {
                TpoType::Sigmoid => sigmoid::loss(beta, epsilon, c - r),
                TpoType::TpoL => sigmoid::loss(beta, epsilon, c - r - self.tpo_l_gamma / beta),
                TpoType::Hinge => hinge::loss(beta, c - r),
                TpoType::Ipo => ipo::loss(beta, c - r),
            };
            loss += share * value;
            let slope = share * slope;
            gradient.push(PairGradient::by_sums([slope / lengths[0], -slope / lengths[1]]));
            logps.push([c, r]);
        }
        let (mut by_nll_token, rewards) = (0.0, logps.iter().map(|pair| pair.map(|x| beta * x)));
        let mut metrics = pair_metrics(&rewards.collect::<Vec<_>>(), &logps);
        if self.tpo_alpha != 0.0 {
            let (nll, slope) = nll(gold);
            loss += self.tpo_alpha * nll;
            by_nll_token = self.tpo_alpha * slope;
            metrics.push(("nll_loss", nll));
        }
        Loss { loss, gradient, by_nll_token, metrics }
    }
}
