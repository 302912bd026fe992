//! Copies a block of a matrix into panels: some columns of all rows, then the next columns of all
//! rows, so that a product reads one number after the other.

use super::lanes::Lanes;
use super::matrix::{Rows, Size};
use super::simd::levels;

/// Rows that are asked for ahead of those that are copied: neighbours lie far apart in memory.
const AHEAD: usize = 8;

levels! {
    /// Copies `size.k` rows of `size.n` numbers into panels of `size.m` columns, `stride` numbers
    /// apart.
    ///
    /// # Safety
    /// The rows exist, and so do all the panels, of which the last one may stay unfilled.
    pub(super) unsafe fn pack(from: Rows<f32>, size: Size, to: *mut f32, stride: usize) by pack_in
}

#[inline(always)]
pub(super) unsafe fn pack_in<L: Lanes>(from: Rows<f32>, size: Size, to: *mut f32, stride: usize) {
    let Size { m: width, n: columns, k: rows } = size;
    for p in 0..rows {
        let ahead = from.start.wrapping_add((p + AHEAD) * from.stride);
        for c in (0..columns).step_by(16) {
            L::prefetch(ahead.wrapping_add(c));
        }
        for (panel, start) in (0..columns).step_by(width).enumerate() {
            let count = width.min(columns - start);
            // SAFETY: the caller's: the row and its place in the panel exist.
            unsafe {
                let from = from.from(p).start.add(start);
                let to = to.add(panel * stride + p * width);
                let mut c = 0;
                while c + L::N <= count {
                    L::load(from.add(c)).store(to.add(c));
                    c += L::N;
                }
                while c < count {
                    *to.add(c) = *from.add(c);
                    c += 1;
                }
            }
        }
    }
}

levels! {
    /// Transposes `size.k` rows of `size.n` numbers into panels of `size.m` of the rows, `stride`
    /// numbers apart: what was a row becomes a column.
    ///
    /// # Safety
    /// The rows exist, and so do all the panels, of which the last one may stay unfilled.
    pub(super) unsafe fn pack_transposed(
        from: Rows<f32>,
        size: Size,
        to: *mut f32,
        stride: usize,
    ) by transposed_in
}

#[inline(always)]
pub(super) unsafe fn transposed_in<L: Lanes>(
    from: Rows<f32>,
    size: Size,
    to: *mut f32,
    stride: usize,
) {
    let Size { m: width, n: columns, k: rows } = size;
    for row in (0..rows).step_by(L::N) {
        let count = L::N.min(rows - row);
        let whole = if count == L::N { columns / L::N * L::N } else { 0 };
        // SAFETY: the caller's: the rows exist, and their columns in the panel; a panel's width is
        // a multiple of a vector's.
        unsafe {
            let from = from.from(row);
            let to = to.add(row / width * stride + row % width);
            for c in (0..whole).step_by(L::N) {
                L::transpose(from.start.add(c), from.stride, to.add(c * width), width);
            }
            for c in whole..columns {
                for i in 0..count {
                    *to.add(c * width + i) = *from.from(i).start.add(c);
                }
            }
        }
    }
}
