//! Standard normal numbers, addressed by seed and generation.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// `count` numbers of N(0, 1): the same for the same seed and generation, so that a search that is
/// opened again needs no other state (Box and Muller's transform of `ChaCha8`).
pub(crate) fn normals(seed: u64, generation: u64, count: usize) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(generation);
    // In (0, 1]: its logarithm is finite.
    let mut uniform = || ((random.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
    let mut numbers = Vec::with_capacity(count + 1);
    while numbers.len() < count {
        let radius = (-2.0 * uniform().ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * uniform()).sin_cos();
        numbers.extend([radius * cos, radius * sin]);
    }
    numbers.truncate(count);
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_streams() {
        let numbers = normals(3, 5, 200_000);
        let mean = |power: i32| numbers.iter().map(|x| x.powi(power)).sum::<f64>() / 2e5;
        assert!(mean(1).abs() < 0.01 && (mean(2) - 1.0).abs() < 0.02);
        assert!(mean(3).abs() < 0.04 && (mean(4) - 3.0).abs() < 0.1);
        assert_eq!(normals(3, 5, 7), numbers[..7]);
        assert_ne!(normals(3, 6, 7), numbers[..7]);
        assert_ne!(normals(4, 5, 7), numbers[..7]);
    }
}
