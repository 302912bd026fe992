//! APO-down (D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 8): for chosen answers that are
//! worse than the model's. Both become less likely, the rejected one more so.
//!
//! ```text
//! L = s(β c) + 1 − s(β (c − r))
//! ```

use super::Term;
use crate::preference::maths::{sigmoid, sigmoid_slope};

pub(super) fn loss(beta: f64, [c, r]: [f64; 2]) -> Term {
    let (x, z) = (beta * c, beta * (c - r));
    Term {
        loss: sigmoid(x) + sigmoid(-z),
        by: [beta * (sigmoid_slope(x) - sigmoid_slope(z)), beta * sigmoid_slope(z)],
    }
}
