//! Stochastic gradient descent as `torch.optim.SGD` computes it.
//!
//! ```text
//! g ← g + λ θ
//! b ← g at the first step, μ b + (1 − τ) g later
//! θ ← θ − η (g + μ b with Nesterov's momentum, b without)
//! ```
//!
//! Without momentum (μ = 0) nothing is kept: θ ← θ − η g.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::arguments::Arguments;
use super::config::{at_least_zero, check};
use super::rule::{Kept, Part, Step, Stepped, keep, numbers};
use super::slices::{InPlace, PART, in_place};
use crate::Error;

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sgd {
    /// μ
    momentum: f64,
    /// τ
    dampening: f64,
    nesterov: bool,
}

/// The factors of one step.
#[derive(Clone, Copy)]
struct Factors {
    rate: f32,
    decay: f32,
    momentum: f32,
    /// 1 − τ, and 1 at the first step.
    blend: f32,
    nesterov: bool,
}

impl Sgd {
    pub(super) fn new(arguments: &mut Arguments) -> Result<Self, Error> {
        let rule = Self {
            momentum: arguments.number("momentum", 0.0)?,
            dampening: arguments.number("dampening", 0.0)?,
            nesterov: arguments.flag("nesterov", false)?,
        };
        at_least_zero("optim_args.momentum", rule.momentum)?;
        at_least_zero("optim_args.dampening", rule.dampening)?;
        if rule.nesterov {
            let expected = "above 0 with nesterov";
            check(rule.momentum > 0.0, "optim_args.momentum", rule.momentum, expected)?;
            let expected = "0 with nesterov";
            check(rule.dampening == 0.0, "optim_args.dampening", rule.dampening, expected)?;
        }
        Ok(rule)
    }

    pub(super) fn parts(self, shape: [usize; 2]) -> Vec<Part> {
        let kept = self.momentum > 0.0;
        kept.then(|| Part::numbers("momentum_buffer", shape)).into_iter().collect()
    }

    pub(super) fn step(
        self,
        weight: Tensor<2>,
        gradient: Tensor<2>,
        kept: Vec<Kept>,
        Step { rate, decay, count }: Step,
    ) -> Stepped {
        let by = Factors {
            rate: rate as f32,
            decay: decay as f32,
            momentum: self.momentum as f32,
            blend: if count == 1 { 1.0 } else { (1.0 - self.dampening) as f32 },
            nesterov: self.nesterov,
        };
        if kept.is_empty() {
            return (by.plain(weight, gradient), kept);
        }
        let [buffer] = numbers(kept);
        let stepped = in_place([weight, buffer], [], gradient, |[w, b], [], g| {
            w.par_chunks_mut(PART)
                .zip(b.par_chunks_mut(PART))
                .zip(g.par_chunks(PART))
                .for_each(|((w, b), g)| by.update(w, b, g));
        });
        let [weight, buffer] = match stepped {
            InPlace::Changed(changed, []) => changed,
            InPlace::Elsewhere([w, b], [], g) => {
                let g = g + w.clone() * by.decay;
                let b = b * by.momentum + g.clone() * by.blend;
                let along = if by.nesterov { g + b.clone() * by.momentum } else { b.clone() };
                [w - along * by.rate, b]
            }
        };
        (weight, keep([buffer]))
    }
}

impl Factors {
    fn plain(self, weight: Tensor<2>, gradient: Tensor<2>) -> Tensor<2> {
        let stepped = in_place([weight], [], gradient, |[w], [], g| {
            w.par_chunks_mut(PART).zip(g.par_chunks(PART)).for_each(|(w, g)| {
                for (w, g) in w.iter_mut().zip(g) {
                    *w -= self.rate * (g + self.decay * *w);
                }
            });
        });
        match stepped {
            InPlace::Changed([weight], []) => weight,
            InPlace::Elsewhere([w], [], g) => w.clone() - (g + w * self.decay) * self.rate,
        }
    }

    /// The buffer is zero before the first step, so that one formula serves both.
    fn update(self, w: &mut [f32], b: &mut [f32], g: &[f32]) {
        let n = w.len();
        let (b, g) = (&mut b[..n], &g[..n]);
        for i in 0..n {
            let g = g[i] + self.decay * w[i];
            b[i] = self.momentum * b[i] + self.blend * g;
            let along = if self.nesterov { g + self.momentum * b[i] } else { b[i] };
            w[i] -= self.rate * along;
        }
    }
}
