//! The DPO family with the 15 losses of TRL 1.16, alone or as a weighted sum (MPO, Wang et al.
//! 2024, arXiv:2411.10442).
//!
//! ```text
//! c = log π(y_c) − log π_ref(y_c)      d = f(c) − f(r), f the score of the divergence
//! r = log π(y_r) − log π_ref(y_r)      L = mean over pairs of w Σₖ weightₖ Lₖ
//! ```
//!
//! - LD-DPO (Liu et al. 2024, arXiv:2409.06411), `ld_alpha`: tokens past the length of the shorter
//!   answer count α instead of 1 in log π and log `π_ref`, for all but `sft`.
//! - WPO (Zhou et al. 2024, arXiv:2406.11827), `use_weighting`: w = exp of the mean of
//!   log π − log Σᵥ π(v)² over the chosen tokens, times the same of the rejected. w is held fixed.
//!
//! Differences from TRL: `label_smoothing` acts on `sigmoid` too (cDPO), and is refused where no
//! loss reads it. A length is the number of predicted tokens; for `ipo` and `sigmoid_norm` TRL also
//! counts the first token of a sequence that has no prompt, which is not predicted. Rewards
//! in metrics are β c and β r, whatever the divergence, as in TRL.

mod aot;
mod apo_down;
mod apo_zero;
mod bco_pair;
mod config;
mod discopop;
mod exo_pair;
mod f_divergence;
pub(super) mod hinge;
pub(super) mod ipo;
mod nca_pair;
mod robust;
mod sft;
pub(super) mod sigmoid;
mod sppo_hard;

pub use config::{Dpo, LossType};
pub use f_divergence::FDivergence;

use super::batch::{Answer, Loss, Pair, PairGradient, pair_metrics};

/// The loss of a pair and its slopes by c and r.
#[derive(Clone, Copy, Debug, Default)]
struct Term {
    loss: f64,
    by: [f64; 2],
}

impl Term {
    /// A function of u c − v r, given its value and slope there.
    fn of_difference((loss, slope): (f64, f64), [u, v]: [f64; 2]) -> Self {
        Self { loss, by: [slope * u, -slope * v] }
    }
}

impl Dpo {
    /// The loss of a batch. Pairs of `policy` and `reference` belong together in order.
    pub fn loss(&self, policy: &[Pair], reference: &[Pair]) -> Loss<PairGradient> {
        assert_eq!(policy.len(), reference.len(), "pairs under policy and reference");
        let missing = self.ld_alpha.map_or(0.0, |alpha| 1.0 - alpha);
        let sum = |answer: &Answer| answer.sum - missing * answer.tail;
        let sums = |pairs: &[Pair]| -> Vec<[f64; 2]> {
            pairs.iter().map(|pair| [sum(&pair.chosen), sum(&pair.rejected)]).collect()
        };
        let (logps, ref_logps) = (sums(policy), sums(reference));
        let ratios: Vec<[f64; 2]> =
            logps.iter().zip(&ref_logps).map(|(p, q)| [p[0] - q[0], p[1] - q[1]]).collect();

        let weights: Vec<f64> = policy.iter().map(|pair| self.weight(pair)).collect();
        let share = 1.0 / policy.len().max(1) as f64;
        let mut loss = 0.0;
        let mut gradient = vec![PairGradient::default(); policy.len()];
        for (kind, part) in self.parts() {
            if kind == LossType::Sft {
                let part = part * share * weights.iter().sum::<f64>();
                let (value, slope) = sft::loss(policy);
                loss += part * value;
                for by in &mut gradient {
                    by.chosen.sum += part * slope;
                }
                continue;
            }
            let terms = match kind {
                LossType::Aot => aot::paired(self.beta, self.label_smoothing, &logps, &ref_logps),
                LossType::AotUnpaired => aot::unpaired(self.beta, self.label_smoothing, &ratios),
                _ => policy.iter().zip(&ratios).map(|it| self.term(kind, it.0, *it.1)).collect(),
            };
            for ((by, term), weight) in gradient.iter_mut().zip(terms).zip(&weights) {
                let part = part * share * weight;
                loss += part * term.loss;
                for (by, slope) in [&mut by.chosen, &mut by.rejected].into_iter().zip(term.by) {
                    by.sum += part * slope;
                    by.tail -= part * slope * missing;
                }
            }
        }
        let rewards: Vec<[f64; 2]> =
            ratios.iter().map(|pair| pair.map(|u| self.beta * u)).collect();
        Loss { loss, gradient, by_nll_token: 0.0, metrics: pair_metrics(&rewards, &logps) }
    }

    /// w of a pair.
    fn weight(&self, pair: &Pair) -> f64 {
        let aligned = |answer: &Answer| (answer.sum - answer.log_sum_sq) / answer.length();
        if self.use_weighting {
            (aligned(&pair.chosen) + aligned(&pair.rejected)).exp()
        } else {
            1.0
        }
    }

    /// A loss of one pair alone.
    fn term(&self, kind: LossType, pair: &Pair, ratios: [f64; 2]) -> Term {
        let (beta, epsilon) = (self.beta, self.label_smoothing);
        let [(c, u), (r, v)] =
            ratios.map(|ratio| self.f_divergence_type.score(self.f_alpha_divergence_coef, ratio));
        let d = c - r;
        let lengths = [pair.chosen.length(), pair.rejected.length()];
        let per_token = c / lengths[0] - r / lengths[1];
        let by_token = [u / lengths[0], v / lengths[1]];
        match kind {
            LossType::Sigmoid => Term::of_difference(sigmoid::loss(beta, epsilon, d), [u, v]),
            LossType::Hinge => Term::of_difference(hinge::loss(beta, d), [u, v]),
            LossType::ExoPair => Term::of_difference(exo_pair::loss(beta, epsilon, d), [u, v]),
            LossType::Robust => Term::of_difference(robust::loss(beta, epsilon, d), [u, v]),
            LossType::Discopop => {
                Term::of_difference(discopop::loss(beta, self.discopop_tau, d), [u, v])
            }
            LossType::Ipo => Term::of_difference(ipo::loss(beta, per_token), by_token),
            LossType::SigmoidNorm => {
                Term::of_difference(sigmoid::loss(beta, 0.0, per_token), by_token)
            }
            LossType::NcaPair => nca_pair::loss(beta, ratios),
            LossType::BcoPair => bco_pair::loss(beta, ratios),
            LossType::SppoHard => sppo_hard::loss(beta, ratios),
            LossType::ApoZero => apo_zero::loss(beta, ratios),
            LossType::ApoDown => apo_down::loss(beta, ratios),
            LossType::Aot | LossType::AotUnpaired | LossType::Sft => {
                unreachable!("losses of a whole batch are taken before")
            }
        }
    }
}
