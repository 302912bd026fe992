//! The strategy parameters of CMA-ES and their defaults.
//!
//! With n numbers, λ candidates and `μ_eff = 1 / Σ w_i²` over the positive weights (Hansen, "The CMA
//! Evolution Strategy: A Tutorial", arXiv 1604.00772, table 1):
//!
//! ```text
//! λ    = 4 + ⌊3 ln n⌋
//! w'_i = ln((λ + 1) / 2) - ln i,   positive ones scaled to sum 1
//! c_c  = (4 + μ_eff/n) / (n + 4 + 2 μ_eff/n)
//! c_1  = min(1, λ/6) 2 / ((n + 1.3)² + μ_eff)
//! c_μ  = min(1 - c_1, 2 (1/4 + μ_eff - 2 + 1/μ_eff) / ((n + 2)² + μ_eff))
//! c_σ  = min(1/2, (μ_eff + 2) / (n + μ_eff + 3))
//! d_σ  = 1 + 2 max(0, √((μ_eff - 1) / (n + 1)) - 1) + c_σ
//! ```
//!
//! The factor `min(1, λ/6)` and `c_σ` are those of pycma 4.5, where the tutorial has 1 and
//! `(μ_eff + 2) / (n + μ_eff + 5)`.

use serde::{Deserialize, Serialize};

/// How many candidates a generation has, and how fast the distribution learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// Candidates of a generation, λ.
    pub lambda: usize,
    /// How many of them have a positive weight, μ.
    pub mu: usize,
    /// The effective number of parents, `μ_eff`.
    pub mu_eff: f64,
    /// λ weights from the best to the worst: the positive ones sum to 1, the others push the
    /// covariance away from what was bad.
    pub weights: Vec<f64>,
    /// How fast the path of the covariance forgets.
    pub c_c: f64,
    /// Rank-one learning rate.
    pub c_1: f64,
    /// Rank-μ learning rate.
    pub c_mu: f64,
    /// How fast the path of the step size forgets.
    pub c_s: f64,
    /// Damping of the step size.
    pub d_s: f64,
    /// E‖N(0, I)‖ = √2 Γ((n + 1)/2) / Γ(n/2).
    pub chi_n: f64,
}

/// λ = 4 + ⌊3 ln n⌋.
pub fn default_lambda(n: usize) -> usize {
    4 + (3.0 * (n as f64).ln()).floor() as usize
}

impl Parameters {
    /// The defaults for `n` numbers and `lambda` candidates, at least 2.
    pub fn new(n: usize, lambda: usize) -> Self {
        let size = n as f64;
        let middle = f64::midpoint(lambda as f64, 1.0).ln();
        let mut weights: Vec<f64> = (1..=lambda).map(|i| middle - (i as f64).ln()).collect();
        let mu = weights.iter().filter(|w| **w > 0.0).count();
        let total: f64 = weights[..mu].iter().sum();
        scale(&mut weights[..mu], 1.0 / total);
        let mu_eff = effective(&weights[..mu]);

        let c_c = (4.0 + mu_eff / size) / (size + 4.0 + 2.0 * mu_eff / size);
        let c_1 = (lambda as f64 / 6.0).min(1.0) * 2.0 / ((size + 1.3).powi(2) + mu_eff);
        let c_mu = (2.0 * (0.25 + mu_eff - 2.0 + 1.0 / mu_eff) / ((size + 2.0).powi(2) + mu_eff))
            .min(1.0 - c_1);
        let c_s = ((mu_eff + 2.0) / (size + mu_eff + 3.0)).min(0.5);
        let d_s = 1.0 + 2.0 * (((mu_eff - 1.0) / (size + 1.0)).sqrt() - 1.0).max(0.0) + c_s;

        // The sum of the negative ones: no decay of C, not stronger than their effective number
        // allows, and C stays positive definite.
        let bad = &mut weights[mu..];
        let mu_bad = effective(bad);
        let sum = (1.0 + c_1 / c_mu)
            .min(1.0 + 2.0 * mu_bad / (mu_eff + 2.0))
            .min((1.0 - c_1 - c_mu) / (size * c_mu));
        let total: f64 = bad.iter().sum();
        scale(bad, -sum / total);

        let chi_n = mean_length(n);
        Self { lambda, mu, mu_eff, weights, c_c, c_1, c_mu, c_s, d_s, chi_n }
    }
}

fn scale(weights: &mut [f64], by: f64) {
    for w in weights {
        *w *= by;
    }
}

/// (Σ w)² / Σ w².
fn effective(weights: &[f64]) -> f64 {
    weights.iter().sum::<f64>().powi(2) / weights.iter().map(|w| w * w).sum::<f64>()
}

/// E‖N(0, I)‖ of n numbers: √(2/π) for one, √(π/2) for two, and (n - 1)/(n - 2) times that of n - 2.
fn mean_length(n: usize) -> f64 {
    use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};
    let first: f64 = if n % 2 == 1 { FRAC_2_PI.sqrt() } else { FRAC_PI_2.sqrt() };
    let more = (n % 2 + 2..=n).filter(|k| k % 2 == n % 2 && *k > 2);
    more.fold(first, |length, k| length * (k - 1) as f64 / (k - 2) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// √n (1 - 1/(4n) + 1/(32n²) + ...), and the first ones by hand.
    #[test]
    fn mean_lengths() {
        let pi = std::f64::consts::PI;
        let hand = [(2.0 / pi).sqrt(), (pi / 2.0).sqrt(), 2.0 * (2.0 / pi).sqrt()];
        for (n, wanted) in (1..).zip(hand) {
            assert!((mean_length(n) - wanted).abs() < 1e-15);
        }
        for n in [50, 101, 400] {
            let size = n as f64;
            let series = size.sqrt() * (1.0 - 0.25 / size + 1.0 / (32.0 * size * size));
            assert!((mean_length(n) / series - 1.0).abs() < 0.1 / size.powi(3), "{n}");
        }
    }
}
