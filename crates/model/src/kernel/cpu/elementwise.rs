//! Root-mean-square norm, rotary position embedding, gated activation.

use rayon::prelude::*;

use super::simd::{dot, exp, simd, tanh};
use super::{buffer, grain};
use crate::config::Activation;

simd! { fn rms_norm_rows(x: &[f32], w: &[f32], eps: f32, offset: f32, y: &mut [f32]) {
    let d = w.len();
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
        let r = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
        for i in 0..d {
            y[i] = x[i] * r * (w[i] + offset);
        }
    }
}}

/// y = x / √(mean(x²) + eps) · (w + offset), over rows of w's length.
pub(crate) fn rms_norm(x: &[f32], w: &[f32], eps: f32, offset: f32) -> Vec<f32> {
    let d = w.len();
    let mut y = buffer(x.len());
    let part = grain(x.len() / d).max(4096 / d) * d;
    y.par_chunks_mut(part)
        .zip(x.par_chunks(part))
        .for_each(|(y, x)| rms_norm_rows(x, w, eps, offset, y));
    y
}

simd! { fn rotate_heads(x: &[f32], cos: &[f32], sin: &[f32], dim: usize, y: &mut [f32]) {
    let half = cos.len();
    for (x, y) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)) {
        let (x, x_rest) = x.split_at(2 * half);
        let (y, y_rest) = y.split_at_mut(2 * half);
        let (a, b) = x.split_at(half);
        let (y_a, y_b) = y.split_at_mut(half);
        let (a, b, cos, sin) = (&a[..half], &b[..half], &cos[..half], &sin[..half]);
        for i in 0..half {
            y_a[i] = a[i] * cos[i] - b[i] * sin[i];
            y_b[i] = b[i] * cos[i] + a[i] * sin[i];
        }
        y_rest.copy_from_slice(x_rest);
    }
}}

/// Rotates the first `2 * half` numbers of each head, halves against each other: x
/// `[positions, heads, dim]`, cos and sin `[positions, half]`.
pub(crate) fn rotary(
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    [heads, dim, half]: [usize; 3],
) -> Vec<f32> {
    let mut y = buffer(x.len());
    let row = heads * dim;
    y.par_chunks_mut(row)
        .zip(x.par_chunks(row))
        .zip(cos.par_chunks(half).zip(sin.par_chunks(half)))
        .with_min_len((8192 / row).max(1))
        .for_each(|((y, x), (cos, sin))| rotate_heads(x, cos, sin, dim, y));
    y
}

simd! { fn silu_gated(g: &[f32], u: &[f32], y: &mut [f32]) {
    for ((y, &g), &u) in y.iter_mut().zip(g).zip(u) {
        *y = g / (1.0 + exp(-g)) * u;
    }
}}

/// √(2/π) and the cubic coefficient of the tanh form of GELU (Hendrycks & Gimpel 2016,
/// arXiv:1606.08415).
pub(crate) const GELU_TANH: (f32, f32) = (0.797_884_6, 0.044_715);

simd! { fn gelu_tanh_gated(g: &[f32], u: &[f32], y: &mut [f32]) {
    for ((y, &g), &u) in y.iter_mut().zip(g).zip(u) {
        let inner = GELU_TANH.0 * (g + GELU_TANH.1 * g * g * g);
        *y = 0.5 * g * (1.0 + tanh(inner)) * u;
    }
}}

/// y = act(g) · u. `None` for an activation that has no loop here.
pub(crate) fn gated(g: &[f32], u: &[f32], activation: Activation) -> Option<Vec<f32>> {
    let loop_ = match activation {
        Activation::Silu => silu_gated,
        Activation::GeluTanh => gelu_tanh_gated,
        Activation::Gelu => return None,
    };
    let mut y = buffer(g.len());
    let part = grain(g.len()).max(4096);
    y.par_chunks_mut(part)
        .zip(g.par_chunks(part).zip(u.par_chunks(part)))
        .for_each(|(y, (g, u))| loop_(g, u, y));
    Some(y)
}
