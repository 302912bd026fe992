//! Sums over many numbers whose order does not depend on the number of threads.

use posttrain_model::loops;
use rayon::prelude::*;

/// Numbers that are summed one after the other; the sums of such runs are added in their order.
const RUN: usize = 1 << 16;

/// Σ x², in f64.
pub(super) fn square_sum(x: &[f32]) -> f64 {
    let runs: Vec<f64> = x.par_chunks(RUN).map(loops::square_sum).collect();
    runs.iter().sum()
}
