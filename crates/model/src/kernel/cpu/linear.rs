//! y = x Wᵀ with W `[out, in]`, and its gradients dx = dy W, dW = dyᵀ x.

use half::bf16;
use rayon::prelude::*;

use super::lanes::Element;
use super::tile::{self, Rows, RowsMut, Size, Weights};
use super::{Output, buffer};

/// Rows of x and columns of y in a task: the rows of x stay in the second level cache while the
/// columns pass.
const TILE_ROWS: usize = 64;
const TILE_COLUMNS: usize = 48;
/// From this many rows on, widening a tile of W once is cheaper than at each use.
const WIDEN_ROWS: usize = 9;
/// The most numbers of a row in one pass.
const DEPTH: usize = 768;
/// Rows of the right factor in one pass of a gradient: a block of them stays in the cache.
const GRADIENT_DEPTH: usize = 256;

/// A weight matrix as it lies in memory.
#[derive(Clone, Copy)]
pub(crate) enum Weight<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// x `[m, k]`, W `[n, k]` to y `[m, n]`.
pub(crate) fn linear(x: &[f32], w: Weight<'_>, n: usize, k: usize) -> Vec<f32> {
    let m = x.len() / k.max(1);
    let mut y = buffer(m * n);
    linear_into(x, w, n, k, &mut y);
    y
}

/// As [`linear`], into a given y.
pub(super) fn linear_into(x: &[f32], w: Weight<'_>, n: usize, k: usize, y: &mut [f32]) {
    match w {
        Weight::F32(w) => linear_of(x, w, n, k, y),
        Weight::Bf16(w) => linear_of(x, w, n, k, y),
    }
}

fn linear_of<T: Element>(x: &[f32], w: &[T], n: usize, k: usize, y: &mut [f32]) {
    if x.is_empty() || n == 0 {
        return;
    }
    let m = x.len() / k;
    assert!(x.len() == m * k && w.len() == n * k && y.len() == m * n, "shapes of a linear layer");
    let (strips, depth) = (n.div_ceil(TILE_COLUMNS), depth(k));
    let output = Output(y.as_mut_ptr());
    let task = |wide: &mut Vec<f32>, task: usize| {
        let (i, j) = (task / strips * TILE_ROWS, task % strips * TILE_COLUMNS);
        // SAFETY: row i, column j lies in y; the tiles of two tasks do not overlap.
        let y = RowsMut { start: unsafe { output.get().add(i * n + j) }, stride: n };
        for p in (0..k).step_by(depth) {
            let size =
                Size { m: TILE_ROWS.min(m - i), n: TILE_COLUMNS.min(n - j), k: depth.min(k - p) };
            let x = Rows { start: x[i * k + p..].as_ptr(), stride: k };
            let tile = Rows { start: w[j * k + p..].as_ptr(), stride: k };
            // SAFETY: rows i .. i + m of x and j .. j + n of w exist, with columns p .. p + k.
            unsafe {
                if T::NARROW && size.m >= WIDEN_ROWS {
                    let tile = widened(&w[j * k + p..], k, size, wide);
                    tile::dots(x, tile, y, size, p > 0);
                } else {
                    tile::dots(x, tile, y, size, p > 0);
                }
            }
        }
    };
    let tasks = m.div_ceil(TILE_ROWS) * strips;
    (0..tasks).into_par_iter().for_each_init(Vec::new, task);
}

/// Numbers of a row in one pass: equal parts of at most [`DEPTH`], so that the rows of a tile in
/// registers stay in the first level cache.
fn depth(k: usize) -> usize {
    k.div_ceil(k.div_ceil(DEPTH)).next_multiple_of(16)
}

/// A tile of a narrow matrix in f32.
fn widened<T: Element>(w: &[T], stride: usize, size: Size, wide: &mut Vec<f32>) -> Rows<f32> {
    wide.clear();
    for row in w.chunks(stride).take(size.n) {
        wide.extend(row[..size.k].iter().map(|w| w.widen()));
    }
    Rows { start: wide.as_ptr(), stride: size.k }
}

/// dx `[m, k]` = dy `[m, n]` W `[n, k]`, added to `dx`.
pub(super) fn add_input_gradient(dy: &[f32], w: Weight<'_>, n: usize, k: usize, dx: &mut [f32]) {
    let m = dy.len() / n;
    let elements = match w {
        Weight::F32(w) => w.len(),
        Weight::Bf16(w) => w.len(),
    };
    assert!(dy.len() == m * n && elements == n * k && dx.len() == m * k, "shapes of a gradient");
    let mut wide = Vec::new();
    for j in (0..n).step_by(GRADIENT_DEPTH) {
        let depth = GRADIENT_DEPTH.min(n - j);
        let w = match w {
            Weight::F32(w) => &w[j * k..(j + depth) * k],
            Weight::Bf16(w) => {
                wide.clear();
                wide.extend(w[j * k..(j + depth) * k].iter().map(|w| w.widen()));
                &wide
            }
        };
        let rows = m.div_ceil(rayon::current_num_threads() * 2).next_multiple_of(4);
        dx.par_chunks_mut(rows * k).zip(dy.par_chunks(rows * n)).for_each(|(dx, dy)| {
            let size = Size { m: dy.len() / n, n: k, k: depth };
            let dy = Weights { start: dy[j..].as_ptr(), row: n, column: 1 };
            let w = Rows { start: w.as_ptr(), stride: k };
            let dx = RowsMut { start: dx.as_mut_ptr(), stride: k };
            // SAFETY: the rows of the chunks, `depth` columns of dy from column j on.
            unsafe { tile::weighted(dy, w, dx, size, true) }
        });
    }
}

/// dW `[n, k]` = dyᵀ x with dy `[m, n]` and x `[m, k]`, added to `dw`.
pub(super) fn add_weight_gradient(x: &[f32], dy: &[f32], n: usize, k: usize, dw: &mut [f32]) {
    let m = dy.len() / n;
    assert!(dy.len() == m * n && x.len() == m * k && dw.len() == n * k, "shapes of a gradient");
    let rows = 64;
    dw.par_chunks_mut(rows * k).enumerate().for_each(|(task, dw)| {
        let size = Size { m: dw.len() / k, n: k, k: m };
        let dy = Weights { start: dy[task * rows..].as_ptr(), row: 1, column: n };
        let x = Rows { start: x.as_ptr(), stride: k };
        let dw = RowsMut { start: dw.as_mut_ptr(), stride: k };
        // SAFETY: the columns of dy that belong to the chunk's rows, all m rows of dy and x.
        unsafe { tile::weighted(dy, x, dw, size, true) }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
    }

    fn naive(x: &[f32], w: &[f32], n: usize, k: usize) -> Vec<f64> {
        let dot = |x: &[f32], w: &[f32]| -> f64 {
            x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
        };
        x.chunks(k)
            .flat_map(|x| w.chunks(k).map(move |w| dot(x, w)))
            .take(x.len() / k * n)
            .collect()
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
            for (found, expected) in y.iter().zip(naive(&x, &w, n, k)) {
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
        let (m, n, k) = (13, 530, 37);
        let (x, w, dy) = (numbers(m * k, 1), numbers(n * k, 2), numbers(m * n, 3));
        let transposed = |a: &[f32], rows: usize| -> Vec<f32> {
            let columns = a.len() / rows;
            (0..columns).flat_map(|j| (0..rows).map(move |i| a[i * columns + j])).collect()
        };
        let mut dx = vec![0.5; m * k];
        add_input_gradient(&dy, Weight::F32(&w), n, k, &mut dx);
        for (found, expected) in dx.iter().zip(naive(&dy, &transposed(&w, n), k, n)) {
            assert!((f64::from(*found) - 0.5 - expected).abs() < 1e-4);
        }
        let mut dw = vec![0.25; n * k];
        add_weight_gradient(&x, &dy, n, k, &mut dw);
        for (found, expected) in dw.iter().zip(naive(&transposed(&dy, m), &transposed(&x, m), k, m))
        {
            assert!((f64::from(*found) - 0.25 - expected).abs() < 1e-4);
        }
    }
}
