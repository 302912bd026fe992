//! The loss of reward models: Bradley and Terry 1952 with the margin of Llama 2 (Touvron et al.
//! 2023, arXiv:2307.09288) and the centring of Eisenstein et al. 2023 (arXiv:2312.09244).
//!
//! ```text
//! L = mean −log s(ρ_c − ρ_r − m) + κ mean (ρ_c + ρ_r)²
//! ```

use serde::{Deserialize, Serialize};

use super::batch::Loss;
use super::maths::{mean, sigmoid, softplus};
use super::weight;
use crate::Error;

/// The name and default are those of TRL's `RewardConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BradleyTerry {
    /// κ: how strongly rewards are held around 0. The paper has 0.01.
    pub center_rewards_coefficient: Option<f64>,
}

impl BradleyTerry {
    /// That all values are in range.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of the first that is not.
    pub fn validate(&self) -> Result<(), Error> {
        weight("center_rewards_coefficient", self.center_rewards_coefficient.unwrap_or(0.0))
    }

    /// The loss of rewards `[chosen, rejected]` and its gradient by them. `margins`: m of each
    /// pair, where the data has them.
    pub fn loss(&self, rewards: &[[f64; 2]], margins: Option<&[f64]>) -> Loss<[f64; 2]> {
        assert!(margins.is_none_or(|margins| margins.len() == rewards.len()), "pairs and margins");
        let share = 1.0 / rewards.len().max(1) as f64;
        let kappa = self.center_rewards_coefficient.unwrap_or(0.0);
        let (mut loss, mut gradient) = (0.0, Vec::new());
        for (i, [c, r]) in rewards.iter().enumerate() {
            let x = c - r - margins.map_or(0.0, |margins| margins[i]);
            loss += share * (softplus(-x) + kappa * (c + r) * (c + r));
            let (apart, centre) = (sigmoid(-x), 2.0 * kappa * (c + r));
            gradient.push([share * (centre - apart), share * (centre + apart)]);
        }
        let all = || rewards.iter().flatten().copied();
        let metrics = vec![
            ("min_reward", all().fold(f64::INFINITY, f64::min)),
            ("mean_reward", mean(all())),
            ("max_reward", all().fold(f64::NEG_INFINITY, f64::max)),
            ("accuracy", mean(rewards.iter().map(|[c, r]| f64::from(u8::from(c > r))))),
            ("margin", mean(rewards.iter().map(|[c, r]| c - r))),
        ];
        Loss { loss, gradient, by_nll_token: 0.0, metrics }
    }
}
