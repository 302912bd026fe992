//! AdamW (Kingma & Ba 2015, arXiv:1412.6980; Loshchilov & Hutter 2019, arXiv:1711.05101) as
//! `torch.optim.AdamW` computes it.
//!
//! ```text
//! θ ← θ − η λ θ
//! m ← m + (1 − β₁)(g − m)
//! v ← β₂ v + (1 − β₂) g²
//! θ ← θ − η / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
//! ```

use burn::tensor::Tensor;
use posttrain_model::loops::{AdamWFactors, adamw};
use rayon::prelude::*;

use super::rule::{Part, Step, Stepped, keep};
use super::slices::{InPlace, PART, in_place};

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AdamW {
    pub(super) beta1: f64,
    pub(super) beta2: f64,
    pub(super) epsilon: f64,
}

impl AdamW {
    pub(super) fn parts(shape: [usize; 2]) -> Vec<Part> {
        vec![Part::numbers("exp_avg", shape), Part::numbers("exp_avg_sq", shape)]
    }

    pub(super) fn step(
        self,
        weight: Tensor<2>,
        gradient: Tensor<2>,
        [mean, square]: [Tensor<2>; 2],
        step: Step,
    ) -> Stepped {
        let by = self.factors(step);
        let stepped = in_place([weight, mean, square], [], gradient, |[w, m, v], [], g| {
            w.par_chunks_mut(PART)
                .zip(m.par_chunks_mut(PART).zip(v.par_chunks_mut(PART)))
                .zip(g.par_chunks(PART))
                .for_each(|((w, (m, v)), g)| adamw(w, m, v, g, by));
        });
        let [weight, mean, square] = match stepped {
            InPlace::Changed(changed, []) => changed,
            InPlace::Elsewhere(tensors, [], gradient) => update_tensors(tensors, gradient, by),
        };
        (weight, keep([mean, square]))
    }

    /// Each factor is computed in f64 and rounded once, as PyTorch does.
    pub(super) fn factors(self, Step { rate, decay, count }: Step) -> AdamWFactors {
        let power = |beta: f64| 1.0 - beta.powf(count as f64);
        AdamWFactors {
            decay: (1.0 - rate * decay) as f32,
            blend1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            blend2: (1.0 - self.beta2) as f32,
            correction: (1.0 / power(self.beta2).sqrt()) as f32,
            epsilon: self.epsilon as f32,
            size: (rate / power(self.beta1)) as f32,
        }
    }
}

/// The same on any device.
pub(super) fn update_tensors(
    [w, m, v]: [Tensor<2>; 3],
    g: Tensor<2>,
    by: AdamWFactors,
) -> [Tensor<2>; 3] {
    let m = m.clone() + (g.clone() - m) * by.blend1;
    let v = v * by.beta2 + g.clone() * g * by.blend2;
    let scale = v.clone().sqrt() * by.correction + by.epsilon;
    let w = w * by.decay - m.clone() * by.size / scale;
    [w, m, v]
}
