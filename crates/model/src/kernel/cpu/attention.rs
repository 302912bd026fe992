//! Attention of grouped heads over an interval of keys for each query:
//!
//! ```text
//! s[j] = cap(scale · q · k[j])  for low ≤ j < high,   cap(s) = c tanh(s / c)
//! o    = Σⱼ softmax(s)[j] v[j]
//! ```
//!
//! Causal, sliding-window, padded, packed and cached attention are all intervals. Scores exist only
//! for one block of queries at a time. A query that sees no key gives zeros.

use std::ops::Range;

use super::dots::dots;
use super::matrix::{Rows, RowsMut, Size, Strided};
use super::parallel::each_with;
use super::simd::{exp_sum, max, simd, tanh};
use super::weighted::weighted;
use super::{Output, zeros};

/// Queries in a task.
const BLOCK: usize = 64;

/// Sizes and constants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    /// Queries of each row of the batch.
    pub(crate) queries: usize,
    /// Query heads.
    pub(crate) heads: usize,
    /// Key and value heads.
    pub(crate) kv_heads: usize,
    /// Numbers in a head.
    pub(crate) dim: usize,
    /// Rows of keys in each sequence of the key and value tensors.
    pub(crate) capacity: usize,
    /// Factor of the scores.
    pub(crate) scale: f32,
    /// Soft cap of the scores.
    pub(crate) softcap: Option<f32>,
}

/// Which keys the queries see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visible<'a> {
    /// For each row of the batch its sequence in the key and value tensors.
    pub(crate) sequences: &'a [usize],
    /// For each query the first key it sees, `[batch, queries]`.
    pub(crate) low: &'a [usize],
    /// For each query the key after the last it sees, `[batch, queries]`.
    pub(crate) high: &'a [usize],
}

impl Visible<'_> {
    /// The keys that a query sees.
    pub(super) fn interval(self, place: usize) -> Range<usize> {
        self.low[place]..self.high[place].max(self.low[place])
    }

    /// From the first key that one of the queries sees to the last one.
    pub(super) fn span(self, places: Range<usize>) -> Range<usize> {
        let seen = places.map(|place| self.interval(place)).filter(|seen| !seen.is_empty());
        seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
    }
}

/// Query rows at a constant distance that attend to one head of keys.
struct Group {
    /// First number of the first query, and of its output.
    start: usize,
    /// Distance of the queries, in numbers.
    stride: usize,
    /// Number of queries.
    rows: usize,
    /// Place of the first query in `low` and `high`.
    first: usize,
    /// Whether the queries are heads of one position, which see the same keys.
    one_position: bool,
    /// Place of the first query among the stats, where they lie next to each other.
    stats: usize,
}

impl Attention {
    /// Panics where the shapes do not fit.
    pub(super) fn check(&self, q: &[f32], k: &[f32], v: &[f32], visible: Visible<'_>) {
        let &Self { queries, heads, kv_heads, dim, capacity, .. } = self;
        let batch = visible.sequences.len();
        let keys = visible.sequences.iter().max().map_or(0, |last| (last + 1) * capacity);
        assert!(
            dim > 0 && kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "query heads share key heads"
        );
        assert!(q.len() == batch * queries * heads * dim, "shape of the queries");
        assert!(k.len() == v.len() && k.len() >= keys * kv_heads * dim, "shape of the keys");
        assert!(visible.low.len() == batch * queries && visible.high.len() == batch * queries);
        assert!(visible.high.iter().all(|&high| high <= capacity), "keys beyond the capacity");
    }
}

/// q `[batch, queries, heads, dim]`, k and v `[sequences, capacity, kv_heads, dim]` to
/// `[batch, queries, heads, dim]`.
pub(crate) fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    visible: Visible<'_>,
    a: Attention,
) -> Vec<f32> {
    forward(q, k, v, visible, a, None)
}

/// As [`attention`], with m = max s and 1 / Σ e^(s − m) of each query, `[batch, heads, queries, 2]`;
/// those of a query that sees no key mean nothing. Both, since their one number, lse(s) in f32, would
/// cost the weights some of their digits.
pub(crate) fn attention_with_stats(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    visible: Visible<'_>,
    a: Attention,
) -> (Vec<f32>, Vec<f32>) {
    a.check(q, k, v, visible);
    let mut stats = zeros(q.len() / a.dim * 2);
    let o = forward(q, k, v, visible, a, Some(Output(stats.as_mut_ptr())));
    (o, stats)
}

fn forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    visible: Visible<'_>,
    a: Attention,
    stats: Option<Output>,
) -> Vec<f32> {
    let Attention { queries, heads, kv_heads, dim, capacity, .. } = a;
    a.check(q, k, v, visible);
    let mut o = zeros(q.len());
    let batch = visible.sequences.len();
    let per_kv = heads / kv_heads;
    let blocks = if queries == 1 { 1 } else { queries.div_ceil(BLOCK) };
    let output = (Output(o.as_mut_ptr()), stats);

    let task = |scores: &mut Vec<f32>, task: usize| {
        // One position: the heads that share keys together. Many: a block of queries of one head.
        let (row, head, group) = if queries == 1 {
            let (row, kv) = (task / kv_heads, task % kv_heads);
            let start = (row * heads + kv * per_kv) * dim;
            let stats = row * heads + kv * per_kv;
            let group =
                Group { start, stride: dim, rows: per_kv, first: row, one_position: true, stats };
            (row, kv, group)
        } else {
            let (row, rest) = (task / (heads * blocks), task % (heads * blocks));
            let (head, query) = (rest / blocks, rest % blocks * BLOCK);
            let start = ((row * queries + query) * heads + head) * dim;
            let rows = BLOCK.min(queries - query);
            let first = row * queries + query;
            let stats = (row * heads + head) * queries + query;
            let stride = heads * dim;
            let group = Group { start, stride, rows, first, one_position: false, stats };
            (row, head / per_kv, group)
        };
        let sequence = (visible.sequences[row] * capacity * kv_heads + head) * dim;
        attend(q, &k[sequence..], &v[sequence..], visible, &group, a, scores, output);
    };
    let tasks = if queries == 1 { batch * kv_heads } else { batch * heads * blocks };
    each_with(tasks, Vec::new, task);
    o
}

/// One group of queries: scores, softmax, weighted sum. `k` and `v` start at the sequence's head.
#[expect(clippy::too_many_arguments, reason = "one call")]
fn attend(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    visible: Visible<'_>,
    group: &Group,
    a: Attention,
    scores: &mut Vec<f32>,
    (output, stats): (Output, Option<Output>),
) {
    let places = if group.one_position { 1 } else { group.rows };
    let Range { start, end } = visible.span(group.first..group.first + places);
    let span = end - start;
    if span == 0 {
        return; // The output is zero already.
    }
    if scores.len() < group.rows * span {
        scores.resize(group.rows * span, 0.0);
    }
    let scores = &mut scores[..group.rows * span];
    let stride = a.kv_heads * a.dim;
    let size = Size { m: group.rows, n: span, k: a.dim };
    let queries = Rows { start: q[group.start..].as_ptr(), stride: group.stride };
    let keys = Rows { start: k[start * stride..].as_ptr(), stride };
    // SAFETY: rows start .. end of k exist (checked above); the scores are this task's own.
    unsafe {
        dots(queries, keys, RowsMut { start: scores.as_mut_ptr(), stride: span }, size, false);
    }
    for (i, scores) in scores.chunks_exact_mut(span).enumerate() {
        let place = group.first + if group.one_position { 0 } else { i };
        let Range { start: low, end: high } = visible.interval(place);
        if low == high {
            scores.fill(0.0);
            continue;
        }
        scores[..low - start].fill(0.0);
        scores[high - start..].fill(0.0);
        let found = softmax(&mut scores[low - start..high - start], a.scale, a.softcap);
        if let Some(stats) = stats {
            // SAFETY: the queries of this group belong to this task alone.
            unsafe { *stats.get().cast::<[f32; 2]>().add(group.stats + i) = found };
        }
    }
    let size = Size { m: group.rows, n: a.dim, k: span };
    let weights = Strided { start: scores.as_ptr(), row: span, column: 1 };
    let values = Rows { start: v[start * stride..].as_ptr(), stride };
    // SAFETY: the queries of this group are written by this task alone.
    unsafe {
        let out = RowsMut { start: output.get().add(group.start), stride: group.stride };
        weighted(weights, values, out, size, false);
    }
}

#[inline(always)]
fn multiply(s: &mut [f32], factor: f32) {
    for s in s {
        *s *= factor;
    }
}

simd! {
    /// Turns scores into weights and returns their largest m and 1 / Σ e^(s − m).
    fn softmax(s: &mut [f32], scale: f32, softcap: Option<f32>) -> [f32; 2] {
        match softcap {
            None => multiply(s, scale),
            Some(cap) => s.iter_mut().for_each(|s| *s = cap * tanh(*s * scale / cap)),
        }
        let largest = max(s);
        let part = 1.0 / exp_sum(s, largest);
        multiply(s, part);
        [largest, part]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::cpu::tests::numbers;

    fn naive(q: &[f32], k: &[f32], v: &[f32], seen: Visible<'_>, a: Attention) -> Vec<f64> {
        let mut out = vec![0.0; q.len()];
        for row in 0..seen.sequences.len() {
            for query in 0..a.queries {
                for head in 0..a.heads {
                    let at = ((row * a.queries + query) * a.heads + head) * a.dim;
                    let kv = head / (a.heads / a.kv_heads);
                    let key = |j: usize| {
                        ((seen.sequences[row] * a.capacity + j) * a.kv_heads + kv) * a.dim
                    };
                    let place = row * a.queries + query;
                    let keys = seen.low[place]..seen.high[place];
                    let score = |j: usize| {
                        let dot: f64 = (0..a.dim)
                            .map(|c| f64::from(q[at + c]) * f64::from(k[key(j) + c]))
                            .sum();
                        let s = dot * f64::from(a.scale);
                        a.softcap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
                    };
                    let exps: Vec<f64> = keys.clone().map(|j| score(j).exp()).collect();
                    let sum: f64 = exps.iter().sum();
                    for (j, e) in keys.zip(exps) {
                        for c in 0..a.dim {
                            out[at + c] += e / sum * f64::from(v[key(j) + c]);
                        }
                    }
                }
            }
        }
        out
    }

    #[test]
    fn intervals_of_all_kinds_equal_the_naive_sum() {
        for (queries, heads, kv_heads, dim, softcap) in [
            (1, 4, 2, 12, None),
            (1, 6, 1, 64, Some(2.0)),
            (5, 3, 3, 7, None),
            (70, 2, 1, 33, None),
            (66, 4, 2, 16, Some(0.5)),
        ] {
            let capacity = 80;
            let a = Attention { queries, heads, kv_heads, dim, capacity, scale: 0.7, softcap };
            let q = numbers(2 * queries * heads * dim, 1);
            let k = numbers(3 * capacity * kv_heads * dim, 2);
            let v = numbers(3 * capacity * kv_heads * dim, 3);
            // Row 0: a window of 9 behind an offset of 10; row 1: packed pieces of 7.
            let high: Vec<usize> = (0..queries)
                .map(|i| i + 11)
                .chain((0..queries).map(|i| i + 1))
                .map(|high| high.min(capacity))
                .collect();
            let low: Vec<usize> = (0..queries)
                .map(|i| (i + 2).min(capacity - 1))
                .chain((0..queries).map(|i| i / 7 * 7))
                .collect();
            let seen = Visible { sequences: &[2, 0], low: &low, high: &high };
            let found = attention(&q, &k, &v, seen, a);
            for (found, expected) in found.iter().zip(naive(&q, &k, &v, seen, a)) {
                assert!((f64::from(*found) - expected).abs() < 2e-6, "{a:?}");
            }
        }
    }

    #[test]
    fn a_query_without_keys_gives_zeros() {
        let a = Attention {
            queries: 2,
            heads: 1,
            kv_heads: 1,
            dim: 3,
            capacity: 2,
            scale: 1.0,
            softcap: None,
        };
        let x = numbers(6, 1);
        let seen = Visible { sequences: &[0], low: &[2, 0], high: &[2, 1] };
        let found = attention(&x, &x, &x, seen, a);
        assert_eq!(found[..3], [0.0; 3]);
        assert_eq!(found[3..], x[..3]);
    }
}
