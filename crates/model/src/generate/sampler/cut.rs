//! top-k, top-p and min-p as one threshold, found without sorting the vocabulary.

use super::softmax::{CHUNK, Weights, weight};

/// Keeps the tokens down to (`logit`, `id`) in the order of falling logits, then rising ids.
///
/// Of equal logits at the border of top-p the lower ids stay. transformers leaves open which ones
/// do: it goes by a sort that is not stable, and keeps the same number of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    pub(super) logit: f32,
    pub(super) id: u32,
}

impl Cut {
    /// Keeps all.
    pub(super) const NONE: Self = Self { logit: f32::NEG_INFINITY, id: u32::MAX };

    pub(super) fn keeps(self, logit: f32, id: u32) -> bool {
        logit > self.logit || (logit == self.logit && id <= self.id)
    }

    /// The cut that keeps less.
    pub(super) fn stricter(self, other: Self) -> Self {
        if self.keeps(other.logit, other.id) { other } else { self }
    }
}

/// Keeps the logits of at least the `k`-th largest, `k` in `1..logits.len()`.
pub(super) fn top_k(logits: &[f32], chunk_maxima: &[f32], k: usize, keys: &mut Vec<u64>) -> Cut {
    // At least k logits reach the k-th largest of the chunks' maxima, so the k-th largest logit
    // does: a lower bound that leaves few candidates.
    let mut bound = f32::NEG_INFINITY;
    if k <= chunk_maxima.len() {
        keys.clear();
        keys.extend(chunk_maxima.iter().map(|&max| key(max, 0)));
        bound = logit_of(*keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a)).1);
    }
    candidates(logits, chunk_maxima, bound, Cut::NONE, keys);
    let logit = logit_of(*keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a)).1);
    Cut { logit, id: u32::MAX }
}

/// Keeps the weights of at least `min_p` times the largest: `l ≥ max + T ln(min_p)`.
pub(super) fn min_p(max: f32, temperature: f32, min_p: f32) -> Cut {
    let (max, temperature) = (f64::from(max), f64::from(temperature));
    let bound = max + temperature * f64::from(min_p).ln();
    // A token that lies on the bound stays, also when f32 moved its logit a little.
    let slack = 6e-8 * (bound.abs() + temperature);
    Cut { logit: ((bound - slack) as f32).min(max as f32), id: u32::MAX }
}

/// A top-p below 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nucleus {
    /// `1 − p`: the probability that may be cut off.
    tail: f64,
}

impl Nucleus {
    /// `None` when `top_p` keeps all.
    pub(super) fn new(top_p: f32) -> Option<Self> {
        // The decimal that was written, 0.8 and not 0.800000012: it decides whether a token on
        // the border stays.
        let top_p: f64 = top_p.to_string().parse().unwrap_or(f64::from(top_p));
        (top_p < 1.0).then_some(Self { tail: 1.0 - top_p })
    }

    /// Whether a token stays when the tokens before it, by falling logit, have the share `before`
    /// of the weight: whether they alone do not reach `p`. Compared in f32, as transformers does.
    fn keeps_after(self, before: f64) -> bool {
        (1.0 - before) as f32 > self.tail as f32
    }

    /// Narrows `cut` to the smallest set that has `p` of its weight.
    pub(super) fn cut(
        self,
        logits: &[f32],
        max: f32,
        temperature: f32,
        cut: Cut,
        weights: &mut Weights,
        keys: &mut Vec<u64>,
    ) -> Cut {
        let sum = weights.sum(logits, max, temperature, cut);
        // All weights below this together are less than the tail, so none of them can stay.
        let smallest = self.tail * sum / logits.len() as f64;
        let bound = f64::from(max) + f64::from(temperature) * smallest.ln();
        let bound = (bound - 1e-5 * (1.0 + bound.abs())) as f32;
        candidates(logits, weights.chunk_maxima(), bound, cut, keys);

        // The border is found like the n-th largest: halve the range that holds it, by weight.
        let share = |key: u64| weight(logit_of(key), max, temperature) / sum;
        let (mut low, mut high, mut before) = (0, keys.len(), 0.0);
        while high - low > 32 {
            let middle = usize::midpoint(low, high);
            keys[low..high].select_nth_unstable_by(middle - low, |a, b| b.cmp(a));
            let upper: f64 = keys[low..middle].iter().map(|&key| share(key)).sum();
            if self.keeps_after(before + upper) {
                before += upper;
                low = middle;
            } else {
                high = middle;
            }
        }
        keys[low..high].sort_unstable_by(|a, b| b.cmp(a));
        let mut last = keys[low];
        for &key in &keys[low..high] {
            if key != last && !self.keeps_after(before) {
                break;
            }
            last = key;
            before += share(key);
        }
        Cut { logit: logit_of(last), id: !(last as u32) }
    }
}

/// Puts the keys of the kept logits of at least `bound` into `keys`.
fn candidates(logits: &[f32], chunk_maxima: &[f32], bound: f32, cut: Cut, keys: &mut Vec<u64>) {
    keys.clear();
    for (index, (chunk, &chunk_max)) in logits.chunks(CHUNK).zip(chunk_maxima).enumerate() {
        if chunk_max < bound || chunk_max < cut.logit {
            continue;
        }
        let ids = (index * CHUNK) as u32..;
        let kept = ids.zip(chunk).filter(|&(id, &l)| l >= bound && cut.keeps(l, id));
        keys.extend(kept.map(|(id, &logit)| key(logit, id)));
    }
}

/// A number that rises with the logit, and for equal logits falls with the id.
fn key(logit: f32, id: u32) -> u64 {
    // Adding 0 makes −0 to 0, which is equal as a logit.
    let bits = (logit + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(ordered) << 32 | u64::from(!id)
}

fn logit_of(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_rise_with_the_logit_and_fall_with_the_id() {
        let logits = [f32::NEG_INFINITY, f32::MIN, -1.5, -f32::MIN_POSITIVE, 0.0, 1e-40, 2.0];
        for pair in logits.windows(2) {
            assert!(key(pair[0], 0) < key(pair[1], 9), "{pair:?}");
        }
        assert!(key(-1.5, 3) > key(-1.5, 4));
        assert_eq!(key(-0.0, 3), key(0.0, 3));
        assert!(logits.iter().all(|&l| logit_of(key(l, 7)) == l));
    }

    #[test]
    fn the_stricter_cut_wins() {
        let (low, high) = (Cut { logit: 1.0, id: 6 }, Cut { logit: 1.0, id: 5 });
        assert_eq!(low.stricter(high), high);
        assert_eq!(high.stricter(low), high);
        assert_eq!(Cut::NONE.stricter(low), low);
    }
}
