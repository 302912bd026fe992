//! NCA for pairs (Chen et al. 2024, arXiv:2402.05369).
//!
//! ```text
//! L = −log s(β c) − ½ log s(−β c) − ½ log s(−β r)
//! ```

use super::Term;
use crate::preference::maths::{sigmoid, softplus};

pub(super) fn loss(beta: f64, [c, r]: [f64; 2]) -> Term {
    let (x, y) = (beta * c, beta * r);
    Term {
        loss: softplus(-x) + 0.5 * softplus(x) + 0.5 * softplus(y),
        by: [beta * (0.5 * sigmoid(x) - sigmoid(-x)), beta * 0.5 * sigmoid(y)],
    }
}
