//! The NLL of the chosen answers, to be mixed with other losses: MPO (Wang et al. 2024,
//! arXiv:2411.10442), RPO (Pang et al. 2024, arXiv:2404.19733).
//!
//! ```text
//! L = −Σ log π(y_c) / Σ |y_c|
//! ```
//!
//! Both sums go over the batch, so that a token of a long answer weighs as much as one of a short
//! one. Every pair has the loss of the batch; LD-DPO does not reach it.

use crate::preference::batch::{Pair, nll};

/// The loss of the batch and its slope by each chosen token.
pub(super) fn loss(policy: &[Pair]) -> (f64, f64) {
    nll(policy.iter().map(|pair| &pair.chosen))
}
