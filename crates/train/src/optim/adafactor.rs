//! Adafactor (Shazeer & Stern 2018, arXiv:1804.04235) as transformers computes it.
//!
//! ```text
//! β = 1 − t^decay_rate
//! r ← β r + (1 − β) mean over columns of (g² + ε),  c likewise over rows
//! u = g / √(r cᵀ / mean(r))             for a matrix
//! v ← β v + (1 − β)(g² + ε),  u = g / √v   for a vector
//! u ← α u / max(1, rms(u) / clip_threshold)
//! m ← β₁ m + (1 − β₁) u,  u = m         if there is a β₁
//! θ ← θ − λ α θ − u
//! ```
//!
//! α is the learning rate, or min(10⁻², 1/√t) with `relative_step` (10⁻⁶ t in place of 10⁻² with
//! `warmup_init`), times max(10⁻³, rms(θ)) with `scale_parameter`. transformers' Trainer has both
//! off. ε = 10⁻³⁰.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::arguments::Arguments;
use super::config::{above_zero, beta, check};
use super::factored;
use super::rule::{Kept, Part, Step, Stepped, keep, numbers};
use super::slices::{InPlace, PART, in_place, look};
use super::sums::square_sum;
use crate::Error;

/// ε, added to squares of gradients.
pub(super) const EPSILON: f32 = 1e-30;
/// The least scale of a parameter.
const LEAST_SCALE: f64 = 1e-3;

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Adafactor {
    clip_threshold: f64,
    decay_rate: f64,
    beta1: Option<f64>,
    scale_parameter: bool,
    relative_step: bool,
    warmup_init: bool,
}

impl Adafactor {
    pub(super) fn new(arguments: &mut Arguments) -> Result<Self, Error> {
        let rule = Self {
            clip_threshold: arguments.number("clip_threshold", 1.0)?,
            decay_rate: arguments.number("decay_rate", -0.8)?,
            beta1: arguments.optional_number("beta1")?,
            scale_parameter: arguments.flag("scale_parameter", false)?,
            relative_step: arguments.flag("relative_step", false)?,
            warmup_init: arguments.flag("warmup_init", false)?,
        };
        above_zero("optim_args.clip_threshold", rule.clip_threshold)?;
        check(rule.decay_rate < 0.0, "optim_args.decay_rate", rule.decay_rate, "below 0")?;
        if let Some(beta1) = rule.beta1 {
            beta("optim_args.beta1", beta1)?;
        }
        if rule.warmup_init && !rule.relative_step {
            let expected = "false without relative_step";
            return Err(Error::config("optim_args.warmup_init", true, expected));
        }
        Ok(rule)
    }

    pub(super) fn has_its_own_rate(self) -> bool {
        self.relative_step
    }

    pub(super) fn parts(self, shape: [usize; 2], is_matrix: bool) -> Vec<Part> {
        let [rows, columns] = shape;
        let squares = if is_matrix {
            vec![
                Part::numbers("exp_avg_sq_row", [1, rows]),
                Part::numbers("exp_avg_sq_col", [1, columns]),
            ]
        } else {
            vec![Part::numbers("exp_avg_sq", shape)]
        };
        let mean = self.beta1.map(|_| Part::numbers("exp_avg", shape));
        mean.into_iter().chain(squares).collect()
    }

    pub(super) fn step(
        self,
        weight: Tensor<2>,
        gradient: Tensor<2>,
        mut kept: Vec<Kept>,
        Step { rate, decay, count }: Step,
    ) -> Stepped {
        let t = count as f64;
        let rate = if self.relative_step {
            let most = if self.warmup_init { 1e-6 * t } else { 1e-2 };
            (1.0 / t.sqrt()).min(most)
        } else {
            rate
        };
        let scale = if self.scale_parameter { rms(&weight).max(LEAST_SCALE) } else { 1.0 };
        let (rate, blend) = (rate * scale, t.powf(self.decay_rate) as f32);

        let mean = self.beta1.map(|_| kept.remove(0));
        let (update, mut kept) = if kept.len() == 1 {
            unfactored(gradient, numbers(kept), blend)
        } else {
            factored::update(gradient, numbers(kept), blend)
        };
        let (update, clip) = self.clip(update);
        let size = rate * clip;
        let keep_back = (1.0 - decay * rate) as f32;
        let Some((Kept::Numbers(mean), beta1)) = mean.zip(self.beta1) else {
            return (descend(weight, update, keep_back, size as f32), kept);
        };
        let mean = mean * (beta1 as f32) + update * ((size * (1.0 - beta1)) as f32);
        kept.insert(0, Kept::Numbers(mean.clone()));
        (descend(weight, mean, keep_back, 1.0), kept)
    }

    /// An update and the factor that brings its root mean square down to the threshold. Elsewhere
    /// than on the CPU the factor is already in the update, so that nothing waits for the device.
    fn clip(self, update: Tensor<2>) -> (Tensor<2>, f64) {
        let count = update.dims().iter().product::<usize>() as f64;
        if let Some(sum) = look(&update, square_sum) {
            let factor = 1.0 / ((sum / count).sqrt() / self.clip_threshold).max(1.0);
            return (update, factor);
        }
        let rms = (update.clone() * update.clone()).mean().sqrt();
        let divisor = (rms / self.clip_threshold).clamp_min(1.0);
        (update / divisor.reshape([1, 1]), 1.0)
    }
}

/// θ ← keep θ − size u
fn descend(weight: Tensor<2>, update: Tensor<2>, keep: f32, size: f32) -> Tensor<2> {
    let stepped = in_place([weight], [], update, |[w], [], u| {
        w.par_chunks_mut(PART).zip(u.par_chunks(PART)).for_each(|(w, u)| {
            w.iter_mut().zip(u).for_each(|(w, u)| *w = *w * keep - size * u);
        });
    });
    match stepped {
        InPlace::Changed([weight], []) => weight,
        InPlace::Elsewhere([w], [], u) => w * keep - u * size,
    }
}

/// g / √v, and v.
fn unfactored(gradient: Tensor<2>, [square]: [Tensor<2>; 1], blend: f32) -> Stepped {
    let squares = gradient.clone() * gradient.clone() + EPSILON;
    let square = square * (1.0 - blend) + squares * blend;
    (gradient / square.clone().sqrt(), keep([square]))
}

/// √mean(x²)
fn rms(tensor: &Tensor<2>) -> f64 {
    let count = tensor.dims().iter().product::<usize>() as f64;
    let sum = look(tensor, square_sum)
        .unwrap_or_else(|| f64::from((tensor.clone() * tensor.clone()).sum().into_scalar::<f32>()));
    (sum / count).sqrt()
}
