//! BCO for pairs (Jung et al. 2024, arXiv:2404.04656), without the running shift.
//!
//! ```text
//! L = −log s(β c) − log s(−β r)
//! ```

use super::Term;
use crate::preference::maths::{sigmoid, softplus};

pub(super) fn loss(beta: f64, [c, r]: [f64; 2]) -> Term {
    let (x, y) = (beta * c, beta * r);
    Term { loss: softplus(-x) + softplus(y), by: [-beta * sigmoid(-x), beta * sigmoid(y)] }
}
