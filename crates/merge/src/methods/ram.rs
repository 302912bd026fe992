//! Reinforced Agent Merging: `y = b + sum_i l_i d_i [c = 1] + sum_i d_i [c > 1] / c`, `d_i = x_i - b` where
//! `|d_i| > epsilon` and else 0, `c` how many models have a `d_i` at a place.
//!
//! arXiv 2601.13572. What one model alone changed stays as it is, what several changed becomes their mean.
//! RAM has `l_i = 1`. RAM+ makes up for what a model loses in the means:
//! `l_i = 1 + r clip(s_i / u_i, 0, alpha)`, `s_i` and `u_i` the counts of the model's shared and own changes,
//! here of each tensor (`ramplus_tl`).

use super::parameter::{FINITE, Parameter, Resolved};
use super::registry::{Base, Method};
use super::task_vectors::{require_base, subtract_base};
use super::{Apply, Merge};

use crate::group::{Block, Group};
use crate::{Error, ops};

/// RAM.
#[derive(Clone, Debug, PartialEq)]
pub struct Ram {
    /// Up to what difference a model did not change a value.
    pub epsilon: f64,
}

/// RAM+, tensor by tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct RamPlus {
    /// How much the share of changes counts.
    pub r: f64,
    /// The largest share that counts.
    pub alpha: f64,
    /// As RAM's.
    pub epsilon: f64,
}

pub(super) fn method() -> Method {
    Method::new("ram", Base::Required, 0..=usize::MAX)
        .parameter(Parameter::number("epsilon").or(1e-5))
        .reference("Reinforced Agent Merging", "https://arxiv.org/abs/2601.13572")
        .build(|p: &Resolved| Ok(Ram { epsilon: epsilon(p)? }))
}

pub(super) fn plus_method() -> Method {
    Method::new("ramplus_tl", Base::Required, 0..=usize::MAX)
        .parameter(Parameter::number("r").or(0.1))
        .parameter(Parameter::number("alpha").or(0.2))
        .parameter(Parameter::number("epsilon").or(1e-5))
        .reference(
            "Reinforced Agent Merging Plus (Tensor-Local)",
            "https://arxiv.org/abs/2601.13572",
        )
        .build(|p: &Resolved| {
            let r = p.number_within("r", &FINITE)?;
            let alpha = p.number_within("alpha", &(0.0..=f64::MAX))?;
            Ok(RamPlus { r, alpha, epsilon: epsilon(p)? })
        })
}

fn epsilon(p: &Resolved) -> Result<f64, Error> {
    p.number_within("epsilon", &(0.0..=f64::MAX))
}

impl Merge for Ram {
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        require_base(group)?;
        let epsilon = group.rounded(self.epsilon as f32);
        let l = vec![1.0; group.inputs.len()];
        Ok(Box::new(move |block, y| merge(group, epsilon, &l, block, y)))
    }
}

impl Merge for RamPlus {
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        require_base(group)?;
        let epsilon = group.rounded(self.epsilon as f32);
        let n = group.inputs.len();
        // Whole numbers far below 2^53: no order to depend on.
        let counts = group.sums(2 * n, |block| {
            subtract_base(group, block);
            let mut c = vec![0.0; block.base.len()];
            count(epsilon, block, &mut c);
            block.inputs.iter().flat_map(|d| shared_and_own(epsilon, d, &c)).collect()
        });
        let l: Vec<f32> = counts
            .chunks_exact(2)
            .map(|counts| {
                // Without own changes the factor has nothing to act on.
                let share = counts[0] as f32 / (counts[1] as f32).max(1.0);
                1.0 + self.r as f32 * share.min(self.alpha as f32)
            })
            .collect();
        Ok(Box::new(move |block, y| merge(group, epsilon, &l, block, y)))
    }
}

/// `c`.
fn count(epsilon: f32, block: &Block, c: &mut [f32]) {
    c.fill(0.0);
    for d in &block.inputs {
        ops::each_with(c, d, |c, d| c + f32::from(u8::from(d.abs() > epsilon)));
    }
}

fn shared_and_own(epsilon: f32, d: &[f32], c: &[f32]) -> [f64; 2] {
    let changed = ops::count(d, |d| d.abs() > epsilon);
    let shared = ops::count_with(d, c, |d, c| d.abs() > epsilon && c > 1.0);
    [f64::from(shared), f64::from(changed - shared)]
}

fn merge(group: &Group<'_>, epsilon: f32, l: &[f32], block: &mut Block, y: &mut [f32]) {
    subtract_base(group, block);
    let mut c = vec![0.0; y.len()];
    count(epsilon, block, &mut c);
    y.fill(0.0);
    for (d, l) in block.inputs.iter_mut().zip(l) {
        ops::each_with(d, &c, |d, c| {
            // NaN is not lost.
            let changed = if d.abs() <= epsilon { 0.0 } else { d };
            if c > 1.0 { changed / c } else { changed * l }
        });
        group.round(d);
        ops::add_to(y, d);
    }
    group.round(y);
    ops::add_to(y, &block.base);
    group.round(y);
}
