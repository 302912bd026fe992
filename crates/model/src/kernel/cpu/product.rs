//! y = a b of large matrices: b is packed in panels, the work is cut into tasks.
//!
//! The sum of an element runs over blocks of [`DEPTH`] terms, one after the other, and over the terms
//! of each: neither the number of threads nor the cut into tasks has a part in it.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::Output;
use super::linear::Weight;
use super::matrix::{Rows, RowsMut, Size, Strided};
use super::pack::pack;
use super::parallel::each_with;
use super::weighted::{Tile, weighted_panels};

/// Terms of a sum in one pass.
const DEPTH: usize = 256;
/// Columns whose panels are packed at a time: they stay in the second level cache.
const COLUMNS: usize = 512;
/// Columns of aᵀ that lie together when they are packed: whole tiles of rows of a.
const LEFT_WIDTH: usize = 48;
/// Columns of aᵀ that are packed at a time.
const LEFT: usize = 4 * LEFT_WIDTH;

/// The left factor.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// `[m, k]`
    Rows(&'a [f32]),
    /// aᵀ, `[k, m]`
    Columns(&'a [f32]),
}

/// y `[m, n]` = a `[m, k]` b `[k, n]`, added to what `y` holds if `add`. All of y is written.
pub(super) fn product(
    a: Left<'_>,
    b: Weight<'_>,
    size: Size,
    y: &mut [MaybeUninit<f32>],
    add: bool,
) {
    let Size { m, n, k } = size;
    let numbers = match a {
        Left::Rows(numbers) | Left::Columns(numbers) => numbers,
    };
    assert!(numbers.len() == m * k && b.len() == k * n && y.len() == m * n, "shapes of a product");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 && !add {
        y.fill(MaybeUninit::new(0.0));
    }
    let tile = Tile::here();
    let [rows, columns] = part_of(size, tile, rayon::current_num_threads());
    let (down, across) = (m.div_ceil(rows), n.div_ceil(columns));
    let output = Output(y.as_mut_ptr().cast());
    each_with(down * across, Space::default, |space, task| {
        let (i, j) = (task / across * rows, task % across * columns);
        let (i, j) = (i..(i + rows).min(m), j..(j + columns).min(n));
        for from in j.clone().step_by(COLUMNS) {
            let j = from..(from + COLUMNS).min(j.end);
            for p in (0..k).step_by(DEPTH) {
                let p = p..(p + DEPTH).min(k);
                // SAFETY: the parts of two tasks do not overlap.
                let y = unsafe { RowsMut { start: output.get(), stride: n }.from(0, j.start) };
                space.part(
                    a,
                    b,
                    size,
                    y,
                    [i.clone(), j.clone(), p.clone()],
                    tile,
                    add || p.start > 0,
                );
            }
        }
    });
}

/// Memory of a task.
#[derive(Default)]
struct Space {
    panels: Vec<f32>,
    left: Vec<f32>,
    row: Vec<f32>,
}

impl Space {
    /// Rows i, columns j (at most [`COLUMNS`]), terms p (at most [`DEPTH`]); y begins at the first
    /// of these columns.
    #[expect(clippy::too_many_arguments, reason = "one call")]
    fn part(
        &mut self,
        a: Left<'_>,
        b: Weight<'_>,
        Size { m, n, k }: Size,
        y: RowsMut,
        [i, j, p]: [Range<usize>; 3],
        tile: Tile,
        add: bool,
    ) {
        let depth = p.len();
        self.panels.resize(COLUMNS.next_multiple_of(tile.width) * DEPTH, 0.0);
        let (panels, stride) = (self.panels.as_mut_ptr(), depth * tile.width);
        let size = |rows| Size { m: tile.width, n: j.len(), k: rows };
        if let Weight::F32(b) = b {
            let from = Rows { start: b[p.start * n + j.start..].as_ptr(), stride: n };
            // SAFETY: rows p, columns j of b; the panels have room for them.
            unsafe { pack(from, size(depth), panels, stride) };
        } else {
            for (place, p) in p.clone().enumerate() {
                let row = b.row(p * n + j.start..p * n + j.end, &mut self.row);
                let from = Rows { start: row.as_ptr(), stride: 0 };
                // SAFETY: one row, columns j; the panels have room for it.
                unsafe { pack(from, size(1), panels.add(place * tile.width), stride) };
            }
        }
        match a {
            Left::Rows(a) => {
                let a = Strided { start: a[i.start * k + p.start..].as_ptr(), row: k, column: 1 };
                let size = Size { m: i.len(), n: j.len(), k: depth };
                // SAFETY: rows i and terms p of a, the panels just packed, rows i of y.
                unsafe {
                    weighted_panels(a, self.panels.as_ptr(), y.from(i.start, 0), size, add);
                }
            }
            Left::Columns(a) => {
                self.left.resize(LEFT * DEPTH, 0.0);
                for from in i.clone().step_by(LEFT) {
                    let i = from..(from + LEFT).min(i.end);
                    let (end, stride) = (i.end, depth * LEFT_WIDTH);
                    let size = Size { m: LEFT_WIDTH, n: i.len(), k: depth };
                    let columns = Rows { start: a[p.start * m + i.start..].as_ptr(), stride: m };
                    // SAFETY: rows p, columns i of aᵀ; there is room for them.
                    unsafe { pack(columns, size, self.left.as_mut_ptr(), stride) };
                    for (left, i) in self.left.chunks(stride).zip(i.step_by(LEFT_WIDTH)) {
                        let rows = LEFT_WIDTH.min(end - i);
                        let a = Strided { start: left.as_ptr(), row: 1, column: LEFT_WIDTH };
                        let size = Size { m: rows, n: j.len(), k: depth };
                        // SAFETY: the columns and the panels just packed, rows i of y.
                        unsafe {
                            weighted_panels(a, self.panels.as_ptr(), y.from(i, 0), size, add);
                        }
                    }
                }
            }
        }
    }
}

/// Rows and columns of a task: those with which all are soonest done, by a rough count of cycles.
fn part_of(Size { m, n, k }: Size, tile: Tile, threads: usize) -> [usize; 2] {
    let cut = |size: usize, parts: usize, unit: usize| {
        size.div_ceil(parts).next_multiple_of(unit).min(size.next_multiple_of(unit))
    };
    let most = 4 * threads;
    let mut best = ([m, n], f64::INFINITY);
    for down in 1..=most {
        for across in 1..=most / down {
            let (rows, columns) = (cut(m, down, tile.rows), cut(n, across, tile.width));
            let tasks = m.div_ceil(rows) * n.div_ceil(columns);
            // Of one task: the products, and packing its part of b, a number of which costs as much
            // as some products.
            let cost = (rows * columns + 8 * columns) as f64 * k as f64;
            // The last task of a thread runs while others wait.
            let time = cost * (tasks as f64 / threads as f64).max(1.0) + 0.25 * cost;
            if time < best.1 {
                best = ([rows, columns], time);
            }
        }
    }
    best.0
}
