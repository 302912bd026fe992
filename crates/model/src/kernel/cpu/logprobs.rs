//! Log-probability of a target and entropy, from hidden states and the output matrix, for a few
//! rows of logits at a time, and their gradients.
//!
//! ```text
//! z = cap(scale · h Wᵀ)                      cap(z) = c tanh(z / c)
//! log p[t] = z[t] − lse(z)                   H = lse(z) − Σⱼ pⱼ zⱼ
//! ∂/∂zⱼ (a log p[t] + e H) = a (δⱼₜ − pⱼ) − e pⱼ (zⱼ − lse(z) + H)
//! ```

use rayon::prelude::*;

use super::buffer;
use super::linear::{Weight, add_input_gradient, add_weight_gradient, linear_into};
use super::simd::{exp, max, simd, tanh};

/// Logits that exist at a time.
const LOGITS: usize = 1 << 24;

/// The head of a model: W `[vocabulary, dim]`, the factor and the soft cap of its logits.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) weight: Weight<'a>,
    pub(crate) vocabulary: usize,
    pub(crate) dim: usize,
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
}

simd! { fn cap_logits(z: &mut [f32], scale: f32, softcap: Option<f32>) {
    match softcap {
        None if scale == 1.0 => {}
        None => z.iter_mut().for_each(|z| *z *= scale),
        Some(cap) => z.iter_mut().for_each(|z| *z = cap * tanh(*z * scale / cap)),
    }
}}

/// What a row of logits comes down to.
#[derive(Clone, Copy)]
struct Row {
    /// max z
    largest: f32,
    /// lse(z) − max z
    log_sum: f32,
    /// H
    entropy: f32,
}

simd! { fn summary(z: &[f32]) -> Row {
    let largest = max(z);
    // Σ eᵈ and Σ eᵈ d with d = z − max z, in lanes.
    let (mut sums, mut weighted) = ([0f32; 32], [0f32; 32]);
    for z in z.chunks(32) {
        for ((sum, weighted), &z) in sums.iter_mut().zip(&mut weighted).zip(z) {
            let distance = z - largest;
            let exp = exp(distance);
            *sum += exp;
            *weighted += exp * distance;
        }
    }
    let sum: f32 = sums.iter().sum();
    let log_sum = sum.ln();
    Row { largest, log_sum, entropy: log_sum - weighted.iter().sum::<f32>() / sum }
}}

simd! { fn gradient(z: &mut [f32], row: Row, target: usize, a: f32, e: f32) {
    for z in z.iter_mut() {
        let logprob = *z - row.largest - row.log_sum;
        *z = -exp(logprob) * (a + e * (logprob + row.entropy));
    }
    z[target] += a;
}}

/// The rows of logits that are made at a time.
fn chunk(head: &Head<'_>) -> usize {
    (LOGITS / head.vocabulary.max(1)).clamp(8, 256)
}

fn logits(h: &[f32], head: &Head<'_>, z: &mut [f32]) {
    linear_into(h, head.weight, head.vocabulary, head.dim, z);
    z.par_chunks_mut(head.vocabulary).for_each(|z| cap_logits(z, head.scale, head.softcap));
}

/// h `[n, dim]` and n targets to `[n, 2]`: log-probability and entropy.
pub(crate) fn logprobs(h: &[f32], targets: &[usize], head: &Head<'_>) -> Vec<f32> {
    let chunk = chunk(head).min(targets.len()).max(1);
    let mut z = buffer(chunk * head.vocabulary);
    let mut out = buffer(2 * targets.len());
    let parts = h.chunks(chunk * head.dim).zip(targets.chunks(chunk));
    for ((h, targets), out) in parts.zip(out.chunks_mut(2 * chunk)) {
        let z = &mut z[..targets.len() * head.vocabulary];
        logits(h, head, z);
        z.par_chunks_mut(head.vocabulary).zip(targets).zip(out.par_chunks_mut(2)).for_each(
            |((z, &target), out)| {
                let row = summary(z);
                out[0] = z[target] - row.largest - row.log_sum;
                out[1] = row.entropy;
            },
        );
    }
    out
}

/// Gradients by h and, if asked for, by W, of Σ a log p + e H with (a, e) the rows of `dy` `[n, 2]`.
pub(crate) fn logprobs_backward(
    h: &[f32],
    targets: &[usize],
    dy: &[f32],
    head: &Head<'_>,
    with_weight: bool,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let chunk = chunk(head).min(targets.len()).max(1);
    let mut z = buffer(chunk * head.vocabulary);
    let mut dh = buffer(h.len());
    let mut dw = with_weight.then(|| buffer(head.vocabulary * head.dim));
    let parts = h.chunks(chunk * head.dim).zip(dh.chunks_mut(chunk * head.dim));
    for ((h, dh), (targets, dy)) in parts.zip(targets.chunks(chunk).zip(dy.chunks(2 * chunk))) {
        let z = &mut z[..targets.len() * head.vocabulary];
        linear_into(h, head.weight, head.vocabulary, head.dim, z);
        z.par_chunks_mut(head.vocabulary).zip(targets).zip(dy.par_chunks(2)).for_each(
            |((z, &target), dy)| {
                cap_logits(z, head.scale, head.softcap);
                let capped = head.softcap.map(|cap| (cap, z.to_vec()));
                gradient(z, summary(z), target, dy[0], dy[1]);
                // d cap(s z) / dz = s (1 − (cap(s z) / c)²)
                if let Some((cap, capped)) = capped {
                    for (d, z) in z.iter_mut().zip(capped) {
                        *d *= head.scale * (1.0 - (z / cap) * (z / cap));
                    }
                } else if head.scale != 1.0 {
                    for d in z {
                        *d *= head.scale;
                    }
                }
            },
        );
        add_input_gradient(z, head.weight, head.vocabulary, head.dim, dh);
        if let Some(dw) = &mut dw {
            add_weight_gradient(h, z, head.vocabulary, head.dim, dw);
        }
    }
    (dh, dw)
}
