//! SPPO with hard labels (Wu et al. 2024, arXiv:2405.00675, equation 4.7 with P of 1 and 0).
//!
//! ```text
//! L = (c − 1/(2β))² + (r + 1/(2β))²
//! ```

use super::Term;

pub(super) fn loss(beta: f64, [c, r]: [f64; 2]) -> Term {
    let (winner, loser) = (c - 0.5 / beta, r + 0.5 / beta);
    Term { loss: winner * winner + loser * loser, by: [2.0 * winner, 2.0 * loser] }
}
