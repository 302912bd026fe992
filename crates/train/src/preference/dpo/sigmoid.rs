//! DPO (Rafailov et al. 2023, arXiv:2305.18290), and with ε > 0 conservative DPO (Mitchell 2023).
//!
//! ```text
//! L = −(1 − ε) log s(β d) − ε log s(−β d)
//! ```
//!
//! d: the difference of the two scores. TRL 1.16 has no ε here and ignores `label_smoothing`;
//! ε = 0 is its loss. CPO, TPO and AOT use the same function with an ε of their own.

use crate::preference::maths::{sigmoid, softplus};

/// The loss and its slope by d.
pub(in crate::preference) fn loss(beta: f64, epsilon: f64, d: f64) -> (f64, f64) {
    let x = beta * d;
    let value = (1.0 - epsilon) * softplus(-x) + epsilon * softplus(x);
    (value, beta * (epsilon * sigmoid(x) - (1.0 - epsilon) * sigmoid(-x)))
}
