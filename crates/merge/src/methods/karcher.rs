//! The Karcher mean of the inputs' directions `u_i = x_i / |x_i|` on the sphere, with their mean norm:
//! from `m = sum u_i / |sum u_i|` on, repeat
//!
//! `T = sum_i alpha theta_i / sin theta_i (u_i - cos theta_i m)`, `cos theta_i = <u_i, m>`,
//! `m <- cos |T| m + sin |T| / |T| T`
//!
//! until `|T| < tol`, at most `max_iter` times; `y = m (sum_i |x_i|) / n`.
//!
//! Karcher 1977; for models, arXiv 2603.04972. `m` and `T` are kept as coefficients of the `u_i`.
//! Inputs whose norm is at most `tol` have no direction and count in the mean norm only. An input opposite
//! to `m` pulls in no direction, and where the `u_i` cancel, `m` begins at the first of them.

use super::gram::{self, Gram};
use super::karcher_rounded::Rounded;
use super::parameter::{Parameter, Resolved};
use super::registry::{Base, Method};
use super::{Apply, Merge};
use crate::Error;
use crate::dtype::Dtype;
use crate::group::Group;

/// Closer to the opposite point than this (in radians), rounding decides where an arc leads.
const OPPOSITE: f64 = 1e-6;

/// The mean on the sphere.
#[derive(Clone, Debug, PartialEq)]
pub struct Karcher {
    /// The largest number of steps.
    pub max_iter: u32,
    /// The length of a step (in radians) below which it is the last, and the norm up to which an input
    /// has no direction.
    pub tol: f64,
}

pub(super) fn method() -> Method {
    Method::new("karcher", Base::Ignored, 1..=usize::MAX)
        .parameter(Parameter::number("max_iter").or(10.0))
        .parameter(Parameter::number("tol").or(1e-5))
        .reference("Karcher Mean", "https://arxiv.org/abs/2603.04972")
        .build(|p: &Resolved| {
            let max_iter = p.number_within("max_iter", &(0.0..=f64::from(u32::MAX)))?;
            if max_iter.fract() != 0.0 {
                return Err(Error::value("max_iter", max_iter, "a whole number"));
            }
            let tol = p.number_within("tol", &(0.0..=f64::MAX))?;
            Ok(Karcher { max_iter: max_iter as u32, tol })
        })
}

impl Merge for Karcher {
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        if group.inputs.len() == 1 {
            return Ok(Box::new(|block, y| y.copy_from_slice(&block.inputs[0])));
        }
        if group.arithmetic != Dtype::F32 {
            return Rounded::prepare(group, self.max_iter, self.tol as f32);
        }
        let c: Vec<f32> = self.mean(&Gram::of(group)?).into_iter().map(|c| c as f32).collect();
        Ok(Box::new(move |block, y| gram::combine(y, &c, &block.inputs)))
    }
}

impl Karcher {
    /// The coefficients of the `x_i` in the mean.
    fn mean(&self, gram: &Gram) -> Vec<f64> {
        let n = gram.len();
        // A vector is kept as coefficients of the x_i; those of u_i are 1 / |x_i| at i.
        let directed: Vec<usize> = (0..n).filter(|i| gram.norm(*i) > self.tol).collect();
        let mut m = vec![0.0; n];
        let Some(first) = directed.first() else { return m };
        for i in &directed {
            m[*i] = 1.0 / gram.norm(*i);
        }
        let length = gram.norm_of(&m) / directed.len() as f64;
        if length < self.tol {
            m.fill(0.0);
            m[*first] = 1.0 / gram.norm(*first);
        }
        self.normalize(gram, &mut m);
        for _ in 0..self.max_iter {
            let step = self.step(gram, &directed, &m);
            let length = gram.norm_of(&step);
            if length < self.tol || length == 0.0 {
                break;
            }
            for (m, step) in m.iter_mut().zip(step) {
                *m = length.cos() * *m + length.sin() / length * step;
            }
            self.normalize(gram, &mut m);
        }
        let norm = (0..n).map(|i| gram.norm(i)).sum::<f64>() / n as f64;
        m.into_iter().map(|m| norm * m).collect()
    }

    /// `T`.
    fn step(&self, gram: &Gram, directed: &[usize], m: &[f64]) -> Vec<f64> {
        let mut t = vec![0.0; gram.len()];
        for i in directed {
            let cos = (gram.dot_with(*i, m) / gram.norm(*i)).clamp(-1.0, 1.0);
            let theta = cos.acos();
            if theta < self.tol || theta == 0.0 || std::f64::consts::PI - theta < OPPOSITE {
                continue;
            }
            let pull = theta / theta.sin() / directed.len() as f64;
            t[*i] += pull / gram.norm(*i);
            for (t, m) in t.iter_mut().zip(m) {
                *t -= pull * cos * m;
            }
        }
        t
    }

    fn normalize(&self, gram: &Gram, m: &mut [f64]) {
        let norm = gram.norm_of(m);
        if norm > self.tol {
            for m in m {
                *m /= norm;
            }
        }
    }
}
