//! Tiles of two matrix products, held in registers:
//!
//! - [`dots`]: y\[i, j\] = Σₚ x\[i, p\] · w\[j, p\], both operands read along their rows, so that
//!   neither a weight `[out, in]` nor a key cache has to be packed or transposed;
//! - [`weighted`]: y\[i, c\] = Σⱼ p\[i, j\] · v\[j, c\], the second product of attention and both
//!   products of a linear layer's gradient.
//!
//! The sum of an element runs over p (or j) in the same order whatever the tile's size.

#![expect(clippy::needless_range_loop, reason = "indices of registers: rows i, columns j or c")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

use super::lanes::{Element, Lanes};

/// Columns of a tile of dot products; those that are left over are tiles of one.
pub(super) const COLUMNS: usize = 6;

/// A matrix: its first element and the distance of its rows, in elements.
#[derive(Clone, Copy)]
pub(super) struct Rows<T> {
    pub(super) start: *const T,
    pub(super) stride: usize,
}

impl<T> Rows<T> {
    /// The matrix from row `i` on.
    ///
    /// # Safety
    /// The row exists.
    #[inline(always)]
    pub(super) unsafe fn from(self, i: usize) -> Self {
        // SAFETY: the caller's.
        Self { start: unsafe { self.start.add(i * self.stride) }, stride: self.stride }
    }
}

/// A matrix that is written.
#[derive(Clone, Copy)]
pub(super) struct RowsMut {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
}

/// The left factor of [`weighted`]: element (i, j) stands at `start + i * row + j * column`.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    pub(super) start: *const f32,
    pub(super) row: usize,
    pub(super) column: usize,
}

/// Sizes of a product: `m` by `n`, summed over `k`.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
}

/// y\[m, n\] = x\[m, k\] w\[n, k\]ᵀ, added to what `y` holds if `add`.
///
/// # Safety
/// The matrices have at least these rows and columns, and nobody else writes `y` or reads it.
pub(super) unsafe fn dots<T: Element>(x: Rows<f32>, w: Rows<T>, y: RowsMut, size: Size, add: bool) {
    // SAFETY: the caller's; the instructions are there where they are used.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        match super::simd::level() {
            super::simd::Level::Avx512 => return dots_avx512(x, w, y, size, add),
            super::simd::Level::Avx2 => return dots_avx2(x, w, y, size, add),
            super::simd::Level::Portable => {}
        }
        dots_in::<[f32; 8], T>(x, w, y, size, add);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn dots_avx512<T: Element>(x: Rows<f32>, w: Rows<T>, y: RowsMut, size: Size, add: bool) {
    // SAFETY: the caller's.
    unsafe { dots_in::<__m512, T>(x, w, y, size, add) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn dots_avx2<T: Element>(x: Rows<f32>, w: Rows<T>, y: RowsMut, size: Size, add: bool) {
    // SAFETY: the caller's.
    unsafe { dots_in::<__m256, T>(x, w, y, size, add) }
}

/// Columns outside, rows inside: the rows of w in a tile stay in the first level cache while those
/// of x pass, and are read from memory once.
#[inline(always)]
unsafe fn dots_in<L: Lanes, T: Element>(
    x: Rows<f32>,
    w: Rows<T>,
    y: RowsMut,
    size: Size,
    add: bool,
) {
    let mut j = 0;
    // SAFETY: columns j .. n exist in w and y.
    unsafe {
        while j + COLUMNS <= size.n {
            let y = RowsMut { start: y.start.add(j), ..y };
            dots_of_columns::<L, T, COLUMNS>(x, w.from(j), y, size, add);
            j += COLUMNS;
        }
        while j < size.n {
            let y = RowsMut { start: y.start.add(j), ..y };
            dots_of_columns::<L, T, 1>(x, w.from(j), y, size, add);
            j += 1;
        }
    }
}

#[inline(always)]
unsafe fn dots_of_columns<L: Lanes, T: Element, const C: usize>(
    x: Rows<f32>,
    w: Rows<T>,
    y: RowsMut,
    Size { m, k, .. }: Size,
    add: bool,
) {
    let mut i = 0;
    while i < m {
        let rows = (m - i).min(L::ROWS);
        // SAFETY: rows i .. i + rows exist in x and y.
        unsafe {
            let x = x.from(i);
            let y = RowsMut { start: y.start.add(i * y.stride), ..y };
            match rows {
                1 => dots_tile::<L, T, 1, C>(x, w, y, k, add),
                2 => dots_tile::<L, T, 2, C>(x, w, y, k, add),
                3 => dots_tile::<L, T, 3, C>(x, w, y, k, add),
                _ => dots_tile::<L, T, 4, C>(x, w, y, k, add),
            }
        }
        i += rows;
    }
}

#[inline(always)]
unsafe fn dots_tile<L: Lanes, T: Element, const R: usize, const C: usize>(
    x: Rows<f32>,
    w: Rows<T>,
    y: RowsMut,
    k: usize,
    add: bool,
) {
    // SAFETY: the caller's: R rows of x, C rows of w, k columns of both; the tile of y is ours.
    unsafe {
        let mut sums = [[L::zero(); C]; R];
        let whole = k / L::N * L::N;
        let mut p = 0;
        while p < whole {
            let xs: [L; R] = std::array::from_fn(|i| L::load(x.start.add(i * x.stride + p)));
            for j in 0..C {
                let wj = T::load::<L>(w.start.add(j * w.stride + p));
                for i in 0..R {
                    sums[i][j] = sums[i][j].add_mul(xs[i], wj);
                }
            }
            p += L::N;
        }
        for i in 0..R {
            let mut row = [0.0; COLUMNS];
            if C == COLUMNS {
                let [a, b, c, d] = L::sum4([sums[i][0], sums[i][1], sums[i][2], sums[i][3]]);
                let [e, f, ..] = L::sum4([sums[i][4], sums[i][5], sums[i][4], sums[i][5]]);
                row = [a, b, c, d, e, f];
            } else {
                row[0] = L::sum4([sums[i][0]; 4])[0];
            }
            for j in 0..C {
                let mut sum = row[j];
                for p in whole..k {
                    sum +=
                        *x.start.add(i * x.stride + p) * (*w.start.add(j * w.stride + p)).widen();
                }
                let y = y.start.add(i * y.stride + j);
                *y = if add { *y + sum } else { sum };
            }
        }
    }
}

/// y\[m, n\] = p\[m, k\] v\[k, n\], added to what `y` holds if `add`.
///
/// # Safety
/// The matrices have at least these rows and columns, and nobody else writes `y` or reads it.
pub(super) unsafe fn weighted(p: Weights, v: Rows<f32>, y: RowsMut, size: Size, add: bool) {
    // SAFETY: the caller's; the instructions are there where they are used.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        match super::simd::level() {
            super::simd::Level::Avx512 => return weighted_avx512(p, v, y, size, add),
            super::simd::Level::Avx2 => return weighted_avx2(p, v, y, size, add),
            super::simd::Level::Portable => {}
        }
        weighted_in::<[f32; 8]>(p, v, y, size, add);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn weighted_avx512(p: Weights, v: Rows<f32>, y: RowsMut, size: Size, add: bool) {
    // SAFETY: the caller's.
    unsafe { weighted_in::<__m512>(p, v, y, size, add) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn weighted_avx2(p: Weights, v: Rows<f32>, y: RowsMut, size: Size, add: bool) {
    // SAFETY: the caller's.
    unsafe { weighted_in::<__m256>(p, v, y, size, add) }
}

#[inline(always)]
unsafe fn weighted_in<L: Lanes>(p: Weights, v: Rows<f32>, y: RowsMut, size: Size, add: bool) {
    let mut i = 0;
    while i < size.m {
        let rows = (size.m - i).min(L::ROWS);
        // SAFETY: rows i .. i + rows exist in p and y.
        unsafe {
            let p = Weights { start: p.start.add(i * p.row), ..p };
            let y = RowsMut { start: y.start.add(i * y.stride), stride: y.stride };
            match rows {
                1 => weighted_of_rows::<L, 1>(p, v, y, size, add),
                2 => weighted_of_rows::<L, 2>(p, v, y, size, add),
                3 => weighted_of_rows::<L, 3>(p, v, y, size, add),
                _ => weighted_of_rows::<L, 4>(p, v, y, size, add),
            }
        }
        i += rows;
    }
}

#[inline(always)]
unsafe fn weighted_of_rows<L: Lanes, const R: usize>(
    p: Weights,
    v: Rows<f32>,
    y: RowsMut,
    Size { n, k, .. }: Size,
    add: bool,
) {
    let mut c = 0;
    // SAFETY: columns c .. n exist in v and y.
    unsafe {
        while c + 4 * L::N <= n {
            let (v, y) =
                (Rows { start: v.start.add(c), ..v }, RowsMut { start: y.start.add(c), ..y });
            weighted_tile::<L, R, 4>(p, v, y, k, add);
            c += 4 * L::N;
        }
        while c + L::N <= n {
            let (v, y) =
                (Rows { start: v.start.add(c), ..v }, RowsMut { start: y.start.add(c), ..y });
            weighted_tile::<L, R, 1>(p, v, y, k, add);
            c += L::N;
        }
        for c in c..n {
            for i in 0..R {
                let mut sum = if add { *y.start.add(i * y.stride + c) } else { 0.0 };
                for j in 0..k {
                    sum += *p.start.add(i * p.row + j * p.column) * *v.start.add(j * v.stride + c);
                }
                *y.start.add(i * y.stride + c) = sum;
            }
        }
    }
}

#[inline(always)]
unsafe fn weighted_tile<L: Lanes, const R: usize, const C: usize>(
    p: Weights,
    v: Rows<f32>,
    y: RowsMut,
    k: usize,
    add: bool,
) {
    // SAFETY: the caller's: R rows of p, k rows of v, C vectors of columns; the tile of y is ours.
    unsafe {
        let mut sums = [[L::zero(); C]; R];
        if add {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (c, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(y.start.add(i * y.stride + c * L::N));
                }
            }
        }
        for j in 0..k {
            let vs: [L; C] = std::array::from_fn(|c| L::load(v.start.add(j * v.stride + c * L::N)));
            for i in 0..R {
                let weight = L::splat(*p.start.add(i * p.row + j * p.column));
                for c in 0..C {
                    sums[i][c] = sums[i][c].add_mul(weight, vs[c]);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (c, sum) in sums.into_iter().enumerate() {
                sum.store(y.start.add(i * y.stride + c * L::N));
            }
        }
    }
}
