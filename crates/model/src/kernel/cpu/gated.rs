//! Gated activation y = act(g) · u and its gradients du = dy act(g), dg = dy u act′(g).

use std::mem::MaybeUninit;

use super::parallel::each_part;
use super::simd::{exp, simd, tanh};
use super::{Output, filled, grain};
use crate::config::Activation;

/// √(2/π) and the cubic coefficient of the tanh form of GELU (Hendrycks & Gimpel 2016,
/// arXiv:1606.08415).
const GELU_TANH: (f32, f32) = (0.797_884_6, 0.044_715);

/// σ(g)
#[inline(always)]
fn sigmoid(g: f32) -> f32 {
    1.0 / (1.0 + exp(-g))
}

simd! { fn silu(g: &[f32], u: &[f32], y: &mut [MaybeUninit<f32>]) {
    for ((y, &g), &u) in y.iter_mut().zip(g).zip(u) {
        y.write(g * sigmoid(g) * u);
    }
}}

simd! { fn silu_backward(
    g: &[f32],
    u: &[f32],
    dy: &[f32],
    dg: &mut [MaybeUninit<f32>],
    du: &mut [MaybeUninit<f32>],
) {
    for ((((&g, &u), &dy), dg), du) in g.iter().zip(u).zip(dy).zip(dg).zip(du) {
        let s = sigmoid(g);
        du.write(dy * g * s);
        dg.write(dy * u * (s + g * s * (1.0 - s)));
    }
}}

simd! { fn gelu_tanh(g: &[f32], u: &[f32], y: &mut [MaybeUninit<f32>]) {
    for ((y, &g), &u) in y.iter_mut().zip(g).zip(u) {
        let inner = GELU_TANH.0 * (g + GELU_TANH.1 * g * g * g);
        y.write(0.5 * g * (1.0 + tanh(inner)) * u);
    }
}}

simd! { fn gelu_tanh_backward(
    g: &[f32],
    u: &[f32],
    dy: &[f32],
    dg: &mut [MaybeUninit<f32>],
    du: &mut [MaybeUninit<f32>],
) {
    for ((((&g, &u), &dy), dg), du) in g.iter().zip(u).zip(dy).zip(dg).zip(du) {
        let t = tanh(GELU_TANH.0 * (g + GELU_TANH.1 * g * g * g));
        let slope = GELU_TANH.0 * (1.0 + 3.0 * GELU_TANH.1 * g * g);
        du.write(dy * 0.5 * g * (1.0 + t));
        dg.write(dy * u * 0.5 * (1.0 + t + g * (1.0 - t * t) * slope));
    }
}}

/// y. `None` for an activation that has no loop here.
pub(crate) fn gated(g: &[f32], u: &[f32], activation: Activation) -> Option<Vec<f32>> {
    let loop_ = match activation {
        Activation::Silu => silu,
        Activation::GeluTanh => gelu_tanh,
        Activation::Gelu => return None,
    };
    assert!(g.len() == u.len(), "shapes of a gate");
    let part = grain(g.len()).max(4096);
    // SAFETY: every number is written.
    let y = unsafe {
        filled(g.len(), |y| {
            each_part(y, part, |i, y| {
                let here = i * part..i * part + y.len();
                loop_(&g[here.clone()], &u[here], y);
            });
        })
    };
    Some(y)
}

/// dg and du. `None` for an activation that has no loop here.
pub(crate) fn gated_backward(
    g: &[f32],
    u: &[f32],
    dy: &[f32],
    activation: Activation,
) -> Option<(Vec<f32>, Vec<f32>)> {
    let loop_ = match activation {
        Activation::Silu => silu_backward,
        Activation::GeluTanh => gelu_tanh_backward,
        Activation::Gelu => return None,
    };
    let n = g.len();
    assert!(n == u.len() && n == dy.len(), "shapes of a gate");
    let part = grain(n).max(4096);
    let mut dg = Vec::new();
    // SAFETY: every number of both is written.
    unsafe {
        let du = filled(n, |du| {
            dg = filled(n, |dg| {
                let du = Output(du.as_mut_ptr());
                each_part(dg, part, |i, dg| {
                    let here = i * part..i * part + dg.len();
                    // SAFETY: these numbers of du belong to this task alone.
                    let du = std::slice::from_raw_parts_mut(du.get().add(here.start), dg.len());
                    loop_(&g[here.clone()], &u[here.clone()], &dy[here], dg, du);
                });
            });
        });
        Some((dg, du))
    }
}
