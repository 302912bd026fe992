//! Rotary position embedding: the first half of the rotated numbers against the second. The gradient
//! is turned back.

use std::mem::MaybeUninit;

use super::filled;
use super::parallel::each_part;
use super::simd::simd;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Forth,
    Back,
}

simd! { fn rotate_heads(
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    sign: f32,
    dim: usize,
    y: &mut [MaybeUninit<f32>],
) {
    let half = cos.len();
    for (x, y) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)) {
        let (x, x_rest) = x.split_at(2 * half);
        let (y, y_rest) = y.split_at_mut(2 * half);
        let (a, b) = x.split_at(half);
        let (y_a, y_b) = y.split_at_mut(half);
        let (a, b, cos, sin) = (&a[..half], &b[..half], &cos[..half], &sin[..half]);
        for i in 0..half {
            let sin = sign * sin[i];
            y_a[i].write(a[i] * cos[i] - b[i] * sin);
            y_b[i].write(b[i] * cos[i] + a[i] * sin);
        }
        for (y, x) in y_rest.iter_mut().zip(x_rest) {
            y.write(*x);
        }
    }
}}

/// Rotates the first `2 * half` numbers of each head: x `[positions, heads, dim]`, cos and sin
/// `[positions, half]`.
pub(crate) fn rotary(
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    [heads, dim, half]: [usize; 3],
    turn: Turn,
) -> Vec<f32> {
    let row = heads * dim;
    assert!(x.len() * half == cos.len() * row && cos.len() == sin.len(), "shapes of a rotation");
    assert!(half > 0 && 2 * half <= dim && x.len().is_multiple_of(row), "shapes of a rotation");
    let part = (8192 / row.max(1)).max(1);
    let sign = if turn == Turn::Forth { 1.0 } else { -1.0 };
    // SAFETY: every head of every position is written.
    unsafe {
        filled(x.len(), |y| {
            each_part(y, part * row, |i, y| {
                for (place, y) in (i * part..).zip(y.chunks_exact_mut(row)) {
                    let angles = place * half..(place + 1) * half;
                    let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
                    rotate_heads(&x[place * row..][..row], cos, sin, sign, dim, y);
                }
            });
        })
    }
}
