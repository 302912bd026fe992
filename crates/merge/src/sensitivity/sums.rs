//! What is summed over the elements of a tensor. Everything that the report says of a tensor follows from
//! its sums, and what it says of a layer from the sums of the layer's tensors.
//!
//! `x_i` is a model's tensor, `b` the base's, `d_i = x_i - b`. Without a base `d_i` is `x_i` itself.
//! `d_i` is taken in f32, products, sums and `x_i - x_j` in f64.

use pulp::Arch;

use crate::group::Block;
use crate::ops;

/// Elements whose signs are counted at a time, so that they stay in the first cache.
const PIECE: usize = 1024;

/// The sums of one tensor or several.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sums {
    pub(super) elements: u64,
    /// `||b||^2`, with a base.
    pub(super) base: Option<f64>,
    pub(super) models: Vec<ModelSums>,
    /// The pairs `(0, 1), (0, 2), .., (1, 2), ..`.
    pub(super) pairs: Vec<PairSums>,
    pub(super) together: TogetherSums,
}

/// The sums of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ModelSums {
    /// `||x||^2`.
    pub(super) x: f64,
    /// `<x, b>`.
    pub(super) x_b: f64,
    /// `||d||^2`.
    pub(super) d: f64,
    /// `sum |d|`.
    pub(super) size: f64,
    /// `max |d|`.
    pub(super) largest: f64,
    /// How many `d` are not zero.
    pub(super) changed: u64,
    /// `sum |d|` over the largest tenth of each tensor's elements.
    pub(super) tenth: f64,
    /// The same over the largest fifth.
    pub(super) fifth: f64,
    /// The sum of the stable ranks of so many matrices.
    pub(super) rank: f64,
    pub(super) ranked: u64,
}

/// The sums of two models.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PairSums {
    /// `<d_i, d_j>`.
    pub(super) dot: f64,
    /// `||x_i - x_j||^2`.
    pub(super) apart: f64,
    /// The signs of these two alone.
    pub(super) signs: TogetherSums,
}

/// The signs of several models' deltas.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct TogetherSums {
    /// Elements that at least two models changed.
    pub(super) shared: u64,
    /// Those of them where two signs meet.
    pub(super) conflicts: u64,
    /// How many those would be if signs were tossed: `sum 1 - 2^(1 - k)` for k models that changed an element.
    pub(super) by_chance: f64,
    /// `sum sum_i |d_i|` over the shared elements.
    pub(super) shared_size: f64,
    /// The same over those where two signs meet.
    pub(super) conflicts_size: f64,
    /// `sum sum_i |d_i|` over all elements.
    pub(super) size: f64,
    /// `sum |sum_i d_i|`: what is left of it in a sum of the deltas.
    pub(super) net: f64,
}

impl Sums {
    /// Nothing yet, for so many models.
    pub(super) fn new(models: usize, with_base: bool) -> Self {
        Self {
            elements: 0,
            base: with_base.then_some(0.0),
            models: vec![ModelSums::default(); models],
            pairs: vec![PairSums::default(); models * models.saturating_sub(1) / 2],
            together: TogetherSums::default(),
        }
    }

    /// Those of a block, whose inputs become deltas.
    pub(super) fn of(block: &mut Block, with_base: bool) -> Self {
        let mut sums = Self::new(block.inputs.len(), with_base);
        sums.elements = block.inputs.first().map_or(0, Vec::len) as u64;
        sums.base = with_base.then(|| ops::dot_f64(&block.base, &block.base));
        for (pair, (i, j)) in sums.pairs.iter_mut().zip(pairs(block.inputs.len())) {
            pair.apart = sum(&block.inputs[i], &block.inputs[j], |a, b| {
                (f64::from(a) - f64::from(b)).powi(2)
            });
        }
        for (model, x) in sums.models.iter_mut().zip(&mut block.inputs) {
            model.x = ops::dot_f64(x, x);
            if with_base {
                model.x_b = ops::dot_f64(x, &block.base);
                ops::sub_from(x, &block.base);
            }
            model.d = ops::dot_f64(x, x);
            model.size = sum(x, x, |d, _| f64::from(d.abs()));
            model.changed = sum(x, x, |d, _| f64::from(u8::from(d != 0.0))) as u64;
            model.largest = f64::from(x.iter().fold(0.0f32, |most, d| most.max(d.abs())));
        }
        let d = &block.inputs;
        for (pair, (i, j)) in sums.pairs.iter_mut().zip(pairs(d.len())) {
            pair.dot = ops::dot_f64(&d[i], &d[j]);
            pair.signs = TogetherSums::of(&[&d[i], &d[j]]);
        }
        sums.together = match &sums.pairs[..] {
            [one] => one.signs,
            _ => TogetherSums::of(&d.iter().map(Vec::as_slice).collect::<Vec<_>>()),
        };
        sums
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.elements += other.elements;
        self.base = self.base.zip(other.base).map(|(a, b)| a + b);
        for (model, other) in self.models.iter_mut().zip(&other.models) {
            model.add(other);
        }
        for (pair, other) in self.pairs.iter_mut().zip(&other.pairs) {
            pair.dot += other.dot;
            pair.apart += other.apart;
            pair.signs.add(&other.signs);
        }
        self.together.add(&other.together);
    }
}

impl ModelSums {
    fn add(&mut self, other: &Self) {
        self.x += other.x;
        self.x_b += other.x_b;
        self.d += other.d;
        self.size += other.size;
        self.largest = self.largest.max(other.largest);
        self.changed += other.changed;
        self.tenth += other.tenth;
        self.fifth += other.fifth;
        self.rank += other.rank;
        self.ranked += other.ranked;
    }
}

impl TogetherSums {
    fn of(deltas: &[&[f32]]) -> Self {
        let chance = |k: usize| if k < 2 { 0.0 } else { 1.0 - 0.5f64.powi(k as i32 - 1) };
        let chances: Vec<f64> = (0..=deltas.len()).map(chance).collect();
        let mut sums = Self::default();
        for start in (0..deltas.first().map_or(0, |d| d.len())).step_by(PIECE) {
            sums.add_piece(deltas, start, &chances);
        }
        sums
    }

    fn add_piece(&mut self, deltas: &[&[f32]], start: usize, chances: &[f64]) {
        // Sums and numbers of the deltas above and below zero, at each place.
        let (mut up, mut down) = ([0.0f64; PIECE], [0.0f64; PIECE]);
        let (mut ups, mut downs) = ([0u32; PIECE], [0u32; PIECE]);
        let mut length = 0;
        for d in deltas {
            let d = &d[start..d.len().min(start + PIECE)];
            length = d.len();
            Arch::new().dispatch(|| {
                for (k, d) in d.iter().enumerate() {
                    up[k] += f64::from(d.max(0.0));
                    down[k] += f64::from((-d).max(0.0));
                    ups[k] += u32::from(*d > 0.0);
                    downs[k] += u32::from(*d < 0.0);
                }
            });
        }
        for k in 0..length {
            let count = ups[k] + downs[k];
            let (up, down) = (up[k], down[k]);
            let shared = u8::from(count > 1);
            let conflict = u8::from(ups[k] > 0 && downs[k] > 0);
            self.shared += u64::from(shared);
            self.conflicts += u64::from(conflict);
            self.by_chance += chances[count as usize];
            self.shared_size += f64::from(shared) * (up + down);
            self.conflicts_size += f64::from(conflict) * (up + down);
            self.size += up + down;
            self.net += (up - down).abs();
        }
    }

    fn add(&mut self, other: &Self) {
        self.shared += other.shared;
        self.conflicts += other.conflicts;
        self.by_chance += other.by_chance;
        self.shared_size += other.shared_size;
        self.conflicts_size += other.conflicts_size;
        self.size += other.size;
        self.net += other.net;
    }
}

/// The pairs of `n` models, in the order of the sums.
pub(super) fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
}

/// `sum of(a_k, b_k)`, in f64 and in a fixed order.
fn sum(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> f64) -> f64 {
    const LANES: usize = 16;
    Arch::new().dispatch(
        #[inline(always)]
        || {
            let mut lanes = [0.0; LANES];
            let (a, a_rest) = a.as_chunks::<LANES>();
            let (b, b_rest) = b.as_chunks::<LANES>();
            for (a, b) in a.iter().zip(b) {
                for lane in 0..LANES {
                    lanes[lane] += of(a[lane], b[lane]);
                }
            }
            for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
                lanes[lane] += of(*a, *b);
            }
            lanes.iter().sum()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_in_order() {
        assert_eq!(pairs(3).collect::<Vec<_>>(), [(0, 1), (0, 2), (1, 2)]);
        assert_eq!(pairs(1).count(), 0);
    }

    /// Signs of three models: `+ + -` is a conflict, `+ 0 +` is none, `- 0 0` is not shared.
    #[test]
    fn signs_by_hand() {
        let d = [[3.0, 1.0, -2.0, 0.0], [1.0, 0.0, 0.0, 0.0], [-2.0, 1.0, 0.0, 0.0]];
        let sums = TogetherSums::of(&[&d[0], &d[1], &d[2]]);
        let expected = TogetherSums {
            shared: 2,
            conflicts: 1,
            by_chance: 0.75 + 0.5,
            shared_size: 8.0,
            conflicts_size: 6.0,
            size: 10.0,
            net: 2.0 + 2.0 + 2.0,
        };
        assert_eq!(sums, expected);
    }

    #[test]
    fn pieces_make_the_whole() {
        let wave = |by: f32| (0..5000).map(|k| (k as f32 * by).sin()).collect::<Vec<_>>();
        let d = [wave(0.3), wave(0.7)];
        let sums = TogetherSums::of(&[&d[0], &d[1]]);
        let conflicts = d[0].iter().zip(&d[1]).filter(|(a, b)| **a * **b < 0.0).count();
        assert_eq!(sums.conflicts, conflicts as u64);
    }
}
