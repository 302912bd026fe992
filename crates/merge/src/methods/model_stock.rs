//! Model Stock: `y = t sum_i x_i / N + (1 - t) b`, `t = N cos theta / (1 + (N - 1) cos theta)`, `cos theta` the
//! mean of the cosines between each two of the `N` differences `x_i - b`.
//!
//! Jang, Yun, Han 2024, arXiv 2403.19522. With `filter_wise` every row (of the last dimension) has its own
//! `t`. Where the denominator vanishes, `|1 + (N - 1) cos theta| < 1e-6`, the base stays as it is.

use super::gram::Gram;
use super::parameter::{Parameter, Resolved};
use super::registry::{Base, Method};
use super::task_vectors::{require_base, subtract_base};
use super::{Apply, Merge};
use crate::group::{Block, Group};
use crate::{Error, ops};

/// The smallest product of norms that is divided by, and the smallest denominator.
const SMALL: f64 = 1e-6;

/// Between the base and the mean of the inputs, the closer to the mean the more the inputs agree.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelStock {
    /// Whether each row has its own ratio.
    pub filter_wise: bool,
}

pub(super) fn method() -> Method {
    Method::new("model_stock", Base::Required, 2..=usize::MAX)
        .parameter(Parameter::flag("filter_wise", false))
        .reference("Model Stock", "https://arxiv.org/abs/2403.19522")
        .build(|p: &Resolved| Ok(ModelStock { filter_wise: p.flag("filter_wise") }))
}

impl Merge for ModelStock {
    fn by_rows(&self) -> bool {
        self.filter_wise
    }

    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        require_base(group)?;
        let n = group.inputs.len();
        if n < 2 {
            let reason = format!("{n} inputs besides the base, expected 2 or more");
            return Err(Error::tensor(group.name, reason));
        }
        if self.filter_wise {
            let row = group.row_len();
            return Ok(Box::new(move |block, y| {
                mean(group, block, y);
                subtract_base(group, block);
                for start in (0..y.len()).step_by(row.max(1)) {
                    let range = start..start + row;
                    let t = ratio(group, &Gram::of_vectors(group, &block.inputs, range.clone()));
                    mix(group, t, &mut y[range.clone()], &mut block.base[range]);
                }
            }));
        }
        let t = ratio(group, &Gram::of(group)?);
        Ok(Box::new(move |block, y| {
            mean(group, block, y);
            mix(group, t, y, &mut block.base);
        }))
    }
}

/// `t`.
fn ratio(group: &Group<'_>, gram: &Gram) -> f32 {
    let round = |value: f64| f64::from(group.rounded(value as f32));
    let n = gram.len();
    let (mut sum, mut pairs) = (0.0, 0.0);
    for i in 0..n {
        for j in i + 1..n {
            let norms = round(round(gram.norm(i)) * round(gram.norm(j)));
            sum += round(round(gram.dot(i, j)) / norms.max(SMALL)).clamp(-1.0, 1.0);
            pairs += 1.0;
        }
    }
    let cos = round(sum / pairs);
    let denominator = round(1.0 + round((n as f64 - 1.0) * cos));
    if denominator.abs() < SMALL { 0.0 } else { round(round(n as f64 * cos) / denominator) as f32 }
}

/// `y = sum_i x_i / N`.
fn mean(group: &Group<'_>, block: &Block, y: &mut [f32]) {
    y.fill(0.0);
    for x in &block.inputs {
        ops::add_to(y, x);
        group.round(y);
    }
    ops::divide(y, block.inputs.len() as f32);
    group.round(y);
}

/// `y = t y + (1 - t) b`.
fn mix(group: &Group<'_>, t: f32, y: &mut [f32], b: &mut [f32]) {
    ops::scale(y, t);
    group.round(y);
    ops::scale(b, group.rounded(1.0 - t));
    group.round(b);
    ops::add_to(y, b);
    group.round(y);
}
