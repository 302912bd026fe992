//! y\[i, c\] = Σⱼ p\[i, j\] · v\[j, c\], in tiles held in registers: the second product of attention and
//! both products of a linear layer's gradient.
//!
//! The sum of an element runs over j, one after the other, whatever the tile's size.

#![expect(clippy::needless_range_loop, reason = "indices of registers: rows i, vectors c")]

use super::lanes::Lanes;
use super::matrix::{Rows, RowsMut, Size, Strided};
use super::simd::levels;

levels! {
    /// y\[m, n\] = p\[m, k\] v\[k, n\], added to what `y` holds if `add`.
    ///
    /// # Safety
    /// The matrices have at least these rows and columns, and nobody else writes `y` or reads it.
    pub(super) unsafe fn weighted(
        p: Strided,
        v: Rows<f32>,
        y: RowsMut,
        size: Size,
        add: bool,
    ) by weighted_in
}

levels! {
    /// As [`weighted`], with v in panels of [`Tile::width`] columns: k rows of the first, k rows of
    /// the next, the last one filled up with anything.
    ///
    /// # Safety
    /// As of [`weighted`].
    pub(super) unsafe fn weighted_panels(
        p: Strided,
        panels: *const f32,
        y: RowsMut,
        size: Size,
        add: bool,
    ) by panels_in
}

/// The largest tile of this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Its rows,
    pub(super) rows: usize,
    /// and its columns, those of a panel.
    pub(super) width: usize,
}

impl Tile {
    pub(super) fn here() -> Self {
        #[cfg(target_arch = "x86_64")]
        match super::simd::level() {
            super::simd::Level::Avx512 => return Self::of::<std::arch::x86_64::__m512>(),
            super::simd::Level::Avx2 => return Self::of::<std::arch::x86_64::__m256>(),
            super::simd::Level::Portable => {}
        }
        Self::of::<[f32; 8]>()
    }

    fn of<L: Lanes>() -> Self {
        Self { rows: L::ROWS, width: width::<L>() }
    }
}

const fn width<L: Lanes>() -> usize {
    L::VECTORS * L::N
}

#[inline(always)]
unsafe fn weighted_in<L: Lanes>(p: Strided, v: Rows<f32>, y: RowsMut, size: Size, add: bool) {
    let Size { m, n, k } = size;
    let mut i = 0;
    while i < m {
        let rows = (m - i).min(L::ROWS);
        let whole = n / L::N * L::N;
        let mut c = 0;
        // SAFETY: rows i .. i + rows exist in p and y, columns c .. n in v and y.
        unsafe {
            while c < whole {
                let columns = (whole - c).min(width::<L>());
                let v = Rows { start: v.start.add(c), ..v };
                c += of_rows::<L>(p.from(i, 0), v, y.from(i, c), [rows, columns, k], add);
            }
            for i in i..i + rows {
                for c in whole..n {
                    let mut sum = 0.0;
                    for j in 0..k {
                        sum += *p.from(i, j).start * *v.from(j).start.add(c);
                    }
                    let y = y.from(i, c).start;
                    *y = if add { *y + sum } else { sum };
                }
            }
        }
        i += rows;
    }
}

/// A block of rows of p stays in the first level cache, while the panels pass.
#[inline(always)]
unsafe fn panels_in<L: Lanes>(
    p: Strided,
    panels: *const f32,
    y: RowsMut,
    Size { m, n, k }: Size,
    add: bool,
) {
    let mut i = 0;
    while i < m {
        let rows = (m - i).min(L::ROWS);
        for c in (0..n).step_by(width::<L>()) {
            let columns = (n - c).min(width::<L>());
            // SAFETY: rows i .. i + rows exist in p and y, columns c .. c + columns in y; the panel
            // has all its columns.
            unsafe {
                let v = Rows { start: panels.add(c * k), stride: width::<L>() };
                of_rows::<L>(p.from(i, 0), v, y.from(i, c), [rows, columns, k], add);
            }
        }
        i += rows;
    }
}

/// Some of the columns, at most a panel's; returns how many.
#[inline(always)]
unsafe fn of_rows<L: Lanes>(
    p: Strided,
    v: Rows<f32>,
    y: RowsMut,
    [rows, columns, k]: [usize; 3],
    add: bool,
) -> usize {
    // SAFETY: the caller's.
    unsafe {
        if L::VECTORS == 4 && columns > 2 * L::N {
            if columns > 3 * L::N {
                of_vectors::<L, 4>(p, v, y, [rows, columns, k], add);
            } else {
                of_vectors::<L, 3>(p, v, y, [rows, columns, k], add);
            }
        } else if columns > L::N {
            of_vectors::<L, 2>(p, v, y, [rows, columns, k], add);
        } else {
            of_vectors::<L, 1>(p, v, y, [rows, columns, k], add);
        }
    }
    columns
}

#[inline(always)]
unsafe fn of_vectors<L: Lanes, const C: usize>(
    p: Strided,
    v: Rows<f32>,
    y: RowsMut,
    [rows, columns, k]: [usize; 3],
    add: bool,
) {
    // SAFETY: the caller's.
    unsafe {
        match rows {
            1 => tile::<L, 1, C>(p, v, y, columns, k, add),
            2 => tile::<L, 2, C>(p, v, y, columns, k, add),
            3 => tile::<L, 3, C>(p, v, y, columns, k, add),
            4 => tile::<L, 4, C>(p, v, y, columns, k, add),
            5 => tile::<L, 5, C>(p, v, y, columns, k, add),
            _ => tile::<L, 6, C>(p, v, y, columns, k, add),
        }
    }
}

#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize, const C: usize>(
    p: Strided,
    v: Rows<f32>,
    y: RowsMut,
    columns: usize,
    k: usize,
    add: bool,
) {
    // SAFETY: the caller's: R rows of p, k rows of v, C vectors of columns; the tile of y is ours.
    unsafe {
        for i in 0..R {
            for c in 0..C {
                L::prefetch(y.start.wrapping_add(i * y.stride + c * L::N));
            }
        }
        let mut sums = [[L::zero(); C]; R];
        for j in 0..k {
            let vs: [L; C] = std::array::from_fn(|c| L::load(v.start.add(j * v.stride + c * L::N)));
            for i in 0..R {
                let weight = L::splat(*p.start.add(i * p.row + j * p.column));
                for c in 0..C {
                    sums[i][c] = sums[i][c].add_mul(weight, vs[c]);
                }
            }
        }
        if columns == C * L::N {
            for i in 0..R {
                for c in 0..C {
                    let y = y.start.add(i * y.stride + c * L::N);
                    let sum = if add { L::load(y).plus(sums[i][c]) } else { sums[i][c] };
                    sum.store(y);
                }
            }
            return;
        }
        for i in 0..R {
            let mut row = [0f32; 64];
            for c in 0..C {
                sums[i][c].store(row.as_mut_ptr().add(c * L::N));
            }
            for c in 0..columns {
                let y = y.start.add(i * y.stride + c);
                *y = if add { *y + row[c] } else { row[c] };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::cpu::pack::pack_in;
    use crate::kernel::cpu::tests::{naive, numbers};

    /// Of every size of a tile and every rest, as it lies and packed, from rows and from columns.
    fn check<L: Lanes>() {
        for m in [1, 2, 3, 4, 5, 6, 7, 13] {
            for (n, k) in [(1, 1), (7, 3), (16, 2), (33, 5), (48, 9), (70, 4), (130, 6)] {
                let stride = n + 3;
                let (p, v) = (numbers(m * k, 1), numbers(k * stride, 2));
                let v_rows = Rows { start: v.as_ptr(), stride };
                let width = width::<L>();
                let mut panels = vec![f32::NAN; n.next_multiple_of(width) * k];
                // SAFETY: the matrices are as large as they have to be.
                unsafe {
                    let size = Size { m: width, n, k };
                    pack_in::<L>(v_rows, size, panels.as_mut_ptr(), k * width);
                }
                let size = Size { m, n, k };
                for (row, column, packed, add) in [
                    (k, 1, false, false),
                    (k, 1, false, true),
                    (1, m, false, true),
                    (k, 1, true, false),
                    (1, m, true, true),
                ] {
                    let start = p.as_ptr();
                    let p_any = Strided { start, row, column };
                    let mut y = vec![0.5; m * (n + 2)];
                    let out = RowsMut { start: y.as_mut_ptr(), stride: n + 2 };
                    // SAFETY: the matrices are as large as they have to be.
                    unsafe {
                        if packed {
                            panels_in::<L>(p_any, panels.as_ptr(), out, size, add);
                        } else {
                            weighted_in::<L>(p_any, v_rows, out, size, add);
                        }
                    }
                    for i in 0..m {
                        let weights: Vec<f32> = (0..k).map(|j| p[i * row + j * column]).collect();
                        for c in 0..n + 2 {
                            let column: Vec<f32> = (0..k).map(|j| v[j * stride + c]).collect();
                            let before = if add || c >= n { 0.5 } else { 0.0 };
                            let product = if c < n { naive(&weights, &column) } else { 0.0 };
                            let found = f64::from(y[i * (n + 2) + c]);
                            assert!((found - before - product).abs() < 1e-5, "{m} x {n} x {k}");
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
