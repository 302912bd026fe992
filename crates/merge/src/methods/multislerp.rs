//! Multi-SLERP: `y = cos(eps) m sum_i w_i |v_i| (+ b)`, `m` the direction of `sum_i w_i u_i`,
//! `u_i = v_i / (|v_i| + eps)`, `v_i = x_i`, or `x_i - b` with a base.
//!
//! Goddard, <https://goddard.blog/posts/multislerp-wow-what-a-cool-idea>. The method interpolates in the
//! tangent space at `m` and maps `T = sum_i w_i (u_i - <u_i, m> m)` back to the sphere:
//! `cos(|T| + eps) m + T sin(|T| + eps) / (|T| + eps)`. Since `m` has the direction of `sum_i w_i u_i`, `T` is
//! zero, and what remains is the formula above.
//!
//! One input is the result as it is, whatever its weight. Where the `w_i u_i` cancel, two inputs are merged
//! linearly, and more are an error.

use super::gram::{self, Gram};
use super::multislerp_rounded::Rounded;
use super::parameter::{FINITE, Parameter, Resolved};
use super::registry::{Base, Method};
use super::task_vectors::subtract_base;
use super::{Apply, Merge};
use crate::dtype::Dtype;
use crate::group::Group;
use crate::{Error, ops};

/// The weighted mean of directions with the weighted mean of the norms.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiSlerp {
    /// `w_i`, one for each input.
    pub weight: Vec<f64>,
    /// Whether the weights are divided by their sum.
    pub normalize_weights: bool,
    /// Added to norms.
    pub eps: f64,
}

pub(super) fn method() -> Method {
    Method::new("multislerp", Base::Optional, 1..=usize::MAX)
        .parameter(Parameter::number("weight").per_input())
        .parameter(Parameter::flag("normalize_weights", true))
        .parameter(Parameter::number("eps").or(1e-8))
        .reference("Multi-SLERP", "https://goddard.blog/posts/multislerp-wow-what-a-cool-idea")
        .build(|p: &Resolved| {
            Ok(MultiSlerp {
                weight: p.numbers_within("weight", &FINITE)?,
                normalize_weights: p.flag("normalize_weights"),
                eps: p.number_within("eps", &(0.0..=f64::MAX))?,
            })
        })
}

impl Merge for MultiSlerp {
    fn copies(&self) -> Option<usize> {
        (self.weight.len() == 1).then_some(0)
    }

    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        gram::one_each(group.name, "weight", self.weight.len(), group.inputs.len())?;
        if group.inputs.len() == 1 {
            return Ok(Box::new(|block, y| y.copy_from_slice(&block.inputs[0])));
        }
        if group.numel() == 0 {
            return Ok(Box::new(|_, _| ()));
        }
        let round = |value: f64| match group.arithmetic {
            Dtype::F32 => value,
            _ => f64::from(group.rounded(value as f32)),
        };
        let mut w: Vec<f64> = self.weight.iter().map(|w| round(*w)).collect();
        if self.normalize_weights {
            let sum = round(w.iter().sum());
            if sum == 0.0 {
                let reason =
                    "the weights have the sum 0, expected another (or `normalize_weights: false`)";
                return Err(Error::tensor(group.name, reason));
            }
            for w in &mut w {
                *w = round(*w / sum);
            }
        }
        if group.arithmetic != Dtype::F32 {
            return Rounded::prepare(group, &w, self.eps as f32);
        }
        let c = self.coefficients(&w, &Gram::of(group)?).ok_or_else(|| no_mean(group))?;
        let c: Vec<f32> = c.into_iter().map(|c| c as f32).collect();
        Ok(Box::new(move |block, y| {
            subtract_base(group, block);
            gram::combine(y, &c, &block.inputs);
            if group.base.is_some() {
                ops::add_to(y, &block.base);
            }
        }))
    }
}

pub(super) fn no_mean(group: &Group<'_>) -> Error {
    let reason = "the weighted directions of the inputs cancel out (or all are zero) and have no mean, \
                  expected other weights or inputs";
    Error::tensor(group.name, reason)
}

impl MultiSlerp {
    /// The coefficients of the `v_i` in the result; `None` where there is no `m`.
    fn coefficients(&self, w: &[f64], gram: &Gram) -> Option<Vec<f64>> {
        let norms: Vec<f64> = (0..w.len()).map(|i| gram.norm(i)).collect();
        let on: Vec<f64> = w
            .iter()
            .zip(&norms)
            .map(|(w, norm)| w / (norm + self.eps))
            .map(|c| if c.is_finite() { c } else { 0.0 })
            .collect();
        let length = gram.norm_of(&on);
        // What the rounding of f32 leaves of vectors that cancel is no direction.
        let rounding = f64::from(f32::EPSILON) * w.iter().map(|w| w.abs()).sum::<f64>();
        if length < self.eps.max(rounding) {
            return (w.len() == 2).then(|| w.to_vec());
        }
        let norm: f64 = w.iter().zip(&norms).map(|(w, norm)| w * norm).sum();
        Some(on.into_iter().map(|c| c / length * self.eps.cos() * norm).collect())
    }
}
