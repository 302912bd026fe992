//! Sums along the first dimension: one for each place of the other dimensions, a column.
//!
//! The columns are summed tile by tile, a range of columns over a range of rows. Tiles depend on the shape
//! alone and their sums are added in the order of the rows, for the same bits with any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::group::{BLOCK, Block, Group};

/// Columns of a tile.
const WIDTH: usize = 2048;
/// Sums that are kept for all ranges of rows together, and the most ranges.
const SUMS: usize = 1 << 20;
const RANGES: usize = 64;

/// The number of columns of a tensor.
pub(super) fn columns(shape: &[usize]) -> usize {
    shape.iter().skip(1).product()
}

/// `N` sums for each column. `add` adds a stretch of values, which begins at the column `range.start` and
/// goes over whole rows of `range`, to the sums of the columns of `range`.
pub(super) fn sums<const N: usize>(
    group: &Group<'_>,
    add: impl Fn(&mut Block, Range<usize>, &mut [Vec<f64>; N]) + Sync,
) -> [Vec<f64>; N] {
    let columns = columns(group.shape);
    let rows = group.numel().checked_div(columns).unwrap_or(0);
    let mut sums = std::array::from_fn(|_| vec![0.0; columns]);
    if rows == 0 {
        return sums;
    }
    let ranges = (SUMS / columns).clamp(1, RANGES).min(rows);
    let tiles_across = columns.div_ceil(WIDTH);
    let tiles: Vec<(Range<usize>, [Vec<f64>; N])> = (0..ranges * tiles_across)
        .into_par_iter()
        .map_init(
            || group.buffers(),
            |block, tile| {
                let (down, across) = (tile / tiles_across, tile % tiles_across);
                let range = across * WIDTH..columns.min((across + 1) * WIDTH);
                let rows = down * rows / ranges..(down + 1) * rows / ranges;
                let mut sums = std::array::from_fn(|_| vec![0.0; range.len()]);
                // Whole rows lie next to each other and are read together.
                let together = if range.len() == columns { (BLOCK / columns).max(1) } else { 1 };
                for row in rows.clone().step_by(together) {
                    let count = together.min(rows.end - row);
                    group.read_at(row * columns + range.start, count * range.len(), block);
                    add(block, range.clone(), &mut sums);
                }
                (range, sums)
            },
        )
        .collect();
    for (range, parts) in tiles {
        for (sums, parts) in sums.iter_mut().zip(parts) {
            for (sum, part) in sums[range.clone()].iter_mut().zip(parts) {
                *sum += part;
            }
        }
    }
    sums
}
