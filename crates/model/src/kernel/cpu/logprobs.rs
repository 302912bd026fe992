//! Log-probability of a target, entropy and loss, from hidden states and the output matrix, for a
//! few rows of logits at a time, and their gradients.
//!
//! ```text
//! z = cap(scale · h Wᵀ)                      cap(z) = c tanh(z / c)
//! log p[t] = z[t] − lse(z)                   H = lse(z) − Σⱼ pⱼ zⱼ
//! ∂/∂zⱼ (a log p[t] + e H) = a (δⱼₜ − pⱼ) − e pⱼ (zⱼ − lse(z) + H)
//! ∂l/∂zⱼ = pⱼ − (1 − ε) δⱼₜ − ε / V          ε of label smoothing; times p[t] of DFT
//! ```

use super::linear::{Weight, input_gradient_into, linear_into, weight_gradient_into};
use super::parallel::each_part;
use super::simd::{exp, max, simd, tanh};
use super::{Output, written, zeros};
use crate::kernel::{Objective, Wanted};

/// Logits that exist at a time, as long as W is read for enough rows.
const LOGITS: usize = 1 << 22;

/// Rows whose logits exist at a time.
pub fn rows_at_a_time(vocabulary: usize) -> usize {
    (LOGITS / vocabulary.max(1)).clamp(64, 256)
}

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
    /// Σ (z − max z)
    distances: f32,
}

simd! { fn summary(z: &[f32]) -> Row {
    let largest = max(z);
    // Of d = z − max z: Σ eᵈ, Σ eᵈ d and Σ d, in lanes.
    let mut sums = [[0f32; 32]; 3];
    let chunks = z.chunks_exact(32);
    let rest = chunks.remainder();
    for z in chunks {
        for i in 0..32 {
            let distance = z[i] - largest;
            let exp = exp(distance);
            sums[0][i] += exp;
            sums[1][i] += exp * distance;
            sums[2][i] += distance;
        }
    }
    for (i, z) in rest.iter().enumerate() {
        let distance = z - largest;
        let exp = exp(distance);
        sums[0][i] += exp;
        sums[1][i] += exp * distance;
        sums[2][i] += distance;
    }
    let [sum, weighted, distances] = sums.map(|lanes| lanes.iter().sum::<f32>());
    let log_sum = sum.ln();
    Row { largest, log_sum, entropy: log_sum - weighted / sum, distances }
}}

/// A gradient by capped logits: p (α + β (log p + H)) + γ, and τ more for the target.
#[derive(Clone, Copy)]
struct Slope {
    alpha: f32,
    beta: f32,
    gamma: f32,
    tau: f32,
}

simd! { fn gradient(z: &mut [f32], row: Row, target: usize, by: Slope, scale: f32, softcap: Option<f32>) {
    let by_capped = |z: f32| {
        let logprob = z - row.largest - row.log_sum;
        exp(logprob) * (by.alpha + by.beta * (logprob + row.entropy)) + by.gamma
    };
    // d cap(s z) / dz = s (1 − (cap(s z) / c)²)
    match softcap {
        None => {
            for z in z.iter_mut() {
                *z = by_capped(*z) * scale;
            }
            z[target] += by.tau * scale;
        }
        Some(cap) => {
            let slope = |z: f32| scale * (1.0 - (z / cap) * (z / cap));
            let at_target = by.tau * slope(z[target]);
            for z in z.iter_mut() {
                *z = by_capped(*z) * slope(*z);
            }
            z[target] += at_target;
        }
    }
}}

/// What is summed over the rows: gradients by h and W, of those that are wanted.
#[derive(Default)]
struct Sums {
    dh: Option<Vec<f32>>,
    dw: Option<Vec<f32>>,
}

impl Sums {
    fn new(h: &[f32], head: &Head<'_>, wanted: Wanted) -> Self {
        Self {
            dh: wanted.input.then(|| zeros(h.len())),
            dw: wanted.weight.then(|| zeros(head.vocabulary * head.dim)),
        }
    }
}

/// Makes the logits of a few rows at a time and what `of_row` says of each, given its number and
/// its logits; if a gradient is wanted, `of_row` has to turn the logits into theirs.
fn walk<const N: usize>(
    h: &[f32],
    head: &Head<'_>,
    sums: &mut Sums,
    of_row: impl Fn(usize, &mut [f32]) -> [f32; N] + Sync,
) -> Vec<f32> {
    let Head { weight, vocabulary, dim, .. } = *head;
    let rows = h.len() / dim;
    let chunk = rows_at_a_time(vocabulary).min(rows).max(1);
    let mut z = zeros(chunk * vocabulary);
    let mut out = vec![[0.0; N]; rows];
    for (part, (h, out)) in h.chunks(chunk * dim).zip(out.chunks_mut(chunk)).enumerate() {
        let z = &mut z[..out.len() * vocabulary];
        // SAFETY: here and below all that is written are numbers.
        linear_into(h, weight, vocabulary, dim, unsafe { written(z) });
        let z_rows = Output(z.as_mut_ptr());
        each_part(out, 1, |row, out| {
            // SAFETY: a row for each of `out`, and no other task has it.
            let z = unsafe {
                std::slice::from_raw_parts_mut(z_rows.get().add(row * vocabulary), vocabulary)
            };
            cap_logits(z, head.scale, head.softcap);
            out[0] = of_row(part * chunk + row, z);
        });
        if let Some(dh) = &mut sums.dh {
            let dh = &mut dh[part * chunk * dim..][..h.len()];
            // SAFETY: as above.
            input_gradient_into(z, weight, vocabulary, dim, unsafe { written(dh) });
        }
        if let Some(dw) = &mut sums.dw {
            // SAFETY: as above.
            weight_gradient_into(h, z, vocabulary, dim, unsafe { written(dw) }, part > 0);
        }
    }
    out.into_flattened()
}

/// h `[n, dim]` and n targets to `[n, 2]`: log-probability and entropy.
pub(crate) fn logprobs(h: &[f32], targets: &[usize], head: &Head<'_>) -> Vec<f32> {
    walk(h, head, &mut Sums::default(), |i, z| {
        let row = summary(z);
        [z[targets[i]] - row.largest - row.log_sum, row.entropy]
    })
}

/// Gradients by h and, if asked for, by W, of Σ a log p + e H with (a, e) the rows of `dy` `[n, 2]`.
pub(crate) fn logprobs_backward(
    h: &[f32],
    targets: &[usize],
    dy: &[f32],
    head: &Head<'_>,
    with_weight: bool,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let mut sums = Sums::new(h, head, Wanted { input: true, weight: with_weight });
    walk(h, head, &mut sums, |i, z| {
        let (a, e) = (dy[2 * i], dy[2 * i + 1]);
        let by = Slope { alpha: -a, beta: -e, gamma: 0.0, tau: a };
        gradient(z, summary(z), targets[i], by, head.scale, head.softcap);
        []
    });
    (sums.dh.expect("wanted"), sums.dw)
}

/// Words and the weights of their losses, `[n]` each.
#[derive(Clone, Copy)]
pub(crate) struct Targets<'a> {
    pub(crate) tokens: &'a [usize],
    pub(crate) weights: &'a [f32],
}

/// What [`cross_entropy`] finds.
pub(crate) struct CrossEntropy {
    /// `[n, 4]`
    pub(crate) rows: Vec<f32>,
    pub(crate) dh: Option<Vec<f32>>,
    pub(crate) dw: Option<Vec<f32>>,
}

/// h `[n, dim]` and n targets to rows of log-probability, entropy, 1 where no word is likelier, and
/// loss; with the gradients of Σ weight · loss that are wanted.
pub(crate) fn cross_entropy(
    h: &[f32],
    targets: Targets<'_>,
    objective: Objective,
    head: &Head<'_>,
    wanted: Wanted,
) -> CrossEntropy {
    let mut sums = Sums::new(h, head, wanted);
    let (words, smoothing) = (head.vocabulary as f32, objective.smoothing());
    let rows = walk(h, head, &mut sums, |i, z| {
        let (target, weight) = (targets.tokens[i], targets.weights[i]);
        let row = summary(z);
        let at_target = z[target];
        let logprob = at_target - row.largest - row.log_sum;
        let top1 = if at_target >= row.largest { 1.0 } else { 0.0 };
        let (loss, weight) = match objective {
            Objective::Nll => (-logprob, weight),
            Objective::Dft => (-logprob.exp() * logprob, weight * logprob.exp()),
            Objective::LabelSmoothing(epsilon) => {
                // −1/V Σⱼ log pⱼ
                let all = row.log_sum - row.distances / words;
                ((epsilon - 1.0) * logprob + epsilon * all, weight)
            }
        };
        if wanted.input || wanted.weight {
            let gamma = -weight * smoothing / words;
            let by = Slope { alpha: weight, beta: 0.0, gamma, tau: weight * (smoothing - 1.0) };
            gradient(z, row, target, by, head.scale, head.softcap);
        }
        [logprob, row.entropy, top1, loss]
    });
    CrossEntropy { rows, dh: sums.dh, dw: sums.dw }
}
