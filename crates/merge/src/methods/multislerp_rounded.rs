//! Multi-SLERP with every intermediate result rounded, as torch computes it in the type of the inputs.
//!
//! The tangent `T`, which is zero but for rounding, is then as large as the rounding, and is mapped back to
//! the sphere like any other. Each number that the next step needs is one pass over the tensors.

use super::Apply;
use super::gram::dot;
use super::multislerp::no_mean;
use super::task_vectors::subtract_base;
use crate::group::{Block, Group};
use crate::{Error, ops};

/// What is known of a tensor so far.
pub(super) struct Rounded<'a> {
    group: &'a Group<'a>,
    w: Vec<f32>,
    eps: f32,
    /// `|v_i|`.
    norms: Vec<f32>,
    /// `|sum_i w_i u_i|`; 1 before it is known.
    length: f32,
    /// `<u_i, m>`.
    dots: Vec<f32>,
}

impl<'a> Rounded<'a> {
    pub(super) fn prepare(group: &'a Group<'a>, w: &[f64], eps: f32) -> Result<Apply<'a>, Error> {
        let n = group.inputs.len();
        let round = |value: f64| group.rounded(value as f32);
        let squares = group.sums(n, |block| {
            subtract_base(group, block);
            block.inputs.iter().map(|v| ops::dot_f64(v, v)).collect()
        });
        let norms = squares.into_iter().map(|square| round(square.sqrt())).collect();
        let w = w.iter().map(|w| *w as f32).collect();
        let mut rounded = Self { group, w, eps, norms, length: 1.0, dots: Vec::new() };
        let [square] = group.sum(|block| {
            let m = rounded.mean(block);
            [ops::dot_f64(&m, &m)]
        });
        rounded.length = round(square.sqrt());
        if !rounded.length.is_finite() {
            return Err(Error::tensor(
                group.name,
                "some values are NaN or infinite, expected finite ones",
            ));
        }
        if rounded.length < eps || rounded.length == 0.0 {
            return if n == 2 { Ok(rounded.line()) } else { Err(no_mean(group)) };
        }
        let dots = group.sums(n, |block| {
            let m = rounded.mean(block);
            block.inputs.iter().map(|u| dot(group, u, &m)).collect()
        });
        rounded.dots = dots.into_iter().map(round).collect();
        let [square] = group.sum(|block| {
            let m = rounded.mean(block);
            let t = rounded.tangent(block, &m);
            [ops::dot_f64(&t, &t)]
        });
        Ok(rounded.sphere(round(square.sqrt())))
    }

    /// `m`, and the `u_i` in place of the inputs.
    fn mean(&self, block: &mut Block) -> Vec<f32> {
        subtract_base(self.group, block);
        let mut m = vec![0.0; block.inputs[0].len()];
        for ((u, norm), w) in block.inputs.iter_mut().zip(&self.norms).zip(&self.w) {
            let over = self.group.rounded(norm + self.eps);
            if over > 0.0 {
                ops::divide(u, over);
            }
            self.group.round(u);
            self.add_rounded(&mut m, u.clone(), *w);
        }
        self.group.round(&mut m);
        ops::divide(&mut m, self.length);
        self.group.round(&mut m);
        m
    }

    /// `T`, from the `u_i`, which it overwrites.
    fn tangent(&self, block: &mut Block, m: &[f32]) -> Vec<f32> {
        let mut t = vec![0.0; m.len()];
        for ((u, along), w) in block.inputs.iter().zip(&self.dots).zip(&self.w) {
            let mut off = m.to_vec();
            ops::scale(&mut off, -along);
            self.group.round(&mut off);
            ops::add_to(&mut off, u);
            self.group.round(&mut off);
            self.add_rounded(&mut t, off, *w);
        }
        self.group.round(&mut t);
        t
    }

    /// `sum += c x`, the product rounded.
    fn add_rounded(&self, sum: &mut [f32], mut x: Vec<f32>, c: f32) {
        ops::scale(&mut x, c);
        self.group.round(&mut x);
        ops::add_to(sum, &x);
    }

    /// `m cos |T| + T sin |T| / |T|`, times the mean norm.
    fn sphere(self, tangent: f32) -> Apply<'a> {
        let round = |value: f32| self.group.rounded(value);
        let tangent = round(tangent + self.eps);
        let (on_m, on_t) =
            (round(tangent.cos()), round(round(tangent.sin()) / tangent.max(f32::MIN_POSITIVE)));
        let norm = round(self.norms.iter().zip(&self.w).map(|(norm, w)| round(norm * w)).sum());
        Box::new(move |block, y| {
            let mut m = self.mean(block);
            let mut t = self.tangent(block, &m);
            ops::scale(&mut m, on_m);
            self.group.round(&mut m);
            ops::scale(&mut t, on_t);
            self.group.round(&mut t);
            ops::add(y, &m, &t);
            self.group.round(y);
            ops::scale(y, norm);
            self.group.round(y);
            self.add_base(block, y);
        })
    }

    /// `w_1 v_1 + w_2 v_2`.
    fn line(self) -> Apply<'a> {
        Box::new(move |block, y| {
            subtract_base(self.group, block);
            y.fill(0.0);
            for (v, w) in block.inputs.iter().zip(&self.w) {
                self.add_rounded(y, v.clone(), *w);
            }
            self.group.round(y);
            self.add_base(block, y);
        })
    }

    fn add_base(&self, block: &Block, y: &mut [f32]) {
        if self.group.base.is_some() {
            ops::add_to(y, &block.base);
            self.group.round(y);
        }
    }
}
