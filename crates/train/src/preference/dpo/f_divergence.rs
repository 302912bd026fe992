//! Scores of f-DPO (Wang et al. 2023, arXiv:2309.16240): f'(t) of the ratio t of policy to
//! reference, up to a constant. u = log t.
//!
//! ```text
//! reverse KL   u
//! forward KL   1 − e⁻ᵘ
//! JS           log 2 + log s(u)
//! α            (e^((α−1)u) − 1) / (α − 1)
//! ```
//!
//! Exponents are held at most 80 and the score is flat from there on. TRL holds those of α so; of
//! the forward KL (α = 0) it does not, and overflows.

use serde::{Deserialize, Serialize};

use crate::preference::maths::{held_exp_m1, log_sigmoid, sigmoid};

/// The divergence between policy and reference, by TRL's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FDivergence {
    /// KL(π, `π_ref`), as in DPO.
    #[default]
    ReverseKl,
    /// KL(`π_ref`, π).
    ForwardKl,
    /// Jensen-Shannon.
    JsDivergence,
    /// Between the two KLs. `f_alpha_divergence_coef` (0.5).
    AlphaDivergence,
}

impl FDivergence {
    /// The score of a log-ratio and its slope.
    pub(super) fn score(self, alpha: f64, u: f64) -> (f64, f64) {
        match self {
            Self::ReverseKl => (u, 1.0),
            Self::ForwardKl => by_power(-1.0, u),
            Self::JsDivergence => (std::f64::consts::LN_2 + log_sigmoid(u), sigmoid(-u)),
            Self::AlphaDivergence if (alpha - 1.0).abs() < 1e-6 => (u, 1.0),
            Self::AlphaDivergence => by_power(alpha - 1.0, u),
        }
    }
}

/// (eᵏᵘ − 1)/k
fn by_power(k: f64, u: f64) -> (f64, f64) {
    let (value, slope) = held_exp_m1(k * u);
    (value / k, slope)
}
