//! The second moment of a matrix by that of its rows and columns, for Adafactor.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::adafactor::EPSILON;
use super::rule::{Stepped, keep};
use super::slices::{InPlace, in_place};

/// Bands of rows that are summed by themselves: a fixed number, so that the order of the sums does
/// not depend on the number of threads.
const BANDS: usize = 32;

/// g / √(r cᵀ / mean(r)) after r and c have taken up (1 − blend) of what they were and `blend` of
/// the new means of g² + ε; then r and c, as matrices of one row.
pub(super) fn update(gradient: Tensor<2>, [row, column]: [Tensor<2>; 2], blend: f32) -> Stepped {
    let shape = gradient.dims();
    // The gradient itself becomes the update; what is looked at is not used.
    let nothing = row.clone();
    let changed = in_place([gradient, row, column], [], nothing, |[g, r, c], [], _| {
        update_slices(g, r, c, blend);
    });
    let [update, row, column] = match changed {
        InPlace::Changed(changed, []) => changed,
        InPlace::Elsewhere(tensors, [], _) => update_tensors(tensors, shape, blend),
    };
    (update, keep([row, column]))
}

fn update_slices(g: &mut [f32], r: &mut [f32], c: &mut [f32], blend: f32) {
    let (rows, columns) = (r.len(), c.len());
    let band = rows.div_ceil(BANDS).max(1);
    let sums: Vec<Vec<f64>> = g
        .par_chunks(band * columns)
        .zip(r.par_chunks_mut(band))
        .map(|(g, r)| means(g, r, columns, blend))
        .collect();
    let mut column_sums = vec![0.0; columns];
    for sums in &sums {
        column_sums.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    for (c, sum) in c.iter_mut().zip(&column_sums) {
        *c = (1.0 - blend) * *c + blend * (sum / rows as f64) as f32;
    }
    let mean = r.iter().map(|&r| f64::from(r)).sum::<f64>() / rows as f64;
    let by_row: Vec<f32> = r.iter().map(|&r| 1.0 / (r / mean as f32).sqrt()).collect();
    let by_column: Vec<f32> = c.iter().map(|&c| 1.0 / c.sqrt()).collect();
    g.par_chunks_mut(columns).with_min_len(16).zip(&by_row).for_each(|(g, &by_row)| {
        g.iter_mut().zip(&by_column).for_each(|(g, &by_column)| *g *= by_row * by_column);
    });
}

/// The new means of some rows; returns their part of the sums of the columns.
fn means(g: &[f32], r: &mut [f32], columns: usize, blend: f32) -> Vec<f64> {
    let mut column_sums = vec![0.0; columns];
    for (g, r) in g.chunks_exact(columns).zip(r) {
        let mut sum = 0.0;
        for (&g, column) in g.iter().zip(&mut column_sums) {
            let square = f64::from(g * g + EPSILON);
            *column += square;
            sum += square;
        }
        *r = (1.0 - blend) * *r + blend * (sum / columns as f64) as f32;
    }
    column_sums
}

fn update_tensors(
    [g, r, c]: [Tensor<2>; 3],
    [rows, columns]: [usize; 2],
    blend: f32,
) -> [Tensor<2>; 3] {
    let squares = g.clone() * g.clone() + EPSILON;
    let row_means = squares.clone().mean_dim(1).reshape([1, rows]);
    let column_means = squares.mean_dim(0).reshape([1, columns]);
    let r = r * (1.0 - blend) + row_means * blend;
    let c = c * (1.0 - blend) + column_means * blend;
    let by_row = (r.clone() / r.clone().mean_dim(1)).sqrt().recip().reshape([rows, 1]);
    let by_column = c.clone().sqrt().recip();
    [g * (by_row * by_column), r, c]
}
