//! CPO (Xu et al. 2024, arXiv:2401.08417), `SimPO` (Meng et al. 2024, arXiv:2405.14734) and `AlphaPO`
//! (Gupta et al. 2025, arXiv:2501.03884), which have no reference.
//!
//! ```text
//! x = log π(y) (sigmoid, hinge) or log π(y)/|y| (ipo, simpo, alphapo)
//! ρ = x,   or with α ≠ 0   (1 − e^(−α x))/α
//! sigmoid:         −(1 − ε) log s(β d) − ε log s(−β d),   d = ρ(y_c) − ρ(y_r)
//! simpo, alphapo:  the same,   d = ρ(y_c) − ρ(y_r) − γ/β
//! hinge:           max(0, 1 − β d)
//! ipo:             (d − 1/(2β))²
//! L = mean over pairs + cpo_alpha · NLL of the chosen answers
//! ```
//!
//! The NLL is a mean over tokens. Difference from TRL 1.16: without `cpo_alpha`, `simpo` has no NLL
//! term, as in its paper; TRL adds one of weight 1. The exponent −α x is held at most 80.

use serde::{Deserialize, Serialize};

use super::batch::{Answer, Loss, Pair, PairGradient, nll, pair_metrics};
use super::dpo::{hinge, ipo, sigmoid};
use super::maths::held_exp_m1;
use super::{positive, smoothing, weight};
use crate::Error;

/// The losses by TRL's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpoType {
    /// CPO.
    #[default]
    Sigmoid,
    /// The hinge of `SLiC`.
    Hinge,
    /// IPO without a reference.
    Ipo,
    /// `SimPO`. Its paper has β from 2 to 2.5 and γ from 0.5 to 1.6.
    Simpo,
    /// `SimPO` with α ≠ 0.
    Alphapo,
}

/// Names and defaults are those of TRL's `CPOConfig`, but for `cpo_alpha`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cpo {
    /// Which of them.
    pub loss_type: CpoType,
    /// The scale of the difference, above 0.
    pub beta: f64,
    /// ε: the probability that a label is wrong.
    pub label_smoothing: f64,
    /// The weight of the NLL; if not given 1, but 0 for `simpo` and `alphapo`.
    pub cpo_alpha: Option<f64>,
    /// γ: the margin of `simpo` and `alphapo`.
    pub simpo_gamma: f64,
    /// α: the shape of the reward, 0 for the logarithm.
    pub alpha: f64,
}

impl Default for Cpo {
    fn default() -> Self {
        Self {
            loss_type: CpoType::Sigmoid,
            beta: 0.1,
            label_smoothing: 0.0,
            cpo_alpha: None,
            simpo_gamma: 0.5,
            alpha: 0.0,
        }
    }
}

impl Cpo {
    /// That all values are in range and fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of the first that does not.
    pub fn validate(&self) -> Result<(), Error> {
        positive("beta", self.beta)?;
        smoothing(self.label_smoothing)?;
        weight("cpo_alpha", self.nll_weight())?;
        if !self.simpo_gamma.is_finite() {
            return Err(Error::config("simpo_gamma", self.simpo_gamma, "a finite number"));
        }
        let unsmoothed = matches!(self.loss_type, CpoType::Hinge | CpoType::Ipo);
        if unsmoothed && self.label_smoothing != 0.0 {
            let expected = "0 for hinge and ipo, which do not read it";
            return Err(Error::config("label_smoothing", self.label_smoothing, expected));
        }
        if !self.alpha.is_finite() || self.loss_type == CpoType::Alphapo && self.alpha == 0.0 {
            return Err(Error::config("alpha", self.alpha, "finite, and not 0 for alphapo"));
        }
        Ok(())
    }

    pub(super) fn nll_weight(&self) -> f64 {
        let without = matches!(self.loss_type, CpoType::Simpo | CpoType::Alphapo);
        self.cpo_alpha.unwrap_or(if without { 0.0 } else { 1.0 })
    }

    /// x of an answer, ρ and the slope of ρ by log π(y).
    fn reward(&self, answer: &Answer) -> [f64; 3] {
        let length = match self.loss_type {
            CpoType::Sigmoid | CpoType::Hinge => 1.0,
            CpoType::Ipo | CpoType::Simpo | CpoType::Alphapo => answer.length(),
        };
        let x = answer.sum / length;
        if self.alpha == 0.0 {
            return [x, x, 1.0 / length];
        }
        let (power, slope) = held_exp_m1(-self.alpha * x);
        [x, -power / self.alpha, slope / length]
    }

    /// The loss of a batch.
    pub fn loss(&self, policy: &[Pair]) -> Loss<PairGradient> {
        let (beta, epsilon) = (self.beta, self.label_smoothing);
        let share = 1.0 / policy.len().max(1) as f64;
        let (mut loss, mut gradient) = (0.0, Vec::new());
        let (mut rewards, mut logps) = (Vec::new(), Vec::new());
        for pair in policy {
            let [x, c, by_c] = self.reward(&pair.chosen);
            let [y, r, by_r] = self.reward(&pair.rejected);
            let (value, slope) = match self.loss_type {
                CpoType::Sigmoid => sigmoid::loss(beta, epsilon, c - r),
                CpoType::Simpo | CpoType::Alphapo => {
                    sigmoid::loss(beta, epsilon, c - r - self.simpo_gamma / beta)
                }
                CpoType::Hinge => hinge::loss(beta, c - r),
                CpoType::Ipo => ipo::loss(beta, c - r),
            };
            loss += share * value;
            gradient.push(PairGradient::by_sums([share * slope * by_c, -share * slope * by_r]));
            rewards.push([beta * c, beta * r]);
            logps.push([x, y]);
        }
        let mut metrics = pair_metrics(&rewards, &logps);
        let weight = self.nll_weight();
        if weight != 0.0 {
            let (nll, slope) = nll(policy.iter().map(|pair| &pair.chosen));
            loss += weight * nll;
            for by in &mut gradient {
                by.chosen.sum += weight * slope;
            }
            metrics.push(("nll_loss", nll));
        }
        Loss { loss, gradient, by_nll_token: 0.0, metrics }
    }
}
