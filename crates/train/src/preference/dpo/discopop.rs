//! `DiscoPOP`, a loss found by a language model (Lu et al. 2024, arXiv:2406.08414, equation 5).
//!
//! ```text
//! L = −(1 − m) log s(l) + m e⁻ˡ,   l = β d,   m = s(l/τ)
//! ```
//!
//! It is not monotone: it has a dip a little below l = 0. For a very bad pair e⁻ˡ overflows while m
//! vanishes (TRL: not a number); the product is taken in logarithms here.

use crate::preference::maths::{log_sigmoid, sigmoid, softplus};

/// The loss and its slope by d. `tau` is at most 1: above it m e⁻ˡ has no bound.
pub(super) fn loss(beta: f64, tau: f64, d: f64) -> (f64, f64) {
    let l = beta * d;
    let (m, rest) = (sigmoid(l / tau), sigmoid(-l / tau));
    let exponential = (log_sigmoid(l / tau) - l).exp();
    let logistic = softplus(-l);
    let slope = exponential * (rest / tau - 1.0) - rest * (m / tau * logistic + sigmoid(-l));
    (rest * logistic + exponential, beta * slope)
}
