//! y += s (drop(x) Aᵀ) Bᵀ and its gradients: passes over a few rows at a time, so that what is read
//! twice is still in the cache.

use rayon::prelude::*;

use super::dots::dots;
use super::lanes::Element;
use super::linear::Weight;
use super::matrix::{Rows, RowsMut, Size, Strided};
use super::simd::simd;
use super::weighted::weighted;
use super::{grain, zeros};
use crate::kernel::random::{Dropout, Stream, uniform};

/// The factors of an update: A `[rank, inner]`, B `[out, rank]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factors<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
    pub(crate) inner: usize,
    pub(crate) rank: usize,
    pub(crate) out: usize,
    pub(crate) scale: f32,
    pub(crate) dropout: Option<Dropout>,
}

/// Rows in a task.
const ROWS: usize = 32;
/// Columns of a gradient in a task, and rows of its factors in one pass: both stay in the cache.
const GRADIENT_COLUMNS: usize = 128;
const GRADIENT_DEPTH: usize = 256;

impl Factors<'_> {
    /// s B, transposed to `[rank, out]` where products go along its columns.
    fn scaled_b(&self, transposed: bool) -> Vec<f32> {
        let (rank, out) = (self.rank, self.out);
        if !transposed {
            return self.b.iter().map(|b| b * self.scale).collect();
        }
        let mut b = vec![0.0; rank * out];
        for (i, row) in self.b.chunks(rank.max(1)).enumerate() {
            row.iter().enumerate().for_each(|(j, value)| b[j * out + i] = value * self.scale);
        }
        b
    }
}

fn matrix(numbers: &[f32], stride: usize) -> Rows<f32> {
    Rows { start: numbers.as_ptr(), stride }
}

fn matrix_mut(numbers: &mut [f32], stride: usize) -> RowsMut {
    RowsMut { start: numbers.as_mut_ptr(), stride }
}

fn rows_of(numbers: &[f32], stride: usize) -> Strided {
    Strided { start: numbers.as_ptr(), row: stride, column: 1 }
}

/// Adds the update to y `[m, out]` and returns h = drop(x) Aᵀ, `[m, rank]`.
pub(crate) fn add(y: &mut [f32], x: &[f32], factors: &Factors<'_>) -> Vec<f32> {
    let &Factors { a, inner, rank, out, dropout, .. } = factors;
    let m = x.len() / inner.max(1);
    assert!(x.len() == m * inner && y.len() == m * out, "shapes of an update");
    assert!(a.len() == rank * inner && factors.b.len() == out * rank, "shapes of factors");
    let mut h = zeros(m * rank);
    let b = factors.scaled_b(true);
    let tasks = (y.par_chunks_mut(ROWS * out), h.par_chunks_mut(ROWS * rank));
    let tasks = tasks.into_par_iter().zip(x.par_chunks(ROWS * inner)).enumerate();
    tasks.for_each_init(Vec::new, |scratch, (task, ((y, h), x))| {
        let x = kept(x, task * ROWS * inner, dropout, scratch);
        let m = x.len() / inner;
        // SAFETY: all have m rows, of the widths given as strides.
        unsafe {
            let size = Size { m, n: rank, k: inner };
            dots(matrix(x, inner), matrix(a, inner), matrix_mut(h, rank), size, false);
            let size = Size { m, n: out, k: rank };
            weighted(rows_of(h, rank), matrix(&b, out), matrix_mut(y, out), size, true);
        }
    });
    h
}

/// The gradients by x (if wanted), A and B, given dy `[m, out]` and h `[m, rank]`.
pub(crate) fn backward(
    dy: &[f32],
    x: &[f32],
    h: &[f32],
    factors: &Factors<'_>,
    input_gradient: bool,
) -> (Option<Vec<f32>>, Vec<f32>, Vec<f32>) {
    let &Factors { a, inner, rank, out, scale, dropout, .. } = factors;
    let m = x.len() / inner.max(1);
    assert!(x.len() == m * inner && dy.len() == m * out && h.len() == m * rank, "shapes");
    let b = factors.scaled_b(false);
    let mut g = zeros(m * rank);
    g.par_chunks_mut(ROWS * rank).zip(dy.par_chunks(ROWS * out)).for_each(|(g, dy)| {
        let size = Size { m: dy.len() / out, n: rank, k: out };
        // SAFETY: both have m rows, B has `out` rows.
        unsafe { weighted(rows_of(dy, out), matrix(&b, rank), matrix_mut(g, rank), size, false) };
    });
    let dx = input_gradient.then(|| {
        let mut dx = zeros(m * inner);
        let tasks = dx.par_chunks_mut(ROWS * inner).zip(g.par_chunks(ROWS * rank)).enumerate();
        tasks.for_each(|(task, (dx, g))| {
            let size = Size { m: g.len() / rank, n: inner, k: rank };
            // SAFETY: both have m rows, A has `rank` rows.
            unsafe {
                weighted(rows_of(g, rank), matrix(a, inner), matrix_mut(dx, inner), size, false);
            }
            if let Some(dropout) = dropout {
                drop_in_place(dx, (task * ROWS * inner) as u32, dropout);
            }
        });
        dx
    });
    let da = products(&g, x, rank, inner, dropout);
    // dBᵀ = s hᵀ dy, which runs along the rows of dy.
    let transposed = products(h, dy, rank, out, None);
    let mut db = vec![0.0; out * rank];
    for (j, row) in transposed.chunks(out.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(i, value)| db[i * rank + j] = value * scale);
    }
    (dx, da, db)
}

/// pᵀ drop(v), `[rank, width]`: p `[m, rank]`, v `[m, width]`. The sum runs over the rows in order.
fn products(p: &[f32], v: &[f32], rank: usize, width: usize, dropout: Option<Dropout>) -> Vec<f32> {
    let m = v.len() / width.max(1);
    let strips = width.div_ceil(GRADIENT_COLUMNS);
    let strip = |strip: usize| {
        let from = strip * GRADIENT_COLUMNS;
        let columns = GRADIENT_COLUMNS.min(width - from);
        let mut sum = vec![0.0; rank * columns];
        let mut scratch = Vec::new();
        for row in (0..m).step_by(GRADIENT_DEPTH) {
            let rows = GRADIENT_DEPTH.min(m - row);
            let v = match dropout {
                None => Rows { start: v[row * width + from..].as_ptr(), stride: width },
                Some(dropout) => {
                    scratch.clear();
                    for row in row..row + rows {
                        let (at, start) = (row * width + from, scratch.len());
                        scratch.extend_from_slice(&v[at..at + columns]);
                        drop_in_place(&mut scratch[start..], at as u32, dropout);
                    }
                    matrix(&scratch, columns)
                }
            };
            let p = Strided { start: p[row * rank..].as_ptr(), row: 1, column: rank };
            let size = Size { m: rank, n: columns, k: rows };
            // SAFETY: rows row .. row + rows of p and v, columns from .. from + columns of v.
            unsafe { weighted(p, v, matrix_mut(&mut sum, columns), size, true) };
        }
        sum
    };
    let sums: Vec<Vec<f32>> = (0..strips).into_par_iter().map(strip).collect();
    let mut all = Vec::with_capacity(rank * width);
    for i in 0..rank {
        for sum in &sums {
            let columns = sum.len() / rank;
            all.extend_from_slice(&sum[i * columns..(i + 1) * columns]);
        }
    }
    all
}

/// Rows as they enter the update: themselves, or a copy with places dropped.
fn kept<'a>(
    x: &'a [f32],
    place: usize,
    dropout: Option<Dropout>,
    scratch: &'a mut Vec<f32>,
) -> &'a [f32] {
    let Some(dropout) = dropout else { return x };
    scratch.clear();
    scratch.extend_from_slice(x);
    drop_in_place(scratch, place as u32, dropout);
    scratch
}

simd! { fn drop_in_place(x: &mut [f32], place: u32, dropout: Dropout) {
    let factor = dropout.factor();
    for (i, x) in x.iter_mut().enumerate() {
        let factor = dropout.at(place.wrapping_add(i as u32), factor);
        *x = if factor == 0.0 { 0.0 } else { *x * factor };
    }
}}

/// x with places dropped.
pub(crate) fn dropped(x: &[f32], dropout: Dropout) -> Vec<f32> {
    let mut y = x.to_vec();
    let part = grain(y.len()).max(4096);
    y.par_chunks_mut(part).enumerate().for_each(|(task, y)| {
        drop_in_place(y, (task * part) as u32, dropout);
    });
    y
}

simd! { fn fill_uniform(x: &mut [f32], place: u32, stream: Stream) {
    for (i, x) in x.iter_mut().enumerate() {
        *x = uniform(stream.at(place.wrapping_add(i as u32)));
    }
}}

/// Uniform numbers in [−1, 1).
pub(crate) fn uniform_numbers(count: usize, stream: Stream) -> Vec<f32> {
    let mut x = zeros(count);
    let part = grain(count).max(4096);
    x.par_chunks_mut(part).enumerate().for_each(|(task, x)| {
        fill_uniform(x, (task * part) as u32, stream);
    });
    x
}

/// Σ w² of each row of `width` numbers.
pub(crate) fn row_squares(w: Weight<'_>, width: usize) -> Vec<f32> {
    match w {
        Weight::F32(w) => squares(w, width),
        Weight::Bf16(w) => squares(w, width),
    }
}

fn squares<T: Element>(w: &[T], width: usize) -> Vec<f32> {
    let row = |row: &[T]| -> f32 {
        // Partial sums of fixed parts, so that long rows keep their precision.
        row.chunks(64).map(|part| part.iter().map(|w| w.widen() * w.widen()).sum::<f32>()).sum()
    };
    w.par_chunks(width.max(1)).with_min_len(16).map(row).collect()
}
