//! Lion (Chen et al. 2023, arXiv:2302.06675) as bitsandbytes computes it.
//!
//! ```text
//! θ ← θ − η λ θ
//! θ ← θ − η sign(β₁ m + (1 − β₁) g)
//! m ← β₂ m + (1 − β₂) g
//! ```
//!
//! sign 0 = 0.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::rule::{Part, Step, Stepped, keep};
use super::slices::{InPlace, PART, in_place};

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lion {
    pub(super) beta1: f64,
    pub(super) beta2: f64,
}

/// The factors of one step.
#[derive(Clone, Copy)]
struct Factors {
    /// 1 − η λ
    decay: f32,
    rate: f32,
    beta1: f32,
    blend1: f32,
    beta2: f32,
    blend2: f32,
}

impl Lion {
    pub(super) fn parts(shape: [usize; 2]) -> Vec<Part> {
        vec![Part::numbers("exp_avg", shape)]
    }

    pub(super) fn step(
        self,
        weight: Tensor<2>,
        gradient: Tensor<2>,
        [mean]: [Tensor<2>; 1],
        Step { rate, decay, .. }: Step,
    ) -> Stepped {
        let by = Factors {
            decay: (1.0 - rate * decay) as f32,
            rate: rate as f32,
            beta1: self.beta1 as f32,
            blend1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            blend2: (1.0 - self.beta2) as f32,
        };
        let stepped = in_place([weight, mean], [], gradient, |[w, m], [], g| {
            w.par_chunks_mut(PART)
                .zip(m.par_chunks_mut(PART))
                .zip(g.par_chunks(PART))
                .for_each(|((w, m), g)| by.update(w, m, g));
        });
        let [weight, mean] = match stepped {
            InPlace::Changed(changed, []) => changed,
            InPlace::Elsewhere([w, m], [], g) => {
                let direction = m.clone() * by.beta1 + g.clone() * by.blend1;
                let w = w * by.decay - direction.sign() * by.rate;
                [w, m * by.beta2 + g * by.blend2]
            }
        };
        (weight, keep([mean]))
    }
}

impl Factors {
    fn update(self, w: &mut [f32], m: &mut [f32], g: &[f32]) {
        let n = w.len();
        let (m, g) = (&mut m[..n], &g[..n]);
        for i in 0..n {
            let direction = self.beta1 * m[i] + self.blend1 * g[i];
            // `signum` of 0 is 1.
            let sign = f32::from(direction > 0.0) - f32::from(direction < 0.0);
            w[i] = w[i] * self.decay - self.rate * sign;
            m[i] = self.beta2 * m[i] + self.blend2 * g[i];
        }
    }
}
