//! Arcee Fusion: `y = b + (x - b) [importance >= threshold]`, `importance = |x - b| KL(p || q)`, `p` and `q` the
//! softmax of each row of `x` and of `b`, plus `1e-8`; `threshold = median + 1.5 (Q3 - Q1)` of the importance
//! of all elements of the tensor.
//!
//! Arcee, in mergekit. The quartiles are the elements of rank `floor((n - 1) k / 4)`, and exact for any size;
//! mergekit draws a million elements of larger tensors at random. A divergence that rounding makes negative
//! is 0.

use super::gram::one_each;
use super::parameter::Resolved;
use super::registry::{Base, Method};
use super::select::edges_of;
use super::task_vectors::{require_base, subtract_base};
use super::{Apply, First, Merge};
use crate::Error;
use crate::group::{Block, Group};
use crate::ops;

/// Added to probabilities.
const EPS: f32 = 1e-8;

/// The base, with the other model's values where they are far off and important.
#[derive(Clone, Debug, PartialEq)]
pub struct ArceeFusion;

pub(super) fn method() -> Method {
    Method::new("arcee_fusion", Base::Required, 1..=1)
        .reference("Arcee Fusion", "https://arcee.ai")
        .build(|_: &Resolved| Ok(ArceeFusion))
}

impl Merge for ArceeFusion {
    fn by_rows(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        require_base(group)?;
        one_each(group.name, "importance", 1, group.inputs.len())?;
        if group.numel() == 0 {
            return Ok(Box::new(|_, _| ()));
        }
        let row = group.row_len();
        let divergences = group.map(|block| {
            let rows = block.inputs[0].chunks(row).zip(block.base.chunks(row));
            rows.map(|(x, b)| divergence(group, x, b)).collect::<Vec<f32>>()
        });
        let divergences = divergences.concat();
        if divergences.iter().any(|divergence| !divergence.is_finite()) {
            let reason = "some values are NaN or infinite, expected finite ones";
            return Err(Error::tensor(group.name, reason));
        }
        let threshold = threshold(group, &divergences)?;
        Ok(Box::new(move |block, y| {
            subtract_base(group, block);
            y.copy_from_slice(&block.inputs[0]);
            importance(group, &divergences, block);
            ops::each_with(
                y,
                &block.inputs[0],
                |d, important| if important >= threshold { d } else { 0.0 },
            );
            ops::add_to(y, &block.base);
        }))
    }
}

fn threshold(group: &Group<'_>, divergences: &[f32]) -> Result<f32, Error> {
    let n = group.numel();
    if n == 1 {
        // The one element is its own threshold.
        return Ok(f32::NEG_INFINITY);
    }
    let questions = [1, 2, 3].map(|k| (0, First::Smallest((n - 1) * k / 4 + 1)));
    let values = |block: &mut Block| {
        subtract_base(group, block);
        importance(group, divergences, block);
    };
    let quartiles = edges_of(group, values, &questions)?;
    let [q1, median, q3] = [0, 1, 2].map(|k| f32::from_bits(quartiles[k].after));
    Ok(group.rounded(median + group.rounded(1.5 * group.rounded(q3 - q1))))
}

/// The importance in place of the deltas.
fn importance(group: &Group<'_>, divergences: &[f32], block: &mut Block) {
    let row = group.row_len();
    let first = block.start / row;
    let deltas = &mut block.inputs[0];
    for (d, divergence) in deltas.chunks_mut(row).zip(&divergences[first..]) {
        ops::each(d, |d| d.abs() * divergence);
    }
    group.round(deltas);
}

/// `KL(p || q) = sum p ln(p / q)` of two rows.
fn divergence(group: &Group<'_>, x: &[f32], b: &[f32]) -> f32 {
    let (mut p, q) = (probabilities(group, x), probabilities(group, b));
    let mut logs = p.clone();
    ops::divide_each(&mut logs, &q);
    group.round(&mut logs);
    for ratio in &mut logs {
        *ratio = ratio.ln();
    }
    group.round(&mut logs);
    ops::scale_each(&mut p, &logs);
    group.round(&mut p);
    let sum: f64 = p.iter().map(|term| f64::from(*term)).sum();
    // Not `max`, which would hide a NaN.
    let sum = group.rounded(sum as f32);
    if sum < 0.0 { 0.0 } else { sum }
}

/// `exp(x - max x) / sum exp(x - max x) + 1e-8`.
fn probabilities(group: &Group<'_>, x: &[f32]) -> Vec<f32> {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut p: Vec<f32> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = p.iter().map(|p| f64::from(*p)).sum();
    ops::divide(&mut p, sum as f32);
    group.round(&mut p);
    ops::each(&mut p, |p| p + EPS);
    group.round(&mut p);
    p
}
