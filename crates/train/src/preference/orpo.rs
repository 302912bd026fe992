//! ORPO (Hong et al. 2024, arXiv:2403.07691): NLL and a ratio of odds, no reference.
//!
//! ```text
//! x = log π(y)/|y|,   log odds = x − log(1 − eˣ)
//! L = NLL − β mean log s(log odds(y_c) − log odds(y_r))
//! ```
//!
//! The NLL goes over whole sequences, prompt and chosen answer, as in TRL 1.16 and in the authors'
//! code. The odds of an answer that is certain (x = 0) are infinite: from x = −2⁻²⁴ on, the least that
//! f32 can tell from certain, log odds goes on in a straight line (TRL: not a number).

use serde::{Deserialize, Serialize};

use super::batch::{Answer, Loss, Pair, PairGradient, nll, pair_metrics};
use super::maths::{log_sigmoid, mean, sigmoid};
use super::positive;
use crate::Error;

/// Names and defaults are those of TRL's `ORPOConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Orpo {
    /// The weight of the ratio of odds (λ of the paper), above 0.
    pub beta: f64,
}

impl Default for Orpo {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// log odds and its slope, 1/(1 − eˣ).
fn log_odds(x: f64) -> (f64, f64) {
    let held = x.min(-(0.5_f64.powi(24)));
    // log(1 − eˣ), each branch where the other loses digits.
    let rest =
        if held < -std::f64::consts::LN_2 { (-held.exp()).ln_1p() } else { (-held.exp_m1()).ln() };
    let slope = -1.0 / held.exp_m1();
    (held - rest + (x - held) * slope, slope)
}

impl Orpo {
    /// That all values are in range.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of the first that is not.
    pub fn validate(&self) -> Result<(), Error> {
        positive("beta", self.beta)
    }

    /// The loss of a batch. `whole`: prompts with their chosen answers, for the NLL.
    pub fn loss(&self, policy: &[Pair], whole: &[Answer]) -> Loss<PairGradient> {
        let share = 1.0 / policy.len().max(1) as f64;
        let (nll, by_nll_token) = nll(whole);
        let (mut loss, mut gradient) = (nll, Vec::new());
        let (mut logps, mut ratios, mut margins) = (Vec::new(), Vec::new(), Vec::new());
        for Pair { chosen, rejected } in policy {
            let averages = [chosen.average(), rejected.average()];
            let [(c, by_c), (r, by_r)] = averages.map(log_odds);
            let ratio = log_sigmoid(c - r);
            loss -= share * self.beta * ratio;
            let slope = -share * self.beta * sigmoid(r - c);
            gradient.push(PairGradient::by_sums([
                slope * by_c / chosen.length(),
                -slope * by_r / rejected.length(),
            ]));
            logps.push(averages);
            ratios.push(ratio);
            margins.push(c - r);
        }
        let rewards: Vec<[f64; 2]> = logps.iter().map(|pair| pair.map(|x| self.beta * x)).collect();
        let mut metrics = pair_metrics(&rewards, &logps);
        metrics.push(("nll_loss", nll));
        metrics.push(("log_odds_ratio", mean(ratios)));
        metrics.push(("log_odds_chosen", mean(margins)));
        Loss { loss, gradient, by_nll_token, metrics }
    }
}
