//! Robust DPO (Chowdhury et al. 2024, arXiv:2403.00409): labels are wrong with probability ε.
//!
//! ```text
//! L = [−(1 − ε) log s(β d) + ε log s(−β d)] / (1 − 2ε)
//! ```

use crate::preference::maths::{sigmoid, softplus};

/// The loss and its slope by d.
pub(super) fn loss(beta: f64, epsilon: f64, d: f64) -> (f64, f64) {
    let x = beta * d;
    let scale = 1.0 / (1.0 - 2.0 * epsilon);
    let value = (1.0 - epsilon) * softplus(-x) - epsilon * softplus(x);
    let slope = -(1.0 - epsilon) * sigmoid(-x) - epsilon * sigmoid(x);
    (scale * value, scale * beta * slope)
}
