//! The passes of an optimizer over all weights and gradients, for crate `posttrain-train`. Each runs
//! over a part; the caller shares parts out among threads.

use super::simd::simd;

/// The factors of one step of AdamW; `posttrain-train` says how they come about.
#[derive(Clone, Copy, Debug)]
pub struct AdamWFactors {
    /// 1 − η λ
    pub decay: f32,
    /// 1 − β₁
    pub blend1: f32,
    /// β₂
    pub beta2: f32,
    /// 1 − β₂
    pub blend2: f32,
    /// 1 / √(1 − β₂ᵗ)
    pub correction: f32,
    /// ε
    pub epsilon: f32,
    /// η / (1 − β₁ᵗ)
    pub size: f32,
}

simd! {
/// One step of AdamW: weights, first and second moments and gradients of equal lengths.
pub fn adamw(w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], by: AdamWFactors) {
    let n = w.len();
    let (m, v, g) = (&mut m[..n], &mut v[..n], &g[..n]);
    for i in 0..n {
        m[i] += by.blend1 * (g[i] - m[i]);
        v[i] = by.beta2 * v[i] + by.blend2 * g[i] * g[i];
        let scale = v[i].sqrt() * by.correction + by.epsilon;
        w[i] = w[i] * by.decay - by.size * m[i] / scale;
    }
}}

/// Sums that run side by side, for the compiler to make vectors of.
const LANES: usize = 32;

simd! {
/// Σ x², in f64.
pub fn square_sum(x: &[f32]) -> f64 {
    let mut sums = [0f64; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f64 = chunks.remainder().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    for chunk in chunks {
        for i in 0..LANES {
            let x = f64::from(chunk[i]);
            sums[i] += x * x;
        }
    }
    sums.iter().sum::<f64>() + rest
}}

simd! {
/// Multiplies all by a factor.
pub fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_by_hand() {
        // m = 0 + ½ (3 − 0), v = ¾ 0 + ¼ 3², √v = 1½; θ = 2 · ½ − 1 · 1½ / (1½ · 2 + 3).
        let by = AdamWFactors {
            decay: 0.5,
            blend1: 0.5,
            beta2: 0.75,
            blend2: 0.25,
            correction: 2.0,
            epsilon: 3.0,
            size: 1.0,
        };
        let n = 37;
        let (mut w, mut m, mut v, g) = (vec![2.0; n], vec![0.0; n], vec![0.0; n], vec![3.0; n]);
        adamw(&mut w, &mut m, &mut v, &g, by);
        assert_eq!((w[0], m[0], v[0]), (0.75, 1.5, 2.25));
        assert!(w.iter().all(|&x| x == w[0]) && v.iter().all(|&x| x == v[0]));
    }

    #[test]
    fn every_number_is_summed_and_scaled_once() {
        // 1² + … + n² = n (n + 1)(2 n + 1) / 6.
        for n in [0, 1, 31, 32, 33, 1000] {
            let mut x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            let expected = n * (n + 1) * (2 * n + 1) / 6;
            assert_eq!(square_sum(&x), f64::from(expected));
            scale(&mut x, 2.0);
            assert_eq!(square_sum(&x), f64::from(4 * expected));
        }
    }
}
