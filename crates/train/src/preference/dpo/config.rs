//! What a user says about a loss of the DPO family.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::FDivergence;
use crate::Error;

/// The losses by TRL's names. Formulas and papers stand in the file of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// DPO; with `label_smoothing` cDPO.
    Sigmoid,
    /// The hinge of `SLiC` and RSO.
    Hinge,
    /// IPO, over lengths.
    Ipo,
    /// EXO; needs `label_smoothing`.
    ExoPair,
    /// NCA.
    NcaPair,
    /// Robust DPO; reads `label_smoothing`.
    Robust,
    /// BCO without the shift.
    BcoPair,
    /// SPPO with hard labels.
    SppoHard,
    /// Optimal transport between margins of policy and reference; reads `label_smoothing`.
    Aot,
    /// Optimal transport between rejected and chosen; reads `label_smoothing`.
    AotUnpaired,
    /// APO-zero.
    ApoZero,
    /// APO-down.
    ApoDown,
    /// `DiscoPOP`; reads `discopop_tau`.
    Discopop,
    /// NLL of the chosen answers.
    Sft,
    /// DPO over lengths (Lambert et al. 2024, Tulu 3, arXiv:2411.15124).
    SigmoidNorm,
}

/// Names and defaults are those of TRL's `DPOConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dpo {
    /// One loss or several.
    #[serde(deserialize_with = "one_or_many")]
    pub loss_type: Vec<LossType>,
    /// The weight of each loss; 1 if not given.
    pub loss_weights: Option<Vec<f64>>,
    /// How strongly the policy is held to the reference, above 0.
    pub beta: f64,
    /// ε: the probability that a label is wrong.
    pub label_smoothing: f64,
    /// What scores are made of.
    pub f_divergence_type: FDivergence,
    /// α of `alpha_divergence`.
    pub f_alpha_divergence_coef: f64,
    /// LD-DPO's weight of tokens past the length of the shorter answer, from 0 to 1.
    pub ld_alpha: Option<f64>,
    /// WPO's weights.
    pub use_weighting: bool,
    /// τ of `discopop`, up to 1.
    pub discopop_tau: f64,
}

impl Default for Dpo {
    fn default() -> Self {
        Self {
            loss_type: vec![LossType::Sigmoid],
            loss_weights: None,
            beta: 0.1,
            label_smoothing: 0.0,
            f_divergence_type: FDivergence::ReverseKl,
            f_alpha_divergence_coef: 0.5,
            ld_alpha: None,
            use_weighting: false,
            discopop_tau: 0.05,
        }
    }
}

impl Dpo {
    /// The losses with their weights.
    pub(super) fn parts(&self) -> impl Iterator<Item = (LossType, f64)> {
        let weight = |i: usize| self.loss_weights.as_ref().map_or(1.0, |weights| weights[i]);
        self.loss_type.iter().enumerate().map(move |(i, &kind)| (kind, weight(i)))
    }

    /// That all values are in range and fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of the first that does not.
    pub fn validate(&self) -> Result<(), Error> {
        use LossType as L;
        let any = |of: &[L]| self.loss_type.iter().any(|kind| of.contains(kind));
        let refuse = |key: &str, found: &dyn std::fmt::Debug, expected: &str| {
            Err(Error::config(key, format!("{found:?}"), expected))
        };
        let epsilon = self.label_smoothing;
        if self.loss_type.is_empty() {
            return refuse("loss_type", &self.loss_type, "at least one loss");
        }
        if let Some(weights) = &self.loss_weights {
            let fine =
                weights.len() == self.loss_type.len() && weights.iter().all(|w| w.is_finite());
            if !fine {
                return refuse("loss_weights", weights, "a finite weight for each loss_type");
            }
        }
        if !(self.beta > 0.0 && self.beta.is_finite()) {
            return refuse("beta", &self.beta, "above 0");
        }
        if !(0.0..0.5).contains(&epsilon) {
            return refuse("label_smoothing", &epsilon, "from 0 to below 0.5");
        }
        if epsilon == 0.0 && any(&[L::ExoPair]) {
            return refuse("label_smoothing", &epsilon, "above 0 for exo_pair (the paper: 1e-3)");
        }
        let smoothed = [L::Sigmoid, L::Robust, L::ExoPair, L::Aot, L::AotUnpaired];
        if epsilon != 0.0 && !any(&smoothed) {
            let expected = "0: only sigmoid, robust, exo_pair, aot and aot_unpaired read it";
            return refuse("label_smoothing", &epsilon, expected);
        }
        let apart =
            [L::NcaPair, L::BcoPair, L::SppoHard, L::Aot, L::AotUnpaired, L::ApoZero, L::ApoDown];
        if self.f_divergence_type != FDivergence::ReverseKl && any(&apart) {
            let expected = "reverse_kl beside losses that are not made of a difference of scores \
                            (nca_pair, bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, apo_down)";
            return refuse("f_divergence_type", &self.f_divergence_type, expected);
        }
        if !self.f_alpha_divergence_coef.is_finite() {
            return refuse("f_alpha_divergence_coef", &self.f_alpha_divergence_coef, "a number");
        }
        if let Some(alpha) = self.ld_alpha.filter(|alpha| !(0.0..=1.0).contains(alpha)) {
            return refuse("ld_alpha", &alpha, "from 0 to 1");
        }
        if self.use_weighting && any(&[L::Aot, L::AotUnpaired]) {
            let expected = "false beside aot and aot_unpaired: they have no loss of a pair";
            return refuse("use_weighting", &true, expected);
        }
        if !(self.discopop_tau > 0.0 && self.discopop_tau <= 1.0) {
            return refuse("discopop_tau", &self.discopop_tau, "above 0, at most 1");
        }
        Ok(())
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<LossType>, D::Error> {
    // Not untagged, which would not say what is wrong.
    let found = match Value::deserialize(from)? {
        many @ Value::Array(_) => Vec::deserialize(many),
        one => LossType::deserialize(one).map(|kind| vec![kind]),
    };
    found.map_err(D::Error::custom)
}
