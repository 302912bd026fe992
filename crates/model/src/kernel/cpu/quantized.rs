//! Products with a matrix in four or eight bits, dequantised tile by tile into a buffer that stays
//! in the cache.

use std::ops::Range;

use rayon::prelude::*;

use super::dots::dots;
use super::linear::Weight;
use super::matrix::{Rows, RowsMut, Size, Strided};
use super::parallel::{each_part, each_with};
use super::simd::simd;
use super::unpack::unpack;
use super::weighted::weighted;
use super::{Output, zeros};
use crate::quant::{BLOCK, FourBit, NESTED_BLOCK, STEP, dynamic_map, nested_scale};

/// Rows of x and of W in a task, and numbers of a row in one pass. A tile of W is unpacked once for
/// each task.
const TILE_ROWS: usize = 128;
const TILE_COLUMNS: usize = 48;
const DEPTH: usize = 512;
/// Rows of dx in a task, for which a tile of W is dequantised once.
const GRADIENT_ROWS: usize = 256;
/// Columns and rows of W in one pass of the gradient.
const GRADIENT_WIDTH: usize = 256;
const GRADIENT_DEPTH: usize = 256;

/// The type of the original, to which values are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    None,
    Bf16,
    F16,
}

/// A quantised matrix as it lies in memory: see [`crate::quant`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    pub(crate) words: &'a [i32],
    pub(crate) scales: &'a [f32],
    pub(crate) nested: &'a [i32],
    pub(crate) four_bit: Option<FourBit>,
    pub(crate) columns: usize,
    pub(crate) offset: Option<f32>,
    pub(crate) rounding: Rounding,
}

impl Matrix<'_> {
    /// Some rows and columns in f32, row by row.
    fn tile(&self, rows: Range<usize>, columns: Range<usize>, wide: &mut Vec<f32>) -> Rows<f32> {
        let width = columns.len();
        wide.resize(rows.len() * width, 0.0);
        for (row, wide) in rows.zip(wide.chunks_mut(width)) {
            let start = row * self.columns + columns.start;
            match self.four_bit {
                Some(four_bit) => self.blocks(four_bit, start, wide),
                None => int8_row(self.words, self.scales[row], start, wide),
            }
        }
        match self.rounding {
            Rounding::None => {}
            Rounding::Bf16 => round_to_bf16(wide),
            Rounding::F16 => {
                for w in wide.iter_mut() {
                    *w = half::f16::from_f32(*w).to_f32();
                }
            }
        }
        Rows { start: wide.as_ptr(), stride: width }
    }

    /// Numbers in a row, from the `start`-th on, block by block.
    fn blocks(&self, four_bit: FourBit, start: usize, wide: &mut [f32]) {
        let mut at = start;
        let mut rest = wide;
        while !rest.is_empty() {
            let length = rest.len().min(BLOCK - at % BLOCK);
            let (part, behind) = rest.split_at_mut(length);
            unpack(self.words, at, four_bit.table(), self.scale(at / BLOCK), part);
            (at, rest) = (at + length, behind);
        }
    }

    fn scale(&self, block: usize) -> f32 {
        let Some(offset) = self.offset else { return self.scales[block] };
        let code = self.nested[block / 4].to_le_bytes()[block % 4];
        nested_scale(code, self.scales[block / NESTED_BLOCK], offset, dynamic_map())
    }
}

simd! { fn int8_row(words: &[i32], scale: f32, start: usize, wide: &mut [f32]) {
    let value = |i: usize| f32::from(words[i / 4].to_le_bytes()[i % 4].cast_signed()) * scale * STEP;
    // Up to the first word that is needed whole, the words, the rest.
    let head = (start.next_multiple_of(4) - start).min(wide.len());
    let (first, wide) = wide.split_at_mut(head);
    first.iter_mut().enumerate().for_each(|(i, w)| *w = value(start + i));
    let start = start + head;
    let (whole, last) = wide.as_chunks_mut::<4>();
    for (wide, word) in whole.iter_mut().zip(&words[start / 4..]) {
        for (j, w) in wide.iter_mut().enumerate() {
            let code = (word << (24 - 8 * j)) >> 24;
            *w = code as f32 * scale * STEP;
        }
    }
    let start = start + 4 * whole.len();
    last.iter_mut().enumerate().for_each(|(i, w)| *w = value(start + i));
}}

simd! { fn round_to_bf16(wide: &mut [f32]) {
    for w in wide {
        let bits = w.to_bits();
        // To the nearest, of two the even one; the numbers are finite.
        *w = f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000);
    }
}}

/// All of it, `rows` rows.
pub(crate) fn dequantize(w: &Matrix<'_>, rows: usize) -> Vec<f32> {
    let k = w.columns;
    let mut dense = zeros(rows * k);
    let part = (1_usize << 16).div_ceil(k.max(1));
    each_part(&mut dense, part * k, |i, dense| {
        let (from, mut wide) = (i * part, Vec::new());
        w.tile(from..from + dense.len() / k, 0..k, &mut wide);
        dense.copy_from_slice(&wide);
    });
    dense
}

/// Σ w² of each row.
pub(crate) fn row_squares(w: &Matrix<'_>, rows: usize) -> Vec<f32> {
    let row = |wide: &mut Vec<f32>, row: usize| {
        w.tile(row..row + 1, 0..w.columns, wide);
        super::lora::row_squares(Weight::F32(wide), w.columns)[0]
    };
    (0..rows).into_par_iter().with_min_len(16).map_init(Vec::new, row).collect()
}

/// y `[m, n]` = x `[m, k]` Wᵀ.
pub(crate) fn linear(x: &[f32], w: &Matrix<'_>, n: usize) -> Vec<f32> {
    let k = w.columns;
    let m = x.len() / k.max(1);
    let mut y = zeros(m * n);
    if y.is_empty() {
        return y;
    }
    assert!(x.len() == m * k && k > 0, "shapes of a linear layer");
    let strips = n.div_ceil(TILE_COLUMNS);
    let output = Output(y.as_mut_ptr());
    let task = |wide: &mut Vec<f32>, task: usize| {
        let (i, j) = (task / strips * TILE_ROWS, task % strips * TILE_COLUMNS);
        // SAFETY: row i, column j lies in y; the tiles of two tasks do not overlap.
        let y = RowsMut { start: unsafe { output.get().add(i * n + j) }, stride: n };
        for p in (0..k).step_by(DEPTH) {
            let size =
                Size { m: TILE_ROWS.min(m - i), n: TILE_COLUMNS.min(n - j), k: DEPTH.min(k - p) };
            let tile = w.tile(j..j + size.n, p..p + size.k, wide);
            let x = Rows { start: x[i * k + p..].as_ptr(), stride: k };
            // SAFETY: rows i .. i + m of x exist, with columns p .. p + k; the tile has this size.
            unsafe { dots(x, tile, y, size, p > 0) };
        }
    };
    let tasks = m.div_ceil(TILE_ROWS) * strips;
    each_with(tasks, Vec::new, task);
    y
}

/// dx `[m, k]` = dy `[m, n]` W.
pub(crate) fn input_gradient(dy: &[f32], w: &Matrix<'_>, n: usize) -> Vec<f32> {
    let k = w.columns;
    let m = dy.len() / n.max(1);
    assert!(dy.len() == m * n, "shapes of a gradient");
    let mut dx = zeros(m * k);
    let output = Output(dx.as_mut_ptr());
    let strips = k.div_ceil(GRADIENT_WIDTH);
    let task = |wide: &mut Vec<f32>, task: usize| {
        let (i, c) = (task / strips * GRADIENT_ROWS, task % strips * GRADIENT_WIDTH);
        for j in (0..n).step_by(GRADIENT_DEPTH) {
            let size = Size {
                m: GRADIENT_ROWS.min(m - i),
                n: GRADIENT_WIDTH.min(k - c),
                k: GRADIENT_DEPTH.min(n - j),
            };
            let tile = w.tile(j..j + size.k, c..c + size.n, wide);
            let dy = Strided { start: dy[i * n + j..].as_ptr(), row: n, column: 1 };
            // SAFETY: rows i .. i + m and columns c .. c + n of dx belong to this task alone, these rows
            // and columns j .. j + k of dy exist, and the tile has this size.
            unsafe {
                let dx = RowsMut { start: output.get().add(i * k + c), stride: k };
                weighted(dy, tile, dx, size, j > 0);
            }
        }
    };
    each_with(m.div_ceil(GRADIENT_ROWS) * strips, Vec::new, task);
    dx
}
