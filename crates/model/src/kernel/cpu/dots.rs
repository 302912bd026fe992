//! y\[i, j\] = Σₚ x\[i, p\] · w\[j, p\], in tiles held in registers. Both operands are read along their
//! rows, so that neither a weight `[out, in]` nor a key cache has to be packed or transposed.
//!
//! The sum of an element runs in the same order whatever the tile's size: in lanes over p, then over
//! the lanes.

#![expect(clippy::needless_range_loop, reason = "indices of registers: rows i, columns j")]

use super::lanes::{Element, Lanes};
use super::matrix::{Rows, RowsMut, Size};
use super::simd::levels;

/// Columns of a tile; those that are left over are tiles of 4, 2 and 1.
const COLUMNS: usize = 6;

levels! {
    /// y\[m, n\] = x\[m, k\] w\[n, k\]ᵀ, added to what `y` holds if `add`.
    ///
    /// # Safety
    /// The matrices have at least these rows and columns, and nobody else writes `y` or reads it.
    pub(super) unsafe fn dots<T: Element>(
        x: Rows<f32>,
        w: Rows<T>,
        y: RowsMut,
        size: Size,
        add: bool,
    ) by dots_in
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
            of_columns::<L, T, COLUMNS>(x, w.from(j), y.from(0, j), size, add);
            j += COLUMNS;
        }
        if j + 4 <= size.n {
            of_columns::<L, T, 4>(x, w.from(j), y.from(0, j), size, add);
            j += 4;
        }
        if j + 2 <= size.n {
            of_columns::<L, T, 2>(x, w.from(j), y.from(0, j), size, add);
            j += 2;
        }
        if j < size.n {
            of_columns::<L, T, 1>(x, w.from(j), y.from(0, j), size, add);
        }
    }
}

#[inline(always)]
unsafe fn of_columns<L: Lanes, T: Element, const C: usize>(
    x: Rows<f32>,
    w: Rows<T>,
    y: RowsMut,
    Size { m, k, .. }: Size,
    add: bool,
) {
    let mut i = 0;
    while i < m {
        let rows = (m - i).min(L::DOT_ROWS);
        // SAFETY: rows i .. i + rows exist in x and y.
        unsafe {
            let (x, y) = (x.from(i), y.from(i, 0));
            match rows {
                1 => tile::<L, T, 1, C>(x, w, y, k, add),
                2 => tile::<L, T, 2, C>(x, w, y, k, add),
                3 => tile::<L, T, 3, C>(x, w, y, k, add),
                _ => tile::<L, T, 4, C>(x, w, y, k, add),
            }
        }
        i += rows;
    }
}

#[inline(always)]
unsafe fn tile<L: Lanes, T: Element, const R: usize, const C: usize>(
    x: Rows<f32>,
    w: Rows<T>,
    y: RowsMut,
    k: usize,
    add: bool,
) {
    // SAFETY: the caller's: R rows of x, C rows of w, k columns of both; the tile of y is ours.
    unsafe {
        let mut sums = [[L::zero(); R]; C];
        let whole = k / L::N * L::N;
        let mut p = 0;
        while p < whole {
            let xs: [L; R] = std::array::from_fn(|i| L::load(x.start.add(i * x.stride + p)));
            for j in 0..C {
                let wj = T::load::<L>(w.start.add(j * w.stride + p));
                for i in 0..R {
                    sums[j][i] = sums[j][i].add_mul(xs[i], wj);
                }
            }
            p += L::N;
        }
        // [row][column]
        let mut sum = [[0f32; 8]; 4];
        let mut j = 0;
        if R == 4 {
            while j + 4 <= C {
                L::sum16([0, 1, 2, 3].map(|c| [0, 1, 2, 3].map(|i| sums[j + c][i])), |i, four| {
                    sum[i][j..j + 4].copy_from_slice(&four);
                });
                j += 4;
            }
        }
        while j < C {
            // Four rows of a column.
            let four = L::sum4(std::array::from_fn(|i| sums[j][i.min(R - 1)]));
            for i in 0..R {
                sum[i][j] = four[i];
            }
            j += 1;
        }
        for i in 0..R {
            for j in 0..C {
                let mut sum = sum[i][j];
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

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::kernel::cpu::tests::{naive, numbers};

    /// Of every size of a tile and every rest, rows and columns between others.
    fn check<L: Lanes>() {
        for m in 1..=9 {
            for (n, k) in [(1, 1), (2, 7), (3, 16), (5, 33), (6, 40), (13, 100)] {
                let stride = k + 3;
                let (x, w) = (numbers(m * stride, 1), numbers(n * stride, 2));
                let narrow: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
                let wide: Vec<f32> = narrow.iter().map(|w| w.to_f32()).collect();
                for add in [false, true] {
                    let mut y = [vec![0.5; m * (n + 2)], vec![0.5; m * (n + 2)]];
                    let size = Size { m, n, k };
                    let x_rows = Rows { start: x.as_ptr(), stride };
                    // SAFETY: the matrices are as large as they have to be.
                    unsafe {
                        let [a, b] = &mut y;
                        let y = RowsMut { start: a.as_mut_ptr(), stride: n + 2 };
                        dots_in::<L, f32>(x_rows, Rows { start: w.as_ptr(), stride }, y, size, add);
                        let y = RowsMut { start: b.as_mut_ptr(), stride: n + 2 };
                        let narrow = Rows { start: narrow.as_ptr(), stride };
                        dots_in::<L, bf16>(x_rows, narrow, y, size, add);
                    }
                    for (y, w) in y.iter().zip([&w, &wide]) {
                        for i in 0..m {
                            for j in 0..n + 2 {
                                let product =
                                    || naive(&x[i * stride..][..k], &w[j * stride..][..k]);
                                let before = if add || j >= n { 0.5 } else { 0.0 };
                                let expected = before + if j < n { product() } else { 0.0 };
                                let found = f64::from(y[i * (n + 2) + j]);
                                assert!((found - expected).abs() < 1e-5, "{m} x {n} x {k}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn on_any_machine() {
        check::<[f32; 8]>();
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn with_avx2() {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            check::<std::arch::x86_64::__m256>();
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn with_avx512() {
        if super::super::simd::level() == super::super::simd::Level::Avx512 {
            check::<std::arch::x86_64::__m512>();
        }
    }
}
