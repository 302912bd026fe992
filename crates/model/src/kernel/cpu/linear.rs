//! y = x Wᵀ with W `[out, in]`, and its gradients dx = dy W, dW = dyᵀ x.

use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use super::dots::dots;
use super::lanes::Element;
use super::matrix::{Rows, RowsMut, Size};
use super::parallel::each_with;
use super::product::{Left, product};
use super::{Output, filled};

/// Columns of y in a task.
const TILE_COLUMNS: usize = 48;
/// Rows of x that stay in the second level cache while the columns pass,
const TILE_ROWS: usize = 64;
/// and those of a task.
const TASK_ROWS: usize = 4 * TILE_ROWS;
/// From this many rows on, copying a tile of W costs less than it saves.
const COPY_ROWS: usize = 9;
/// The most numbers of a row in one pass.
const DEPTH: usize = 768;

/// A weight matrix as it lies in memory.
#[derive(Clone, Copy)]
pub(crate) enum Weight<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl Weight<'_> {
    /// Number of elements.
    pub(super) fn len(self) -> usize {
        match self {
            Self::F32(w) => w.len(),
            Self::Bf16(w) => w.len(),
        }
    }

    /// The elements of a range as f32: where they lie, or widened into `space`.
    pub(super) fn row<'a>(&'a self, range: Range<usize>, space: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::F32(w) => &w[range],
            Self::Bf16(w) => {
                space.resize(range.len(), 0.0);
                bf16::widen_all(&w[range], space);
                space
            }
        }
    }
}

/// x `[m, k]`, W `[n, k]` to y `[m, n]`.
pub(crate) fn linear(x: &[f32], w: Weight<'_>, n: usize, k: usize) -> Vec<f32> {
    let m = x.len() / k.max(1);
    // SAFETY: all of y is written.
    unsafe { filled(m * n, |y| linear_into(x, w, n, k, y)) }
}

/// As [`linear`], into a given y, all of which is written.
pub(crate) fn linear_into(
    x: &[f32],
    w: Weight<'_>,
    n: usize,
    k: usize,
    y: &mut [MaybeUninit<f32>],
) {
    match w {
        Weight::F32(w) => linear_of(x, w, n, k, y),
        Weight::Bf16(w) => linear_of(x, w, n, k, y),
    }
}

fn linear_of<T: Element>(x: &[f32], w: &[T], n: usize, k: usize, y: &mut [MaybeUninit<f32>]) {
    if x.is_empty() || n == 0 {
        y.fill(MaybeUninit::new(0.0));
        return;
    }
    let m = x.len() / k;
    assert!(x.len() == m * k && w.len() == n * k && y.len() == m * n, "shapes of a linear layer");
    let (depth, blocks) = (depth(k), m.div_ceil(TASK_ROWS));
    let output = Output(y.as_mut_ptr().cast());
    let task = |copy: &mut Vec<f32>, task: usize| {
        let (i, j) = (task % blocks * TASK_ROWS, task / blocks * TILE_COLUMNS);
        let rows = i..(i + TASK_ROWS).min(m);
        let columns = TILE_COLUMNS.min(n - j);
        // Narrow numbers are widened once, rows that lie apart are brought together.
        let copied = rows.len() >= COPY_ROWS && (T::NARROW || k > depth);
        for p in (0..k).step_by(depth) {
            let k_p = depth.min(k - p);
            let tile = Rows { start: w[j * k + p..].as_ptr(), stride: k };
            if copied {
                copy.resize(columns * k_p, 0.0);
                for (to, j) in copy.chunks_exact_mut(k_p).zip(j..) {
                    T::widen_all(&w[j * k + p..][..k_p], to);
                }
            }
            for i in rows.clone().step_by(TILE_ROWS) {
                let size = Size { m: TILE_ROWS.min(rows.end - i), n: columns, k: k_p };
                let x = Rows { start: x[i * k + p..].as_ptr(), stride: k };
                // SAFETY: rows i .. i + m of x and j .. j + n of w exist, with columns p .. p + k;
                // the tiles of two tasks do not overlap.
                unsafe {
                    let y = RowsMut { start: output.get(), stride: n }.from(i, j);
                    if copied {
                        dots(x, Rows { start: copy.as_ptr(), stride: k_p }, y, size, p > 0);
                    } else {
                        dots(x, tile, y, size, p > 0);
                    }
                }
            }
        }
    };
    let tasks = blocks * n.div_ceil(TILE_COLUMNS);
    each_with(tasks, Vec::new, task);
}

/// Numbers of a row in one pass: equal parts of at most [`DEPTH`], so that the rows of a tile in
/// registers stay in the first level cache.
fn depth(k: usize) -> usize {
    k.div_ceil(k.div_ceil(DEPTH)).next_multiple_of(16)
}

/// dx `[m, k]` = dy `[m, n]` W `[n, k]`.
pub(crate) fn input_gradient(dy: &[f32], w: Weight<'_>, n: usize, k: usize) -> Vec<f32> {
    // SAFETY: all of dx is written.
    unsafe { filled(dy.len() / n.max(1) * k, |dx| input_gradient_into(dy, w, n, k, dx)) }
}

/// As [`input_gradient`], into a given dx, all of which is written.
pub(crate) fn input_gradient_into(
    dy: &[f32],
    w: Weight<'_>,
    n: usize,
    k: usize,
    dx: &mut [MaybeUninit<f32>],
) {
    let size = Size { m: dy.len() / n.max(1), n: k, k: n };
    product(Left::Rows(dy), w, size, dx, false);
}

/// dW `[n, k]` = dyᵀ x with dy `[m, n]` and x `[m, k]`.
pub(crate) fn weight_gradient(x: &[f32], dy: &[f32], n: usize, k: usize) -> Vec<f32> {
    // SAFETY: all of dW is written.
    unsafe { filled(n * k, |dw| weight_gradient_into(x, dy, n, k, dw, false)) }
}

/// As [`weight_gradient`], added to what dW holds if `add`. All of dW is written.
pub(crate) fn weight_gradient_into(
    x: &[f32],
    dy: &[f32],
    n: usize,
    k: usize,
    dw: &mut [MaybeUninit<f32>],
    add: bool,
) {
    let size = Size { m: n, n: k, k: dy.len() / n.max(1) };
    product(Left::Columns(dy), Weight::F32(x), size, dw, add);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::kernel::cpu::tests::{naive, numbers};
    use crate::kernel::cpu::written;

    /// x wᵀ
    fn product(x: &[f32], w: &[f32], k: usize) -> Vec<f64> {
        x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| naive(x, w))).collect()
    }

    fn transposed(a: &[f32], rows: usize) -> Vec<f32> {
        let columns = a.len() / rows;
        (0..columns).flat_map(|j| (0..rows).map(move |i| a[i * columns + j])).collect()
    }

    #[test]
    fn odd_sizes_equal_the_naive_product() {
        for (m, n, k) in [
            (1, 1, 1),
            (1, 7, 33),
            (3, 50, 16),
            (5, 13, 100),
            (9, 50, 1537),
            (67, 97, 31),
            (130, 3, 64),
        ] {
            let (x, w) = (numbers(m * k, 1), numbers(n * k, 2));
            let y = linear(&x, Weight::F32(&w), n, k);
            for (found, expected) in y.iter().zip(product(&x, &w, k)) {
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-6 * k.max(10) as f64,
                    "{m}x{n}x{k}"
                );
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let (n, k) = (101, 1577);
        let (x, w) = (numbers(70 * k, 1), numbers(n * k, 2));
        let half: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
        for weight in [Weight::F32(&w), Weight::Bf16(&half)] {
            let all = linear(&x, weight, n, k);
            for rows in [1, 2, 3, 5, 8, 9, 66] {
                assert_eq!(linear(&x[..rows * k], weight, n, k), all[..rows * n], "{rows} rows");
            }
        }
    }

    #[test]
    fn bf16_weights_equal_their_widened_ones() {
        let (n, k) = (37, 45);
        let half: Vec<bf16> = numbers(n * k, 2).into_iter().map(bf16::from_f32).collect();
        let wide: Vec<f32> = half.iter().map(|w| w.to_f32()).collect();
        for m in [1, 4, 8, 9, 70] {
            let x = numbers(m * k, 3);
            let narrow = linear(&x, Weight::Bf16(&half), n, k);
            assert_eq!(narrow, linear(&x, Weight::F32(&wide), n, k));
        }
    }

    #[test]
    fn gradients_equal_the_naive_products() {
        // Less than a tile, more than a block in every direction.
        for (m, n, k) in [(1, 1, 1), (13, 530, 37), (300, 70, 65), (7, 9, 1100)] {
            let (x, w, dy) = (numbers(m * k, 1), numbers(n * k, 2), numbers(m * n, 3));
            let half: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
            let wide: Vec<f32> = half.iter().map(|w| w.to_f32()).collect();
            let close = |found: &[f32], before: f64, expected: Vec<f64>| {
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    let distance = (f64::from(*found) - before - expected).abs();
                    assert!(distance < 1e-5 * m.max(n).max(10) as f64, "{m} x {n} x {k}");
                }
            };
            for (weight, w) in [(Weight::F32(&w), &w), (Weight::Bf16(&half), &wide)] {
                let dx = input_gradient(&dy, weight, n, k);
                close(&dx, 0.0, product(&dy, &transposed(w, n), n));
            }
            let expected = product(&transposed(&dy, m), &transposed(&x, m), m);
            close(&weight_gradient(&x, &dy, n, k), 0.0, expected.clone());
            let mut dw = vec![0.5; n * k];
            // SAFETY: numbers are written.
            weight_gradient_into(&x, &dy, n, k, unsafe { written(&mut dw) }, true);
            close(&dw, 0.5, expected);
        }
    }

    /// Bit for bit.
    #[test]
    fn the_number_of_threads_changes_nothing() {
        let (m, n, k) = (300, 200, 700);
        let (x, w, dy) = (numbers(m * k, 1), numbers(n * k, 2), numbers(m * n, 3));
        let all = || {
            let dx = input_gradient(&dy, Weight::F32(&w), n, k);
            let dw = weight_gradient(&x, &dy, n, k);
            [linear(&x, Weight::F32(&w), n, k), dx, dw]
        };
        let with = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(all)
        };
        let one = with(1);
        for threads in [2, 3, 7] {
            assert_eq!(with(threads), one, "{threads} threads");
        }
    }
}
