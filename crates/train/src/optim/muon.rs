//! Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>) as `torch.optim.Muon`
//! computes it.
//!
//! ```text
//! b ← b + (1 − μ)(g − b)
//! u = g + μ (b − g) with Nesterov's momentum, b without
//! θ ← θ − η λ θ − η r · NewtonSchulz(u)
//! ```
//!
//! r makes steps of matrices of different shapes alike. For a matrix `[rows, columns]` it is
//! √max(1, rows / columns) (`original`), 0.2 √max(rows, columns) (`match_rms_adamw`: learning rates
//! of AdamW fit; Liu et al. 2025, arXiv:2502.16982) or √(rows / columns) (`spectral_unclamped`).
//!
//! The iteration runs in f32, PyTorch's in bf16. Embedding and head are not for Muon, nor are
//! vectors: AdamW trains them.

use burn::tensor::Tensor;
use posttrain_model::Parameter;
use rayon::prelude::*;

use super::arguments::{Arguments, wrong};
use super::config::{above_zero, at_least_zero, check};
use super::rule::{Part, Step, Stepped, keep};
use super::slices::{InPlace, PART, in_place};
use crate::Error;

/// a, b and c of the quintic, chosen for a steep slope at 0.
const QUINTIC: [f32; 3] = [3.4445, -4.775, 2.0315];

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Muon {
    /// μ
    momentum: f64,
    nesterov: bool,
    iterations: usize,
    /// The smallest norm that is divided by.
    epsilon: f64,
    adjust: Adjust,
}

/// How the learning rate depends on the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adjust {
    Original,
    MatchRmsAdamW,
    SpectralUnclamped,
}

/// Whether Muon trains a parameter.
pub(super) fn is_for(parameter: &Parameter) -> bool {
    let outer = ["embed_tokens", "lm_head", "score", "v_head"];
    parameter.shape.len() == 2 && !parameter.name.split('.').any(|part| outer.contains(&part))
}

impl Muon {
    pub(super) fn new(arguments: &mut Arguments) -> Result<Self, Error> {
        let adjust = match arguments.take("adjust_lr_fn").as_deref() {
            None | Some("original") => Adjust::Original,
            Some("match_rms_adamw") => Adjust::MatchRmsAdamW,
            Some("spectral_unclamped") => Adjust::SpectralUnclamped,
            Some(other) => {
                let expected = "original, match_rms_adamw or spectral_unclamped";
                return Err(wrong("adjust_lr_fn", other, expected));
            }
        };
        let rule = Self {
            momentum: arguments.number("momentum", 0.95)?,
            nesterov: arguments.flag("nesterov", true)?,
            iterations: arguments.count("ns_steps", 5)?,
            epsilon: arguments.number("eps", 1e-7)?,
            adjust,
        };
        at_least_zero("optim_args.momentum", rule.momentum)?;
        above_zero("optim_args.eps", rule.epsilon)?;
        let steps = rule.iterations as f64;
        check((1.0..100.0).contains(&steps), "optim_args.ns_steps", steps, "from 1 to 99")?;
        Ok(rule)
    }

    pub(super) fn parts(shape: [usize; 2]) -> Vec<Part> {
        vec![Part::numbers("momentum_buffer", shape)]
    }

    pub(super) fn step(
        self,
        weight: Tensor<2>,
        gradient: Tensor<2>,
        [buffer]: [Tensor<2>; 1],
        Step { rate, decay, .. }: Step,
    ) -> Stepped {
        let (momentum, blend) = (self.momentum as f32, (1.0 - self.momentum) as f32);
        let blended = in_place([buffer], [], gradient.clone(), |[b], [], g| {
            b.par_chunks_mut(PART).zip(g.par_chunks(PART)).for_each(|(b, g)| {
                b.iter_mut().zip(g).for_each(|(b, g)| *b += blend * (g - *b));
            });
        });
        let buffer = match blended {
            InPlace::Changed([buffer], []) => buffer,
            InPlace::Elsewhere([b], [], g) => b.clone() + (g - b) * blend,
        };
        let update = if self.nesterov {
            gradient.clone() + (buffer.clone() - gradient) * momentum
        } else {
            buffer.clone()
        };
        let direction = self.orthogonal(update);
        let keep_back = (1.0 - rate * decay) as f32;
        let size = (rate * self.adjust.ratio(weight.dims())) as f32;
        let stepped = in_place([weight], [], direction, |[w], [], d| {
            w.par_chunks_mut(PART).zip(d.par_chunks(PART)).for_each(|(w, d)| {
                w.iter_mut().zip(d).for_each(|(w, d)| *w = *w * keep_back - size * d);
            });
        });
        let weight = match stepped {
            InPlace::Changed([weight], []) => weight,
            InPlace::Elsewhere([w], [], d) => w * keep_back - d * size,
        };
        (weight, keep([buffer]))
    }

    /// About U Vᵀ of x = U S Vᵀ: all singular values are brought near to 1.
    ///
    /// ```text
    /// x ← x / ‖x‖,  then x ← a x + (b A + c A²) x  with A = x xᵀ
    /// ```
    fn orthogonal(self, x: Tensor<2>) -> Tensor<2> {
        let [rows, columns] = x.dims();
        let tall = rows > columns;
        let x = if tall { x.transpose() } else { x };
        let norm = (x.clone() * x.clone()).sum().sqrt().clamp_min(self.epsilon);
        let mut x = x / norm.reshape([1, 1]);
        let [a, b, c] = QUINTIC;
        for _ in 0..self.iterations {
            let gram = x.clone().matmul(x.clone().transpose());
            let polynomial = gram.clone() * b + gram.clone().matmul(gram) * c;
            x = x.clone() * a + polynomial.matmul(x);
        }
        if tall { x.transpose() } else { x }
    }
}

impl Adjust {
    fn ratio(self, [rows, columns]: [usize; 2]) -> f64 {
        let (rows, columns) = (rows as f64, columns as f64);
        match self {
            Self::Original => (rows / columns).max(1.0).sqrt(),
            Self::MatchRmsAdamW => 0.2 * rows.max(columns).sqrt(),
            Self::SpectralUnclamped => (rows / columns).sqrt(),
        }
    }
}
