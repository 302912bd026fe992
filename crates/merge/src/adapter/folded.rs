//! A weight with an adapter folded in, `W + s B A`, computed where it is read.
//!
//! With `DoRA` (Liu et al. 2024, arXiv 2402.09353) row i of the result is
//! `m_i (W + s B A)_i / ||(W + s B A)_i||`. Weights that are stored as (in, out) and embeddings take
//! `(B A)^T`, and the norms go along columns.

use std::sync::OnceLock;

use safetensors::Dtype;

use super::low_rank::LowRank;
use super::product::{Left, add_product};
use crate::checkpoint::Tensor;
use crate::ops;
use crate::source::Source;

/// Columns of a tile: its rows stay in the first cache.
const COLUMNS: usize = 1024;
/// Rows of a tile.
const ROWS: usize = 64;

/// A weight with an adapter folded in. Reading a range computes the rows that it touches, no more; with
/// magnitudes the first read goes once over the whole weight for its norms.
#[derive(Debug)]
pub struct Folded {
    base: Source,
    delta: LowRank,
    transposed: bool,
    magnitude: Option<Source>,
    /// `m_i / ||.||`, for each row or, transposed, each column.
    factors: OnceLock<Vec<f32>>,
}

impl Folded {
    /// `base + delta`, for a base with the dimensions of `B A` or, `transposed`, of `(B A)^T`. `magnitude`
    /// has one number for each row of `B A`.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn new(base: Source, delta: LowRank, transposed: bool, magnitude: Option<Source>) -> Self {
        let (m, n) = delta.dims();
        let (rows, columns) = matrix(base.shape());
        let wanted = if transposed { (n, m) } else { (m, n) };
        assert_eq!((rows, columns), wanted, "the dimensions of the base");
        assert!(magnitude.as_ref().is_none_or(|values| values.numel() == m), "{m} magnitudes");
        Self { base, delta, transposed, magnitude, factors: OnceLock::new() }
    }

    /// The stored tensors that it is computed of.
    pub(crate) fn stored(&self) -> Vec<&Tensor> {
        let sources = [&self.base, &self.delta.a, &self.delta.b];
        sources.into_iter().chain(&self.magnitude).flat_map(Source::stored).collect()
    }

    /// The dimensions of the base.
    pub fn shape(&self) -> &[usize] {
        self.base.shape()
    }

    /// The type of the base. The values are those of f32 arithmetic, not rounded to it.
    pub fn dtype(&self) -> Dtype {
        self.base.dtype()
    }

    /// The elements `start..start + out.len()`, row-major.
    ///
    /// # Panics
    /// When the range lies outside.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        self.sum(start, out);
        let Some(magnitude) = &self.magnitude else { return };
        // Not in parallel: who waits for these norms may not be asked to compute something else.
        let factors = self.factors.get_or_init(|| self.factors(magnitude));
        let (_, columns) = matrix(self.shape());
        for_rows(start, out, columns, |row, column, part| {
            if self.transposed {
                part.iter_mut().zip(&factors[column..]).for_each(|(x, factor)| *x *= factor);
            } else {
                ops::scale(part, factors[row]);
            }
        });
    }

    /// `W + s B A`.
    fn sum(&self, start: usize, out: &mut [f32]) {
        self.base.read(start, out);
        let (_, columns) = matrix(self.shape());
        let (mut start, mut rest) = (start, out);
        while !rest.is_empty() {
            let until = (start / columns + ROWS) * columns;
            let (now, later) = rest.split_at_mut(rest.len().min(until - start));
            self.add_delta(start, now, columns);
            start += now.len();
            rest = later;
        }
    }

    /// Adds `s B A` to at most [`ROWS`] rows.
    fn add_delta(&self, start: usize, out: &mut [f32], columns: usize) {
        let (first, last) = (start / columns, (start + out.len() - 1) / columns);
        let (rows, rank) = (last - first + 1, self.delta.rank());
        let left = self.delta.left(self.transposed, first, rows);
        let touched =
            if rows == 1 { start % columns..start % columns + out.len() } else { 0..columns };
        let mut product = Vec::new();
        for from in touched.clone().step_by(COLUMNS) {
            let width = COLUMNS.min(touched.end - from);
            let right = self.delta.right(self.transposed, from, width);
            product.clear();
            product.resize(rows * width, 0.0);
            add_product(&mut product, Left::rows(&left, rank), &right, [rows, rank, width]);
            for (row, product) in (first..).zip(product.chunks(width)) {
                let begin = (row * columns + from).max(start);
                let end = (row * columns + from + width).min(start + out.len());
                if begin < end {
                    let product = &product[begin - row * columns - from..];
                    ops::axpy(&mut out[begin - start..end - start], self.delta.scale, product);
                }
            }
        }
    }

    fn factors(&self, magnitude: &Source) -> Vec<f32> {
        let (rows, columns) = matrix(self.shape());
        let mut squares = vec![0.0f64; magnitude.numel()];
        let mut values = vec![0.0; ROWS.min(rows) * columns];
        for first in (0..rows).step_by(ROWS) {
            let values = &mut values[..ROWS.min(rows - first) * columns];
            self.sum(first * columns, values);
            for (row, values) in (first..).zip(values.chunks(columns)) {
                if self.transposed {
                    squares.iter_mut().zip(values).for_each(|(s, x)| *s += f64::from(*x).powi(2));
                } else {
                    squares[row] = ops::dot(values, values);
                }
            }
        }
        let mut factors = vec![0.0; magnitude.numel()];
        magnitude.read(0, &mut factors);
        for (factor, square) in factors.iter_mut().zip(squares) {
            *factor /= square.sqrt() as f32;
        }
        factors
    }
}

/// A tensor as a matrix: its first dimension, and all others.
pub(super) fn matrix(shape: &[usize]) -> (usize, usize) {
    let rows = shape.first().copied().unwrap_or(1);
    (rows, shape.iter().skip(1).product())
}

/// The parts of a range that lie in one row each: row, first column, elements.
fn for_rows(
    start: usize,
    out: &mut [f32],
    columns: usize,
    mut each: impl FnMut(usize, usize, &mut [f32]),
) {
    let (mut start, mut rest) = (start, out);
    while !rest.is_empty() {
        let column = start % columns;
        let (now, later) = rest.split_at_mut(rest.len().min(columns - column));
        each(start / columns, column, now);
        start += now.len();
        rest = later;
    }
}
