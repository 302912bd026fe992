//! EXO for pairs (Ji et al. 2024, arXiv:2402.00856, equation 16).
//!
//! ```text
//! L = q (log q − log(1 − ε)) + (1 − q) (log(1 − q) − log ε),   q = s(β d)
//! ```
//!
//! The least loss is at β d = log((1 − ε)/ε): past it, a larger d costs.

use crate::preference::maths::{log_sigmoid, sigmoid};

/// The loss and its slope by d.
pub(super) fn loss(beta: f64, epsilon: f64, d: f64) -> (f64, f64) {
    let x = beta * d;
    let (q, p) = (sigmoid(x), sigmoid(-x));
    let (log_1_epsilon, log_epsilon) = ((-epsilon).ln_1p(), epsilon.ln());
    let value = q * (log_sigmoid(x) - log_1_epsilon) + p * (log_sigmoid(-x) - log_epsilon);
    (value, beta * q * p * (x - log_1_epsilon + log_epsilon))
}
