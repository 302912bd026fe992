//! Sums over many numbers whose order does not depend on the number of threads.

use rayon::prelude::*;

/// Numbers that are summed one after the other; the sums of such runs are added in their order.
const RUN: usize = 1 << 16;
/// Sums that run side by side within a run, for the compiler to make vectors of.
const LANES: usize = 16;

/// Σ x², in f64.
pub(super) fn square_sum(x: &[f32]) -> f64 {
    let runs: Vec<f64> = x.par_chunks(RUN).map(run).collect();
    runs.iter().sum()
}

fn run(x: &[f32]) -> f64 {
    let mut sums = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    let square = |x: f32| f64::from(x) * f64::from(x);
    let rest: f64 = chunks.remainder().iter().copied().map(square).sum();
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += square(x);
        }
    }
    sums.iter().sum::<f64>() + rest
}
