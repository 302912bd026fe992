//! Root-mean-square norm and its gradients, row by row:
//!
//! ```text
//! r = 1 / √(mean(x²) + eps)      y = r x (w + offset)
//! g = dy (w + offset)            dx = r (g − x r² mean(g x))      dw = Σ dy r x
//! ```

use std::mem::MaybeUninit;

use super::parallel::each_part;
use super::simd::{dot, simd};
use super::{filled, grain};
use crate::kernel::Wanted;

/// Rows whose part of dw is summed first: the same on any number of threads.
const ROWS: usize = 64;

simd! { fn rows_of_norm(
    x: &[f32],
    w: &[f32],
    eps: f32,
    offset: f32,
    y: &mut [MaybeUninit<f32>],
) {
    let d = w.len();
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
        let r = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
        for i in 0..d {
            y[i].write(x[i] * r * (w[i] + offset));
        }
    }
}}

/// y over rows of w's length.
pub(crate) fn rms_norm(x: &[f32], w: &[f32], eps: f32, offset: f32) -> Vec<f32> {
    let d = w.len();
    assert!(d > 0 && x.len().is_multiple_of(d), "shapes of a norm");
    let part = grain(x.len() / d).max(4096 / d) * d;
    // SAFETY: every row is written.
    unsafe {
        filled(x.len(), |y| {
            each_part(y, part, |i, y| {
                rows_of_norm(&x[i * part..][..y.len()], w, eps, offset, y);
            });
        })
    }
}

simd! { fn rows_of_dx(
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    eps: f32,
    offset: f32,
    dx: &mut [MaybeUninit<f32>],
) {
    let d = w.len();
    for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
        let r = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
        let mut sums = [0f32; 32];
        for ((x, dy), w) in x.chunks(32).zip(dy.chunks(32)).zip(w.chunks(32)) {
            for (((sum, x), dy), w) in sums.iter_mut().zip(x).zip(dy).zip(w) {
                *sum += dy * (w + offset) * x;
            }
        }
        let c = sums.iter().sum::<f32>() * r * r * r / d as f32;
        for i in 0..d {
            dx[i].write(dy[i] * (w[i] + offset) * r - x[i] * c);
        }
    }
}}

simd! { fn rows_of_dw(x: &[f32], dy: &[f32], eps: f32, dw: &mut [f32]) {
    let d = dw.len();
    for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact(d)) {
        let r = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
        for i in 0..d {
            dw[i] += dy[i] * r * x[i];
        }
    }
}}

/// dx and dw, if they are wanted.
pub(crate) fn rms_norm_backward(
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    eps: f32,
    offset: f32,
    wanted: Wanted,
) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
    let d = w.len();
    assert!(x.len() == dy.len() && x.len().is_multiple_of(d), "shapes of a norm");
    let part = grain(x.len() / d).max(4096 / d) * d;
    // SAFETY: every row is written.
    let dx = wanted.input.then(|| unsafe {
        filled(x.len(), |dx| {
            each_part(dx, part, |i, dx| {
                let here = i * part..i * part + dx.len();
                rows_of_dx(&x[here.clone()], w, &dy[here], eps, offset, dx);
            });
        })
    });
    let dw = wanted.weight.then(|| {
        let mut parts = vec![0.0; x.len().div_ceil(ROWS * d) * d];
        each_part(&mut parts, d, |i, dw| {
            let here = i * ROWS * d..((i + 1) * ROWS * d).min(x.len());
            rows_of_dw(&x[here.clone()], &dy[here], eps, dw);
        });
        let mut dw = vec![0.0; d];
        for part in parts.chunks_exact(d) {
            dw.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        dw
    });
    (dx, dw)
}
