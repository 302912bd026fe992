//! Random numbers as a pure function of (seed, step).
//!
//! The generator is `SplitMix64` (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
//! generators") read at a position instead of advanced: number `t` of a seed is
//! `mix(mix(seed + γ) + (t + 1) γ)`. The seed is mixed first, so that the streams of seeds 0, 1, 2…
//! do not overlap. Its output is part of this crate's promise of reproducible answers: never change
//! it.

/// 2⁶⁴ / φ, odd: the step of `SplitMix64`.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The random numbers of one seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Random {
    key: u64,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { key: mix(seed.wrapping_add(GAMMA)) }
    }

    /// Number `step`, uniform in [0, 1) with 53 bits.
    pub(super) fn uniform(self, step: u64) -> f64 {
        let position = step.wrapping_add(1).wrapping_mul(GAMMA);
        let bits = mix(self.key.wrapping_add(position));
        (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }
}

/// Stafford's variant 13 of the finaliser of `MurmurHash3`.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finaliser_is_that_of_the_published_generator() {
        // First outputs of SplitMix64 from state 0.
        assert_eq!(mix(GAMMA), 0xE220_A839_7B1D_CDAF);
        assert_eq!(mix(GAMMA.wrapping_mul(2)), 0x6E78_9E6A_A1B9_65F4);
        assert_eq!(mix(GAMMA.wrapping_mul(3)), 0x06C4_5D18_8009_454F);
    }

    #[test]
    fn the_output_never_changes() {
        let bits = |seed, step| (Random::new(seed).uniform(step) * (1_u64 << 53) as f64) as u64;
        let found: Vec<u64> =
            [(0, 0), (0, 1), (1, 0), (42, 7), (u64::MAX, u64::MAX)].map(|(s, t)| bits(s, t)).into();
        assert_eq!(found, PINNED);
    }

    /// Computed with Python's integers from the formula of the module.
    const PINNED: [u64; 5] = [
        5_876_733_520_225_071,
        6_315_957_190_297_641,
        3_316_356_330_981_164,
        6_617_773_565_905_164,
        2_403_545_779_318_817,
    ];

    #[test]
    fn numbers_are_uniform_over_steps_and_over_seeds() {
        // 64 bins of 64 Ki numbers: chi-square with 63 degrees of freedom, 99.99% below 113.
        let chi_square = |draw: &dyn Fn(u64) -> f64| {
            let mut bins = [0_u32; 64];
            (0..65_536).for_each(|i| bins[(draw(i) * 64.0) as usize] += 1);
            bins.iter().map(|&n| (f64::from(n) - 1024.0).powi(2) / 1024.0).sum::<f64>()
        };
        assert!(chi_square(&|i| Random::new(3).uniform(i)) < 113.0);
        assert!(chi_square(&|i| Random::new(i).uniform(0)) < 113.0);
        assert!(chi_square(&|i| Random::new(i << 32).uniform(5)) < 113.0);
        // Neighbouring seeds at the same step, and neighbouring steps, are not correlated.
        let pair = |i: u64| (Random::new(i).uniform(1) + Random::new(i + 1).uniform(1)).fract();
        assert!(chi_square(&pair) < 113.0);
        let pair = |i| (Random::new(9).uniform(i) + Random::new(9).uniform(i + 1)).fract();
        assert!(chi_square(&pair) < 113.0);
    }
}
