//! Rotary position embeddings and their context extensions.
//!
//! Pair `k` of a head's `dim` rotated components turns at position `p` by the angle `p * f_k` with
//! `f_k = theta^(-2k / dim)` (Su et al. 2021, `RoFormer`, arXiv:2104.09864). The two components of
//! pair `k` are `k` and `k + dim / 2`, as in every Hugging Face checkpoint. [`RopeScaling`] says
//! how `f_k` changes so that a model reads texts longer than those it was trained on.
//!
//! Single-precision operations happen in the order in which transformers 5.23 and torch do them on
//! the CPU, so that the tables agree to the last bits; what transformers computes as Python floats
//! is computed in double precision here too.

use std::f64::consts::PI;

/// Rotary embedding of some layers: base, width and scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base of the geometric series of wavelengths (`rope_theta`).
    pub theta: f64,
    /// How many of a head's components are rotated, the first ones: `head_dim` unless
    /// `partial_rotary_factor` says less. Even.
    pub dim: usize,
    /// How the frequencies are changed for longer contexts.
    pub scaling: RopeScaling,
}

/// Context extension of a [`Rope`] (`rope_type`).
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// The frequencies as they are.
    Default,
    /// Position interpolation (Chen et al. 2023, arXiv:2306.15595): `f_k / factor`.
    Linear {
        /// How many times longer the context is.
        factor: f64,
    },
    /// NTK-aware interpolation (bloc97, emozilla 2023; described in arXiv:2309.00071, section 3)
    /// that starts at texts longer than `L = max_position_embeddings`: with `s = seq_len / L`, the
    /// base becomes `theta * (factor * s - (factor - 1))^(dim / (dim - 2))`.
    Dynamic {
        /// How fast the base grows with the length.
        factor: f64,
        /// Up to here nothing is scaled.
        max_position_embeddings: usize,
    },
    /// Llama 3.1 (Grattafiori et al. 2024, arXiv:2407.21783): wavelengths above
    /// `L / low_freq_factor` are stretched by `factor`, those below `L / high_freq_factor` are kept,
    /// and between them both are blended, with `L = original_max_position_embeddings`.
    Llama3 {
        /// How many times longer the context is.
        factor: f64,
        /// Bounds the wavelengths that are stretched in full.
        low_freq_factor: f64,
        /// Bounds the wavelengths that are kept.
        high_freq_factor: f64,
        /// The context length before the extension.
        original_max_position_embeddings: usize,
    },
    /// `YaRN` (Peng et al. 2023, arXiv:2309.00071): pairs with more than `beta_fast` turns in the
    /// original context are kept, those with fewer than `beta_slow` are interpolated, a linear ramp
    /// lies between; cosines and sines are scaled by an attention factor.
    Yarn {
        /// How many times longer the context is.
        factor: f64,
        /// Scale of cosines and sines; `None` takes it from the other fields.
        attention_factor: Option<f64>,
        /// Turns from which a pair is kept.
        beta_fast: f64,
        /// Turns below which a pair is interpolated.
        beta_slow: f64,
        /// Weight of `ln(factor)` in the numerator of the attention factor.
        mscale: Option<f64>,
        /// Weight of `ln(factor)` in its denominator; used where both weights are given.
        mscale_all_dim: Option<f64>,
        /// Whether the ends of the ramp are rounded outwards to whole pairs.
        truncate: bool,
        /// The context length before the extension.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// How far the scaling reaches for a model with this `max_position_embeddings`, which some
    /// checkpoints give before and some after the extension.
    pub(crate) fn reach(&self, max_position_embeddings: usize) -> usize {
        let times = |length: &usize, factor: &f64| (*length as f64 * factor) as usize;
        match self {
            Self::Default => max_position_embeddings,
            Self::Linear { factor } => times(&max_position_embeddings, factor),
            Self::Dynamic { factor, max_position_embeddings } => {
                times(max_position_embeddings, factor)
            }
            Self::Llama3 { factor, original_max_position_embeddings, .. }
            | Self::Yarn { factor, original_max_position_embeddings, .. } => {
                times(original_max_position_embeddings, factor)
            }
        }
    }
}

impl Rope {
    /// The angle per position of each of the `dim / 2` pairs.
    ///
    /// `seq_len` is the largest position plus one and matters to [`RopeScaling::Dynamic`] alone.
    pub fn inv_freq(&self, seq_len: usize) -> Vec<f32> {
        // Rounded once from double precision, on every platform. The vectorized power of torch is
        // the same but for one value in two hundred, which differs by one unit in the last place.
        let wavelengths = |theta: f32| self.steps().map(move |step| power(theta, step.into()));
        let plain = || wavelengths(self.theta as f32).map(f32::recip);
        match &self.scaling {
            RopeScaling::Default => plain().collect(),
            RopeScaling::Linear { factor } => plain().map(|f| f / *factor as f32).collect(),
            RopeScaling::Dynamic { factor, max_position_embeddings } => {
                let theta = self.dynamic_theta(*factor, seq_len, *max_position_embeddings);
                wavelengths(theta).map(f32::recip).collect()
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let context = *original_max_position_embeddings as f64;
                let (longest, shortest) =
                    ((context / low_freq_factor) as f32, (context / high_freq_factor) as f32);
                let low = *low_freq_factor as f32;
                let span = (high_freq_factor - low_freq_factor) as f32;
                let factor = *factor as f32;
                plain()
                    .map(|f| {
                        // torch divides a number by a tensor as its reciprocal times the number.
                        let wavelength = f.recip() * (2.0 * PI) as f32;
                        if wavelength > longest {
                            f / factor
                        } else if wavelength < shortest {
                            f
                        } else {
                            let keep = (wavelength.recip() * context as f32 - low) / span;
                            (1.0 - keep) * f / factor + keep * f
                        }
                    })
                    .collect()
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                truncate,
                original_max_position_embeddings,
                ..
            } => {
                let pair_of = |turns: &f64| {
                    self.pair_with_turns(*turns, *original_max_position_embeddings as f64)
                };
                let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(self.dim as f64 - 1.0));
                if low == high {
                    high += 0.001; // as transformers does against a division by zero
                }
                let (start, span, factor) = (low as f32, (high - low) as f32, *factor as f32);
                wavelengths(self.theta as f32)
                    .enumerate()
                    .map(|(pair, wavelength)| {
                        let ramp = ((pair as f32 - start) / span).clamp(0.0, 1.0);
                        let keep = 1.0 - ramp;
                        (factor * wavelength).recip() * (1.0 - keep) + wavelength.recip() * keep
                    })
                    .collect()
            }
        }
    }

    /// Whether the frequencies depend on the length of the text.
    pub(crate) fn depends_on_length(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. })
    }

    /// What cosines and sines are multiplied with: 1 except for [`RopeScaling::Yarn`].
    pub fn attention_factor(&self) -> f32 {
        let RopeScaling::Yarn { factor, attention_factor, mscale, mscale_all_dim, .. } =
            &self.scaling
        else {
            return 1.0;
        };
        let scale =
            |weight: f64| if *factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        let inferred = match (mscale, mscale_all_dim) {
            (Some(over), Some(under)) if *over != 0.0 && *under != 0.0 => {
                scale(*over) / scale(*under)
            }
            _ => scale(1.0),
        };
        attention_factor.unwrap_or(inferred) as f32
    }

    /// Cosines and sines, each `[positions.len(), dim / 2]` row by row, attention factor included.
    ///
    /// `seq_len` is that of [`Rope::inv_freq`].
    pub fn cos_sin(&self, positions: &[u32], seq_len: usize) -> (Vec<f32>, Vec<f32>) {
        let (frequencies, scale) = (self.inv_freq(seq_len), self.attention_factor());
        let angles = positions.iter().flat_map(|&p| frequencies.iter().map(move |&f| p as f32 * f));
        angles.map(|angle| (angle.cos() * scale, angle.sin() * scale)).unzip()
    }

    /// The exponents `2k / dim`.
    fn steps(&self) -> impl Iterator<Item = f32> {
        let dim = self.dim;
        (0..dim).step_by(2).map(move |i| i as f32 / dim as f32)
    }

    fn dynamic_theta(&self, factor: f64, seq_len: usize, context: usize) -> f32 {
        let exponent = self.dim as f64 / (self.dim as f64 - 2.0);
        if seq_len <= context {
            return self.theta as f32;
        }
        // Here transformers holds the length in a tensor and computes in single precision.
        let growth = factor as f32 * seq_len as f32 / context as f32 - (factor - 1.0) as f32;
        power(growth, exponent) * self.theta as f32
    }

    /// The (fractional) pair that makes `turns` turns in `context` positions.
    fn pair_with_turns(&self, turns: f64, context: f64) -> f64 {
        self.dim as f64 * (context / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln())
    }
}

fn power(base: f32, exponent: f64) -> f32 {
    f64::from(base).powf(exponent) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(theta: f64, dim: usize, scaling: RopeScaling) -> Rope {
        Rope { theta, dim, scaling }
    }

    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) / expected - 1.0).abs() < 2e-6, "{found} {expected}");
        }
    }

    #[test]
    fn default_frequencies_are_a_geometric_series() {
        // theta^(-2k/4) = 1, 10000^(-1/2)
        close(&rope(1e4, 4, RopeScaling::Default).inv_freq(1), &[1.0, 0.01]);
        let (cos, sin) = rope(1e4, 4, RopeScaling::Default).cos_sin(&[0, 3], 4);
        close(&cos, &[1.0, 1.0, 3f64.cos(), 0.03f64.cos()]);
        assert_eq!(sin[..2], [0.0, 0.0]);
        close(&sin[2..], &[3f64.sin(), 0.03f64.sin()]);
    }

    #[test]
    fn linear_divides_the_frequencies() {
        close(&rope(1e4, 4, RopeScaling::Linear { factor: 4.0 }).inv_freq(9), &[0.25, 0.0025]);
    }

    #[test]
    fn dynamic_grows_the_base_past_the_context() {
        let scaling = RopeScaling::Dynamic { factor: 2.0, max_position_embeddings: 8 };
        let rope = rope(1e4, 4, scaling);
        close(&rope.inv_freq(8), &[1.0, 0.01]);
        // (2 * 16 / 8 - 1)^(4 / 2) = 9, so theta is 90000, whose root is 300
        close(&rope.inv_freq(16), &[1.0, 1.0 / 300.0]);
    }

    #[test]
    fn llama3_keeps_short_waves_and_stretches_long_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        // Wavelengths 2 pi 10^k of k = 0 to 4 with bounds 2048 and 8192: three kept, 6283 blended,
        // 62832 stretched.
        let keep = (8192.0 / (2000.0 * PI) - 1.0) / 3.0;
        let blended = 1e-3 * ((1.0 - keep) / 8.0 + keep);
        close(&rope(1e5, 10, scaling).inv_freq(1), &[1.0, 0.1, 0.01, blended, 1e-4 / 8.0]);
    }

    #[test]
    fn yarn_ramps_from_kept_to_interpolated() {
        let yarn = |truncate| RopeScaling::Yarn {
            factor: 4.0,
            attention_factor: None,
            beta_fast: 32.0,
            beta_slow: 1.0,
            mscale: None,
            mscale_all_dim: None,
            truncate,
            original_max_position_embeddings: 4096,
        };
        // Pair with r turns: 5 ln(4096 / (2 pi r)) / ln 1e5 = 1.309 for 32 and 2.814 for 1, rounded
        // outwards 1 and 3: keep 1, 1, 1/2, 0, 0.
        let expected = [1.0, 0.1, 0.01 * (0.5 + 0.5 / 4.0), 1e-3 / 4.0, 1e-4 / 4.0];
        close(&rope(1e5, 10, yarn(true)).inv_freq(1), &expected);
        let pair = |turns: f64| 5.0 * (4096.0 / (2.0 * PI * turns)).ln() / 1e5f64.ln();
        let ramp = (2.0 - pair(32.0)) / (pair(1.0) - pair(32.0));
        let expected = [1.0, 0.1, 0.01 * (1.0 - ramp + ramp / 4.0), 1e-3 / 4.0, 1e-4 / 4.0];
        close(&rope(1e5, 10, yarn(false)).inv_freq(1), &expected);
        close(&[rope(1e5, 10, yarn(true)).attention_factor()], &[0.1 * 4f64.ln() + 1.0]);
    }

    #[test]
    fn yarn_attention_factor_is_given_inferred_or_a_ratio() {
        let factor = |attention_factor, mscale, mscale_all_dim, factor| {
            let scaling = RopeScaling::Yarn {
                factor,
                attention_factor,
                beta_fast: 32.0,
                beta_slow: 1.0,
                mscale,
                mscale_all_dim,
                truncate: true,
                original_max_position_embeddings: 4096,
            };
            rope(1e5, 10, scaling).attention_factor()
        };
        assert_eq!(factor(Some(0.5), Some(1.0), Some(1.0), 4.0), 0.5);
        assert_eq!(factor(None, Some(1.0), Some(1.0), 4.0), 1.0);
        assert_eq!(factor(None, None, None, 1.0), 1.0);
        let ratio = (0.1 * 4f64.ln() + 1.0) / (0.05 * 4f64.ln() + 1.0);
        close(&[factor(None, Some(1.0), Some(0.5), 4.0)], &[ratio]);
        close(&[factor(None, Some(0.0), Some(0.5), 4.0)], &[0.1 * 4f64.ln() + 1.0]);
    }
}
