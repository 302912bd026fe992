//! Products of small dense matrices.
//!
//! Every element is a sum in the order of the inner index, with fused multiply-adds (which are exact in
//! the same way on every processor): the bits depend neither on the processor nor on how a matrix is cut.

use pulp::Arch;

/// Columns that are summed side by side.
const LANES: usize = 16;

/// A matrix inside a slice: element (i, k) stands at `i row + k column`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<'a> Left<'a> {
    /// A matrix of `columns` columns, row after row.
    pub(super) fn rows(values: &'a [f32], columns: usize) -> Self {
        Self { values, row: columns, column: 1 }
    }

    /// The transpose of a matrix of `columns` columns that stands row after row.
    pub(super) fn transposed(values: &'a [f32], columns: usize) -> Self {
        Self { values, row: 1, column: columns }
    }
}

/// `out += a b`, out m x n and b k x n row after row.
///
/// # Panics
/// Where a slice is shorter than its dimensions say.
pub(super) fn add_product(out: &mut [f32], a: Left<'_>, b: &[f32], [m, k, n]: [usize; 3]) {
    assert!(out.len() >= m * n && b.len() >= k * n, "matrices of {m} x {k} x {n}");
    if m * k * n == 0 {
        return;
    }
    Arch::new().dispatch(|| {
        let mut row = 0;
        while row < m {
            let out = &mut out[row * n..];
            row += match m - row {
                6.. => rows::<6>(out, a, row, &b[..k * n], n),
                4.. => rows::<4>(out, a, row, &b[..k * n], n),
                2.. => rows::<2>(out, a, row, &b[..k * n], n),
                _ => rows::<1>(out, a, row, &b[..k * n], n),
            };
        }
    });
}

/// R rows of the result, from the row `row` of `a` on; R.
#[expect(clippy::inline_always, reason = "it is compiled for the vectors of whom it is part of")]
#[inline(always)]
fn rows<const R: usize>(out: &mut [f32], a: Left<'_>, row: usize, b: &[f32], n: usize) -> usize {
    let k = b.len() / n;
    let of_a = |p: usize| -> [f32; R] {
        std::array::from_fn(|i| a.values[(row + i) * a.row + p * a.column])
    };
    let packed: Vec<[f32; R]> = (0..k).map(of_a).collect();
    let full = n / LANES * LANES;
    for column in (0..full).step_by(LANES) {
        let mut sums = [[0.0f32; LANES]; R];
        for (i, sums) in sums.iter_mut().enumerate() {
            sums.copy_from_slice(&out[i * n + column..][..LANES]);
        }
        for (a, b) in packed.iter().zip(b.chunks_exact(n)) {
            let b: &[f32; LANES] = b[column..column + LANES].try_into().expect("as many");
            for i in 0..R {
                for lane in 0..LANES {
                    sums[i][lane] = a[i].mul_add(b[lane], sums[i][lane]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            out[i * n + column..][..LANES].copy_from_slice(sums);
        }
    }
    for i in 0..R {
        for column in full..n {
            let mut sum = out[i * n + column];
            for (a, b) in packed.iter().zip(b.chunks_exact(n)) {
                sum = a[i].mul_add(b[column], sum);
            }
            out[i * n + column] = sum;
        }
    }
    R
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_in_order() {
        for [m, k, n] in
            [[1, 1, 1], [7, 5, 3], [6, 9, 16], [13, 40, 37], [4, 3, 33], [0, 3, 3], [3, 0, 3]]
        {
            let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.3).cos()).collect();
            let mut wanted = vec![0.5f32; m * n];
            for i in 0..m {
                for j in 0..n {
                    for p in 0..k {
                        wanted[i * n + j] = a[i * k + p].mul_add(b[p * n + j], wanted[i * n + j]);
                    }
                }
            }
            let mut out = vec![0.5; m * n];
            add_product(&mut out, Left::rows(&a, k), &b, [m, k, n]);
            assert_eq!(out, wanted, "{m} {k} {n}");
            let at = super::super::low_rank::transpose(&a, m, k);
            let mut out = vec![0.5; m * n];
            add_product(&mut out, Left::transposed(&at, m), &b, [m, k, n]);
            assert_eq!(out, wanted, "{m} {k} {n}");
        }
    }
}
