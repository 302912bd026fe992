//! The largest singular values and vectors of a matrix that is only read, in tiles.
//!
//! Halko, Martinsson, Tropp 2011 (arXiv 0909.4061), algorithms 4.4 and 5.1: with a random `Omega` of l columns,
//! `Q = orth(D Omega)`; q times `Q = orth(D orth(D^T Q))`; then `Q^T D = B` is small, and
//! `D ~ Q B = (Q U) S V^T`. Reads D 2 + 2 q times and keeps (m + n) l numbers. What is summed is summed in
//! a fixed order, for any number of threads.

use rayon::prelude::*;

use super::jacobi::{self, Small};
use super::low_rank::transpose;
use super::orthonormal::orthonormalize;
use super::product::{Left, add_product};
use crate::ops;
use crate::philox::Stream;

/// Rows of a tile.
const ROWS: usize = 64;
/// Columns of a tile.
pub(crate) const COLUMNS: usize = 512;

/// A matrix that is read in stretches of at most [`COLUMNS`] elements of one row.
pub(crate) struct Tiles<'a> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Reads the elements from a place on, row-major.
    pub(crate) read: &'a (dyn Fn(usize, &mut [f32]) + Sync),
}

/// `D ~ U S V^T`.
#[derive(Clone, Debug)]
pub(crate) struct Svd {
    /// Columns of `U`, one after the other.
    pub(super) u: Vec<f32>,
    /// `S`, falling.
    pub(crate) s: Vec<f64>,
    /// Rows of `V^T`.
    pub(super) v: Vec<f32>,
}

impl Tiles<'_> {
    /// Reads rows `first..` and columns `column..` into a tile of `width` columns.
    fn tile(&self, first: usize, column: usize, width: usize, out: &mut [f32]) {
        for (row, out) in (first..).zip(out.chunks_mut(width)) {
            (self.read)(row * self.columns + column, out);
        }
    }

    /// `D x`, for an x of `l` columns.
    fn times(&self, x: &[f32], l: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * l];
        out.par_chunks_mut(ROWS * l).enumerate().for_each_init(
            || vec![0.0; ROWS * COLUMNS],
            |tile, (index, out)| {
                let (first, rows) = (index * ROWS, out.len() / l);
                for column in (0..self.columns).step_by(COLUMNS) {
                    let width = COLUMNS.min(self.columns - column);
                    let tile = &mut tile[..rows * width];
                    self.tile(first, column, width, tile);
                    let x = &x[column * l..(column + width) * l];
                    add_product(out, Left::rows(tile, width), x, [rows, width, l]);
                }
            },
        );
        out
    }

    /// `D^T x`, for an x of `l` columns.
    fn transposed_times(&self, x: &[f32], l: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.columns * l];
        out.par_chunks_mut(COLUMNS * l).enumerate().for_each_init(
            || vec![0.0; ROWS * COLUMNS],
            |tile, (index, out)| {
                let (column, width) = (index * COLUMNS, out.len() / l);
                for first in (0..self.rows).step_by(ROWS) {
                    let rows = ROWS.min(self.rows - first);
                    let tile = &mut tile[..rows * width];
                    self.tile(first, column, width, tile);
                    let x = &x[first * l..(first + rows) * l];
                    add_product(out, Left::transposed(tile, width), x, [width, rows, l]);
                }
            },
        );
        out
    }

    /// `||D - b a||^2`, b with `r` columns and a with `r` rows; `||D||^2` without any.
    pub(super) fn distance(&self, a: &[f32], b: &[f32], r: usize) -> f64 {
        let parts: Vec<f64> = (0..self.rows.div_ceil(ROWS))
            .into_par_iter()
            .map_init(
                || (vec![0.0; ROWS * COLUMNS], Vec::new()),
                |(tile, of_a), index| {
                    let first = index * ROWS;
                    let rows = ROWS.min(self.rows - first);
                    let mut sum = 0.0;
                    for column in (0..self.columns).step_by(COLUMNS) {
                        let width = COLUMNS.min(self.columns - column);
                        let tile = &mut tile[..rows * width];
                        self.tile(first, column, width, tile);
                        of_a.clear();
                        for k in 0..r {
                            let row = &a[k * self.columns + column..][..width];
                            of_a.extend(row.iter().map(|x| -x));
                        }
                        let b = Left::rows(&b[first * r..], r);
                        add_product(tile, b, of_a, [rows, r, width]);
                        sum += ops::dot(tile, tile);
                    }
                    sum
                },
            )
            .collect();
        parts.iter().sum()
    }

    /// The `l` largest singular values and their vectors, with `iterations` power iterations.
    pub(crate) fn decompose(&self, l: usize, iterations: usize, random: Stream) -> Svd {
        let l = l.min(self.rows).min(self.columns);
        let orth = |x: Vec<f32>, length: usize| {
            let mut vectors = transpose(&x, length, l);
            orthonormalize(&mut vectors, length);
            transpose(&vectors, l, length)
        };
        let mut q = orth(self.times(&normal(random, self.columns * l), l), self.rows);
        for _ in 0..iterations {
            let z = orth(self.transposed_times(&q, l), self.columns);
            q = orth(self.times(&z, l), self.rows);
        }
        let q = transpose(&q, self.rows, l);
        let b = self.transposed_times(&transpose(&q, l, self.rows), l);
        let b = transpose(&b, self.columns, l);
        of_product(&q, &b, self.rows, self.columns)
    }
}

/// The decomposition of `Q B`, from the orthonormal (or zero) columns of Q and the rows of B.
fn of_product(q: &[f32], b: &[f32], m: usize, n: usize) -> Svd {
    // B = L P with orthonormal rows of P: the small matrix is L.
    let mut p = b.to_vec();
    orthonormalize(&mut p, n);
    svd_around(q, inner(b, &p, n), &p, m, n)
}

/// The decomposition of `L R` from the columns of L and the rows of R, both `count`.
pub(super) fn of_factors(left: &[f32], right: &[f32], m: usize, n: usize) -> Svd {
    let (q, middle, p) = around(left, right, m, n);
    svd_around(&q, middle, &p, m, n)
}

/// `||L R||` from the columns of L and the rows of R.
pub(super) fn norm_of_product(left: &[f32], right: &[f32], m: usize, n: usize) -> f64 {
    let (_, middle, _) = around(left, right, m, n);
    middle.iter().flatten().map(|x| x * x).sum::<f64>().sqrt()
}

/// `L R = Q M P`, with `L = Q (Q^T L)` and `R = (R P^T) P`: the small matrix is `M = (Q^T L) (R P^T)`.
fn around(left: &[f32], right: &[f32], m: usize, n: usize) -> (Vec<f32>, Vec<Vec<f64>>, Vec<f32>) {
    let (mut q, mut p) = (left.to_vec(), right.to_vec());
    orthonormalize(&mut q, m);
    orthonormalize(&mut p, n);
    let (of_left, of_right) = (inner(&q, left, m), inner(right, &p, n));
    let product = of_left.iter().map(|row| {
        let mut out = vec![0.0; of_right.len()];
        for (x, row) in row.iter().zip(&of_right) {
            out.iter_mut().zip(row).for_each(|(out, y)| *out += x * y);
        }
        out
    });
    let middle = product.collect();
    (q, middle, p)
}

/// The inner products of all vectors of `a` with all of `b`, in f64.
fn inner(a: &[f32], b: &[f32], length: usize) -> Vec<Vec<f64>> {
    let row = |a: &[f32]| b.chunks(length).map(|b| ops::dot(a, b)).collect();
    a.par_chunks(length).map(row).collect()
}

/// The decomposition of `Q M P`.
fn svd_around(q: &[f32], middle: Vec<Vec<f64>>, p: &[f32], m: usize, n: usize) -> Svd {
    let Small { u, s, v } = jacobi::decompose(middle);
    let product = |small: &[Vec<f64>], vectors: &[f32], length: usize| {
        let count = small.len();
        let small: Vec<f32> = small.iter().flatten().map(|x| *x as f32).collect();
        let mut out = vec![0.0; count * length];
        add_product(&mut out, Left::rows(&small, count), vectors, [count, count, length]);
        out
    };
    Svd { u: product(&u, q, m), v: product(&v, p, n), s }
}

/// The first `rank` parts as factors: rows of `A = V^T` and columns of `B = U S`, or of `sqrt S V^T` and
/// `U sqrt S` if the scale is `shared`.
pub(super) fn truncated(
    u: &[f32],
    s: &[f64],
    v: &[f32],
    rank: usize,
    shared: bool,
) -> (Vec<f32>, Vec<f32>) {
    let cut = |vectors: &[f32], factor: &dyn Fn(f64) -> f64| {
        let length = vectors.len() / s.len().max(1);
        let mut out = vectors[..rank * length].to_vec();
        for (vector, s) in out.chunks_mut(length.max(1)).zip(s) {
            ops::scale(vector, factor(*s) as f32);
        }
        out
    };
    if shared {
        (cut(v, &f64::sqrt), cut(u, &f64::sqrt))
    } else {
        (cut(v, &|_| 1.0), cut(u, &|s| s))
    }
}

/// Columns of a random matrix for a rank: some more, and as many as the product sums side by side.
pub(super) fn width(rank: usize, oversampling: usize) -> usize {
    (rank + oversampling).next_multiple_of(16)
}

/// Numbers of the normal distribution (Box and Muller 1958).
fn normal(random: Stream, count: usize) -> Vec<f32> {
    let mut numbers = vec![0.0; count.next_multiple_of(2)];
    numbers.par_chunks_mut(4096).enumerate().for_each(|(index, numbers)| {
        random.fill(index * 4096, numbers);
        for pair in numbers.as_chunks_mut::<2>().0 {
            let radius = (-2.0 * (1.0 - f64::from(pair[0])).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * f64::from(pair[1])).sin_cos();
            *pair = [(radius * cos) as f32, (radius * sin) as f32];
        }
    });
    numbers.truncate(count);
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers() {
        let numbers = normal(Stream::new(3, "x", 0), 100_001);
        let mean = numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / 1e5;
        let square = numbers.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 1e5;
        let fourth = numbers.iter().map(|x| f64::from(*x).powi(4)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.03 && (fourth - 3.0).abs() < 0.15);
    }

    /// A matrix of rank 5 that no tile divides, by any number of threads.
    #[test]
    fn low_rank_comes_back_with_the_same_bits_for_any_threads() {
        let (m, n, r) = (150, 1111, 5);
        let wave = |i: usize, k: usize| ((i * (k + 3) + k) as f32 * 0.19).sin();
        let b: Vec<f32> = (0..m * r).map(|i| wave(i / r, i % r)).collect();
        let a: Vec<f32> = (0..r * n).map(|i| wave(i % n + 7, i / n)).collect();
        let mut d = vec![0.0; m * n];
        add_product(&mut d, Left::rows(&b, r), &a, [m, r, n]);
        let read =
            |start: usize, out: &mut [f32]| out.copy_from_slice(&d[start..start + out.len()]);
        let tiles = Tiles { rows: m, columns: n, read: &read };
        let with = |threads: usize| {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| tiles.decompose(16, 1, Stream::new(1, "d", 0)))
        };
        let svd = with(1);
        for threads in [2, 5] {
            let other = with(threads);
            assert_eq!((&other.u, &other.v, &other.s), (&svd.u, &svd.v, &svd.s));
        }
        assert!(svd.s[5] < 1e-4 * svd.s[4], "{:?}", svd.s);
        let scaled: Vec<f32> = svd
            .u
            .chunks(m)
            .zip(&svd.s)
            .flat_map(|(u, s)| u.iter().map(move |x| x * *s as f32))
            .collect();
        let error = tiles.distance(&svd.v, &transpose(&scaled, 16, m), 16);
        let whole = tiles.distance(&[], &[], 0);
        assert!(error.sqrt() < 1e-6 * whole.sqrt(), "{error} {whole}");
        let direct = of_factors(&transpose(&b, m, r), &a, m, n);
        for (a, b) in direct.s.iter().zip(&svd.s) {
            assert!((a - b).abs() < 1e-5 * a, "{a} {b}");
        }
    }
}
