//! Softmax over a vocabulary in chunks: the maximum and the weights' sum of each chunk.
//!
//! The chunks let later steps skip what cannot matter, and their sums in f64 keep the error of the
//! total near that of one exponential (1e-7).

use super::cut::Cut;

/// Logits in one chunk.
pub(super) const CHUNK: usize = 256;
/// Accumulators side by side, for the compiler to vectorise.
const LANES: usize = 16;

/// Per-chunk results of the last pass over the logits; kept for their memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Weights {
    maxima: Vec<f32>,
    sums: Vec<f64>,
}

impl Weights {
    /// The largest logit, NaN when there is one.
    pub(super) fn maximum(&mut self, logits: &[f32]) -> f32 {
        self.maxima.clear();
        self.maxima.extend(logits.chunks(CHUNK).map(chunk_maximum));
        self.maxima.iter().fold(f32::NEG_INFINITY, |a, &b| if a > b || a.is_nan() { a } else { b })
    }

    /// The largest logit of each chunk, from the last [`Weights::maximum`].
    pub(super) fn chunk_maxima(&self) -> &[f32] {
        &self.maxima
    }

    /// The lowest id of the largest logit.
    pub(super) fn argmax(&self, logits: &[f32], max: f32) -> usize {
        let chunk = self.maxima.iter().position(|&m| m == max).unwrap_or(0) * CHUNK;
        chunk + logits[chunk..].iter().position(|&l| l == max).unwrap_or(0)
    }

    /// The sum of the kept weights; the largest weight is 1.
    pub(super) fn sum(&mut self, logits: &[f32], max: f32, temperature: f32, cut: Cut) -> f64 {
        self.sums.clear();
        for (index, (chunk, &chunk_max)) in logits.chunks(CHUNK).zip(&self.maxima).enumerate() {
            // Ids after the cut's id need a logit strictly above the cut's.
            let split =
                (cut.id as usize).saturating_add(1).saturating_sub(index * CHUNK).min(chunk.len());
            let sum = if chunk_max < cut.logit {
                0.0
            } else {
                let (before, after) = chunk.split_at(split);
                chunk_sum(before, max, temperature, cut.logit)
                    + chunk_sum(after, max, temperature, cut.logit.next_up())
            };
            self.sums.push(sum);
        }
        self.sums.iter().sum()
    }

    /// The kept token at which the running sum of the weights, by rising id, exceeds `target`.
    /// The chunks' sums must be those of [`Weights::sum`] with the same arguments.
    pub(super) fn find(
        &self,
        logits: &[f32],
        max: f32,
        temperature: f32,
        cut: Cut,
        mut target: f64,
    ) -> usize {
        // Rounding can leave a `target` just beyond the end; the last possible token gets it.
        let mut chosen = 0;
        for (index, &sum) in self.sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
            chosen = index;
            if target < sum {
                break;
            }
            target -= sum;
        }
        let start = chosen * CHUNK;
        for (id, &logit) in logits.iter().enumerate().skip(start).take(CHUNK) {
            let weight = weight(logit, max, temperature);
            if weight == 0.0 || !cut.keeps(logit, id as u32) {
                continue;
            }
            chosen = id;
            if target < weight {
                break;
            }
            target -= weight;
        }
        chosen
    }
}

/// `exp((logit − max) / T)`.
pub(super) fn weight(logit: f32, max: f32, temperature: f32) -> f64 {
    f64::from(exp((logit - max) / temperature))
}

fn chunk_maximum(chunk: &[f32]) -> f32 {
    let (mut maxima, mut nans) = ([f32::NEG_INFINITY; LANES], [false; LANES]);
    let (rows, rest) = chunk.as_chunks::<LANES>();
    for row in rows {
        for lane in 0..LANES {
            maxima[lane] = if row[lane] > maxima[lane] { row[lane] } else { maxima[lane] };
            nans[lane] |= row[lane].is_nan();
        }
    }
    if nans.contains(&true) || rest.iter().any(|l| l.is_nan()) {
        return f32::NAN;
    }
    maxima.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if a > b { a } else { b })
}

/// The sum of the weights of the logits of at least `threshold`.
fn chunk_sum(chunk: &[f32], max: f32, temperature: f32, threshold: f32) -> f64 {
    let kept = |logit: f32| {
        let weight = exp((logit - max) / temperature);
        if logit >= threshold { weight } else { 0.0 }
    };
    let mut sums = [0.0_f32; LANES];
    let (rows, rest) = chunk.as_chunks::<LANES>();
    for row in rows {
        for lane in 0..LANES {
            sums[lane] += kept(row[lane]);
        }
    }
    let rest = rest.iter().map(|&logit| f64::from(kept(logit)));
    sums.iter().map(|&sum| f64::from(sum)).chain(rest).sum()
}

/// `e^x` for `x ≤ 0` to 1e-7 relative, 0 below −87 (the weight of nothing that can be drawn).
///
/// `std`'s calls the C library for each number, which forbids vectors: 10 times slower. The scheme
/// is that of Cephes: `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, a polynomial for `e^r`, and `2^n` put
/// together from its bits.
fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    /// 1.5 · 2²³: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 = `HIGH` + `LOW`, `HIGH` short enough for `n · HIGH` to be exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > LOWEST { x } else { LOWEST };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * HIGH - n * LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    p = p * r * r + r + 1.0;
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(0x3F80_0000));
    if x < LOWEST { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_std() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        for i in 0..=870_000 {
            let x = -(i as f32) / 10_000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 1.5e-7, "exp({x}) is off by {error}");
        }
    }

    #[test]
    fn nan_is_found_wherever_it_is() {
        for length in [1, 15, 16, 17, 300] {
            for at in 0..length {
                let mut logits = vec![1.0; length];
                assert_eq!(Weights::default().maximum(&logits), 1.0);
                logits[at] = f32::NAN;
                assert!(Weights::default().maximum(&logits).is_nan());
            }
        }
    }
}
