//! The gradients of [`super::attention`], from its output o and the stats of its scores: the weights are
//! computed anew for a block of queries and a chunk of keys at a time.
//!
//! ```text
//! p = exp(s − m) / l         dp = dy · v            δ = dy · o
//! ds = p (dp − δ) cap′       cap′ = scale (1 − (s / c)²)
//! dv += p dy                 dk += ds q             dq = Σ ds k
//! ```
//!
//! One chunk of keys passes after the other. A task has one head of keys and the queries that see it, so
//! that nobody else writes its dk, dv and dq; what the chunks give to a query's dq is summed in their
//! order. Chunks depend on the number of keys alone, so the number of threads changes nothing.

use std::ops::Range;

use super::attention::{Attention, Visible};
use super::matrix::{Rows, RowsMut, Size, Strided};
use super::pack::pack_transposed;
use super::parallel::each_with;
use super::simd::{exp, simd, tanh};
use super::weighted::{Tile, weighted, weighted_panels};
use super::{Output, zeros};

/// Queries whose weights exist at a time.
const BLOCK: usize = 48;
/// Keys of a pass.
const CHUNK: usize = 512;

/// What the forward pass had and made, and the gradient by the latter.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    /// `[batch, queries, heads, dim]`
    pub(crate) q: &'a [f32],
    /// `[sequences, capacity, kv_heads, dim]`
    pub(crate) k: &'a [f32],
    /// As k.
    pub(crate) v: &'a [f32],
    /// As q.
    pub(crate) o: &'a [f32],
    /// m and 1 / l, `[batch, heads, queries, 2]`
    pub(crate) stats: &'a [f32],
    /// As q.
    pub(crate) dy: &'a [f32],
}

/// The gradients by q, k and v, of those that are wanted.
pub(crate) fn attention_backward(
    pass: Pass<'_>,
    visible: Visible<'_>,
    a: Attention,
    wanted: [bool; 3],
) -> [Option<Vec<f32>>; 3] {
    let Attention { kv_heads, dim, capacity, .. } = a;
    let Pass { q, k, v, o, stats, dy } = pass;
    a.check(q, k, v, visible);
    assert!(o.len() == q.len() && dy.len() == q.len(), "shape of the output");
    assert!(stats.len() * dim == 2 * q.len(), "shape of the stats");
    let [mut dq, mut dk, mut dv] =
        [(wanted[0], q), (wanted[1], k), (wanted[2], v)].map(|(w, x)| w.then(|| zeros(x.len())));
    let output = |numbers: &mut Option<Vec<f32>>| numbers.as_mut().map(|x| Output(x.as_mut_ptr()));
    let backward = Backward {
        pass,
        visible,
        a,
        dq: output(&mut dq),
        dk: output(&mut dk),
        dv: output(&mut dv),
    };
    let sequences = k.len() / (capacity * kv_heads * dim).max(1);
    for chunk in 0..capacity.div_ceil(CHUNK) {
        let task = |space: &mut Space, head: usize| {
            backward.task(head / kv_heads, head % kv_heads, chunk, space);
        };
        each_with(sequences * kv_heads, Space::default, task);
    }
    [dq, dk, dv]
}

/// Memory of a task.
#[derive(Default)]
struct Space {
    /// Keys and values of the chunk, transposed in panels.
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Scores, then weights; dp, then ds.
    p: Vec<f32>,
    ds: Vec<f32>,
}

struct Backward<'a> {
    pass: Pass<'a>,
    visible: Visible<'a>,
    a: Attention,
    dq: Option<Output>,
    dk: Option<Output>,
    dv: Option<Output>,
}

impl Backward<'_> {
    /// All queries of one head of keys of a sequence, with one chunk of its keys. The rows that share the
    /// sequence come one after the other.
    fn task(&self, sequence: usize, kv: usize, chunk: usize, space: &mut Space) {
        let Attention { queries, heads, kv_heads, dim, capacity, .. } = self.a;
        let per_kv = heads / kv_heads;
        let chunk = chunk * CHUNK..((chunk + 1) * CHUNK).min(capacity);
        let rows = || {
            let all = self.visible.sequences.iter().enumerate();
            all.filter(move |(_, s)| **s == sequence).map(|(row, _)| row)
        };
        let seen =
            rows().map(|row| within(self.visible.span(row * queries..(row + 1) * queries), &chunk));
        let seen = seen.filter(|seen| !seen.is_empty());
        let Some(keys) = seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)) else { return };
        let first = ((sequence * capacity + keys.start) * kv_heads + kv) * dim;
        let with_scores = self.dk.is_some() || self.dq.is_some();
        transposed(&self.pass.k[first..], self.a, keys.len(), &mut space.keys);
        if with_scores {
            transposed(&self.pass.v[first..], self.a, keys.len(), &mut space.values);
        }
        for row in rows() {
            for head in kv * per_kv..(kv + 1) * per_kv {
                for query in (0..queries).step_by(BLOCK) {
                    let block = row * queries + query..row * queries + (query + BLOCK).min(queries);
                    let span = self.visible.span(block.clone());
                    let seen = within(span.clone(), &keys);
                    if seen.is_empty() {
                        continue;
                    }
                    let add = chunk.start > span.start;
                    self.block(block, head, &keys, seen, (first, add), space);
                }
            }
        }
    }

    /// A block of queries of one head, given by their places in `[batch, queries]`, with the keys
    /// `seen` of those that are transposed in `space`.
    fn block(
        &self,
        block: Range<usize>,
        head: usize,
        keys: &Range<usize>,
        seen: Range<usize>,
        (first, add): (usize, bool),
        space: &mut Space,
    ) {
        let Attention { queries, heads, kv_heads, dim, scale, softcap, .. } = self.a;
        let Pass { q, k, o, stats, dy, .. } = self.pass;
        let width = Tile::here().width;
        // From the panel that has the first key.
        let skipped = (seen.start - keys.start) / width * width;
        let (from, rows) = (keys.start + skipped, block.len());
        let columns = seen.end - from;
        let stride = heads * dim;
        let start = block.start * stride + head * dim;
        let key_stride = kv_heads * dim;
        let first_key = first + skipped * key_stride;
        let query_rows = |numbers: &[f32]| Rows { start: numbers[start..].as_ptr(), stride };
        let scores = Size { m: rows, n: columns, k: dim };
        space.p.resize(BLOCK * CHUNK, 0.0);
        space.ds.resize(BLOCK * CHUNK, 0.0);
        let products = |x: &[f32], panels: &[f32], y: &mut [f32]| {
            let x = Strided { start: x[start..].as_ptr(), row: stride, column: 1 };
            let y = RowsMut { start: y.as_mut_ptr(), stride: columns };
            // SAFETY: the queries of the block, the panels from that of the first key on, a matrix of
            // at most BLOCK by CHUNK.
            unsafe { weighted_panels(x, panels[skipped * dim..].as_ptr(), y, scores, false) };
        };
        products(q, &space.keys, &mut space.p);
        let with_scores = self.dk.is_some() || self.dq.is_some();
        if with_scores {
            products(dy, &space.values, &mut space.ds);
        }
        for (i, place) in block.clone().enumerate() {
            // Nothing, where the query sees other keys alone.
            let Range { start: low, end: high } = self.visible.interval(place);
            let low = low.clamp(from, seen.end);
            let seen = low - from..high.clamp(low, seen.end) - from;
            let at = start + i * stride;
            let delta = dot_of(&dy[at..at + dim], &o[at..at + dim]);
            let stats =
                &stats[2 * ((place / queries * heads + head) * queries + place % queries)..];
            let p = &mut space.p[i * columns..(i + 1) * columns];
            let ds = &mut space.ds[i * columns..(i + 1) * columns];
            hide(p, &seen);
            hide(ds, &seen);
            row_of_ds(
                &mut p[seen.clone()],
                &mut ds[seen],
                [stats[0], stats[1]],
                delta,
                scale,
                softcap,
            );
        }
        // A row of weights is a column of the left factor.
        let weights_of_keys = |p: &[f32]| Strided { start: p.as_ptr(), row: 1, column: columns };
        let by_key = Size { m: columns, n: dim, k: rows };
        // SAFETY: the block's queries, the chunk's keys, whose gradients this task alone writes; of
        // dq it alone writes this head of the block.
        unsafe {
            let rows_of_keys =
                |out: Output| RowsMut { start: out.get().add(first_key), stride: key_stride };
            if let Some(dv) = self.dv {
                let p = weights_of_keys(&space.p);
                weighted(p, query_rows(dy), rows_of_keys(dv), by_key, true);
            }
            if let Some(dk) = self.dk {
                let ds = weights_of_keys(&space.ds);
                weighted(ds, query_rows(q), rows_of_keys(dk), by_key, true);
            }
            if let Some(dq) = self.dq {
                let ds = Strided { start: space.ds.as_ptr(), row: columns, column: 1 };
                let k = Rows { start: k[first_key..].as_ptr(), stride: key_stride };
                let dq = RowsMut { start: dq.get().add(start), stride };
                weighted(ds, k, dq, Size { m: rows, n: dim, k: columns }, add);
            }
        }
    }
}

fn within(a: Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// Rows of keys (or values) of one head, transposed into panels.
fn transposed(rows: &[f32], a: Attention, count: usize, panels: &mut Vec<f32>) {
    let width = Tile::here().width;
    panels.resize(count.next_multiple_of(width) * a.dim, 0.0);
    let from = Rows { start: rows.as_ptr(), stride: a.kv_heads * a.dim };
    let size = Size { m: width, n: a.dim, k: count };
    // SAFETY: `count` keys of the head exist, the panels have room for them.
    unsafe { pack_transposed(from, size, panels.as_mut_ptr(), a.dim * width) };
}

/// Zero outside of `seen`.
fn hide(row: &mut [f32], seen: &Range<usize>) {
    row[..seen.start].fill(0.0);
    row[seen.end..].fill(0.0);
}

simd! {
    /// dy · o, in f64: it is subtracted from numbers near it.
    fn dot_of(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [0f64; 8];
        for (a, b) in a.chunks(8).zip(b.chunks(8)) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum += f64::from(*a) * f64::from(*b);
            }
        }
        sums.iter().sum::<f64>() as f32
    }
}

simd! {
    /// q · k and dp to p and ds.
    fn row_of_ds(
        s: &mut [f32],
        dp: &mut [f32],
        stats: [f32; 2],
        delta: f32,
        scale: f32,
        softcap: Option<f32>,
    ) {
        let [m, part] = stats;
        match softcap {
            None => {
                for (s, dp) in s.iter_mut().zip(dp) {
                    let p = exp(*s * scale - m) * part;
                    (*s, *dp) = (p, p * (*dp - delta) * scale);
                }
            }
            Some(cap) => {
                for (s, dp) in s.iter_mut().zip(dp) {
                    let t = tanh(*s * scale / cap);
                    let p = exp(cap * t - m) * part;
                    (*s, *dp) = (p, p * (*dp - delta) * scale * (1.0 - t * t));
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::attention::attention_with_stats;
    use super::super::tests::numbers;
    use super::*;

    fn found(sizes: Attention, seen: Visible<'_>, sequences: usize) -> [Vec<f32>; 3] {
        let [q, k, v, dy] = inputs(sizes, seen, sequences);
        let (o, stats) = attention_with_stats(&q, &k, &v, seen, sizes);
        let pass = Pass { q: &q, k: &k, v: &v, o: &o, stats: &stats, dy: &dy };
        attention_backward(pass, seen, sizes, [true; 3]).map(Option::unwrap)
    }

    fn inputs(a: Attention, seen: Visible<'_>, sequences: usize) -> [Vec<f32>; 4] {
        let q = seen.low.len() * a.heads * a.dim;
        let k = sequences * a.capacity * a.kv_heads * a.dim;
        [numbers(q, 1), numbers(k, 2), numbers(k, 3), numbers(q, 4)]
    }

    /// dq, dk and dv by definition in f64, each number with the sum of its terms' sizes.
    fn by_definition(a: Attention, seen: Visible<'_>, sequences: usize) -> [Vec<[f64; 2]>; 3] {
        let [q, k, v, dy] = inputs(a, seen, sequences)
            .map(|x| -> Vec<f64> { x.into_iter().map(f64::from).collect() });
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut sums = [&q, &k, &v].map(|x| vec![[0.0; 2]; x.len()]);
        let mut add = |i: usize, at: usize, [factor, size]: [f64; 2], x: &[f64]| {
            for (sum, x) in sums[i][at..].iter_mut().zip(x) {
                *sum = [sum[0] + factor * x, sum[1] + size * x.abs()];
            }
        };
        for place in 0..seen.low.len() {
            let sequence = seen.sequences[place / a.queries];
            for head in 0..a.heads {
                let at = (place * a.heads + head) * a.dim;
                let key = |j: usize| {
                    ((sequence * a.capacity + j) * a.kv_heads + head / (a.heads / a.kv_heads))
                        * a.dim
                };
                let of = |x: &[f64], at: usize| x[at..at + a.dim].to_vec();
                let (q, dy) = (of(&q, at), of(&dy, at));
                let scale = f64::from(a.scale);
                let e = |j| (dot(&q, &of(&k, key(j))) * scale).exp();
                let total: f64 = seen.interval(place).map(e).sum();
                let dp = |j| dot(&dy, &of(&v, key(j)));
                let delta: f64 = seen.interval(place).map(|j| e(j) / total * dp(j)).sum();
                for j in seen.interval(place) {
                    let p = e(j) / total;
                    let ds = [dp(j) - delta, dp(j).abs() + delta.abs()].map(|dp| p * dp * scale);
                    add(0, at, ds, &of(&k, key(j)));
                    add(1, key(j), ds, &q);
                    add(2, key(j), [p, p], &dy);
                }
            }
        }
        sums
    }

    /// One query q = 1, keys ln 3 and 0, values 1 and 5, scale 1: p = (3/4, 1/4), o = 2. With dy = 1:
    /// ds = (3/4 (1 − 2), 1/4 (5 − 2)) = (−3/4, 3/4).
    #[test]
    fn by_hand() {
        let sizes = Attention {
            queries: 1,
            heads: 1,
            kv_heads: 1,
            dim: 1,
            capacity: 2,
            scale: 1.0,
            softcap: None,
        };
        let seen = Visible { sequences: &[0], low: &[0], high: &[2] };
        let (q, k, v, dy) = ([1.0], [3_f32.ln(), 0.0], [1.0, 5.0], [1.0]);
        let (o, stats) = attention_with_stats(&q, &k, &v, seen, sizes);
        assert!((stats[0] - 3_f32.ln()).abs() < 1e-6 && (stats[1] - 0.75).abs() < 1e-6);
        let pass = Pass { q: &q, k: &k, v: &v, o: &o, stats: &stats, dy: &dy };
        let found = attention_backward(pass, seen, sizes, [true; 3]).map(Option::unwrap);
        let expected = [vec![-0.75 * 3_f32.ln()], vec![-0.75, 0.75], vec![0.75, 0.25]];
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    /// The last block of the second row is short, and the only one that sees the last keys.
    #[test]
    fn a_short_block_that_alone_sees_far() {
        let sizes = Attention {
            queries: 49,
            heads: 1,
            kv_heads: 1,
            dim: 4,
            capacity: 1100,
            scale: 0.5,
            softcap: None,
        };
        let mut high: Vec<usize> = (0..2 * 49).map(|i| i % 49 + 1).collect();
        high[2 * 49 - 1] = 1100;
        let seen = Visible { sequences: &[0, 1], low: &[0; 2 * 49], high: &high };
        near(&found(sizes, seen, 2), &by_definition(sizes, seen, 2));
    }

    fn near(found: &[Vec<f32>; 3], expected: &[Vec<[f64; 2]>; 3]) {
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            let [expected, size] = *expected;
            let distance = (f64::from(*found) - expected).abs();
            assert!(distance <= 1e-5 * size, "{found} is not {expected} of terms of {size}");
        }
    }

    #[test]
    fn many_keys_on_any_number_of_threads() {
        let sizes = Attention {
            queries: 1100,
            heads: 2,
            kv_heads: 1,
            dim: 8,
            capacity: 1100,
            scale: 0.5,
            softcap: None,
        };
        // The first row sees all that came before, but its last 90 queries nothing; no row has sequence 0.
        let high: Vec<usize> = (1..=1100).chain((0..1100).map(|i| i / 100 * 100 + 1)).collect();
        let low: Vec<usize> = (0..1010)
            .map(|_| 0)
            .chain(1011..=1100)
            .chain((0..1100).map(|i| i / 100 * 100))
            .collect();
        let seen = Visible { sequences: &[2, 1], low: &low, high: &high };
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| found(sizes, seen, 3))
        };
        let [dq, dk, dv] = with(1);
        for threads in [2, 3, 7] {
            assert!(with(threads) == [dq.clone(), dk.clone(), dv.clone()], "{threads} threads");
        }
        // What is not seen, and what sees nothing, has no terms.
        let expected = by_definition(sizes, seen, 3);
        near(&[dq, dk, dv], &expected);
        assert!(expected[0][1010 * 16].eq(&[0.0; 2]) && expected[0][1009 * 16][1] > 0.0);
    }
}
