//! APO-zero (D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 7): for chosen answers that are
//! better than the model's.
//!
//! ```text
//! L = 1 − s(β c) + s(β r)
//! ```

use super::Term;
use crate::preference::maths::{sigmoid, sigmoid_slope};

pub(super) fn loss(beta: f64, [c, r]: [f64; 2]) -> Term {
    let (x, y) = (beta * c, beta * r);
    Term { loss: sigmoid(-x) + sigmoid(y), by: [-beta * sigmoid_slope(x), beta * sigmoid_slope(y)] }
}
