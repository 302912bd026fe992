//! SCE: `y = b + sum_i q_i M_i d_i / sum_i q_i M_i`, `d_i = x_i - b`: select, calculate, erase.
//!
//! Wan et al. 2024, arXiv 2408.07990. Select: with `select_topk < 1`, only that share of the places whose
//! variance over the models is not zero, those of the highest variance, keep their `d_i`. Calculate:
//! `q_i = mean d_i^2` over the tensor, divided by the sum of these. Erase: `M_i` are the models whose `d_i`
//! has the sign of `sum_i d_i` (`+` for zero). Of equal variances at the edge the first places are selected;
//! in mergekit that is arbitrary.

use pulp::Arch;

use super::parameter::{Parameter, Resolved};
use super::registry::{Base, Method};
use super::select::edges_of;
use super::task_vectors::{PIECE, require_base, subtract_base};
use super::{Apply, Edge, First, Merge};
use crate::dtype::Dtype;
use crate::group::{Block, Group};
use crate::{Error, ops};

/// The smallest sum of the `q_i` that is divided by.
const SMALL: f32 = 1e-6;

/// Task vectors weighted by their size, where the models differ most, without those of the lesser sign.
#[derive(Clone, Debug, PartialEq)]
pub struct Sce {
    /// The share of places that are selected.
    pub select_topk: f64,
}

pub(super) fn method() -> Method {
    Method::new("sce", Base::Required, 0..=usize::MAX)
        .parameter(Parameter::flag("int8_mask", false).unused())
        .parameter(Parameter::number("select_topk").or(1.0))
        .reference("SCE", "https://arxiv.org/abs/2408.07990")
        .build(|p: &Resolved| {
            Ok(Sce { select_topk: p.number_within("select_topk", &(0.0..=1.0))? })
        })
}

impl Merge for Sce {
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        require_base(group)?;
        if group.inputs.is_empty() {
            return Ok(Box::new(|block, y| y.copy_from_slice(&block.base)));
        }
        let edge = self.select(group)?;
        let q = calculate(group, edge)?;
        Ok(Box::new(move |block, y| {
            selected(group, edge, block);
            for (piece, y) in y.chunks_mut(PIECE).enumerate() {
                let at = piece * PIECE..piece * PIECE + y.len();
                let [mut sign, mut mask, mut divisor] = [[0.0; PIECE]; 3];
                let (sign, mask) = (&mut sign[..y.len()], &mut mask[..y.len()]);
                let divisor = &mut divisor[..y.len()];
                for d in &block.inputs {
                    ops::add_to(sign, &d[at.clone()]);
                }
                group.round(sign);
                y.fill(0.0);
                for (d, q) in block.inputs.iter_mut().zip(&q) {
                    let d = &mut d[at.clone()];
                    ops::same_sign(mask, d, sign);
                    ops::axpy(divisor, *q, mask);
                    ops::scale(d, *q);
                    group.round(d);
                    ops::add_product(y, d, mask);
                }
                group.round(y);
                group.round(divisor);
                ops::each(divisor, |sum| sum.max(SMALL));
                ops::divide_each(y, divisor);
                group.round(y);
                ops::add_to(y, &block.base[at]);
                group.round(y);
            }
        }))
    }
}

impl Sce {
    /// The edge above which variances are selected.
    fn select(&self, group: &Group<'_>) -> Result<Edge, Error> {
        if self.select_topk >= 1.0 {
            return Ok(Edge::BOTTOM);
        }
        let [places, sum] = group.sum(|block| {
            variance(group, block);
            let variance = &block.inputs[0];
            let places = ops::count(variance, |v| v != 0.0);
            // Not finite if one of them is not.
            [f64::from(places), ops::l1(variance)]
        });
        if !sum.is_finite() {
            return Err(not_finite(group));
        }
        // In f32, as torch multiplies.
        let k = (places as f32 * self.select_topk as f32) as usize;
        Ok(edges_of(group, |block| variance(group, block), &[(0, First::Largest(k))])?[0])
    }
}

fn not_finite(group: &Group<'_>) -> Error {
    Error::tensor(group.name, "some values are NaN or infinite, expected finite ones")
}

/// `q_i`.
fn calculate(group: &Group<'_>, edge: Edge) -> Result<Vec<f32>, Error> {
    let n = group.inputs.len();
    let squares = group.sums(n, |block| {
        selected(group, edge, block);
        let square = |d: &mut Vec<f32>| {
            if group.arithmetic == Dtype::F32 {
                return ops::dot_f64(d, d);
            }
            ops::each(d, |d| d * d);
            group.round(d);
            d.iter().map(|square| f64::from(*square)).sum()
        };
        block.inputs.iter_mut().map(square).collect()
    });
    let means: Vec<f32> =
        squares.iter().map(|sum| group.rounded((sum / group.numel() as f64) as f32)).collect();
    let sum = group.rounded(means.iter().sum());
    if group.numel() > 0 && !sum.is_finite() {
        return Err(not_finite(group));
    }
    if sum < SMALL {
        return Ok(vec![group.rounded(1.0 / n as f32); n]);
    }
    Ok(means.into_iter().map(|mean| group.rounded(mean / sum)).collect())
}

/// The deltas in place of the inputs, zero where they are not selected.
fn selected(group: &Group<'_>, edge: Edge, block: &mut Block) {
    subtract_base(group, block);
    if edge == Edge::BOTTOM {
        return;
    }
    let mut kept = vec![0.0; block.base.len()];
    variance_of(group, &block.inputs, &mut kept);
    edge.keep(Edge::TOP, block.start, &mut kept);
    for d in &mut block.inputs {
        // Nothing without variance is ever selected.
        ops::each_with(d, &kept, |d, kept| if kept == 0.0 { 0.0 } else { d });
    }
}

/// The variance of the deltas in place of the first input.
fn variance(group: &Group<'_>, block: &mut Block) {
    subtract_base(group, block);
    let mut variance = vec![0.0; block.base.len()];
    variance_of(group, &block.inputs, &mut variance);
    block.inputs[0].copy_from_slice(&variance);
}

/// `sum_i (d_i - mean d)^2 / n`, in f64.
fn variance_of(group: &Group<'_>, deltas: &[Vec<f32>], variance: &mut [f32]) {
    let n = deltas.len() as f64;
    for (piece, variance) in variance.chunks_mut(PIECE).enumerate() {
        let at = piece * PIECE..piece * PIECE + variance.len();
        let (mut mean, mut squares) = ([0.0f64; PIECE], [0.0f64; PIECE]);
        Arch::new().dispatch(|| {
            for d in deltas {
                for (mean, d) in mean.iter_mut().zip(&d[at.clone()]) {
                    *mean += f64::from(*d);
                }
            }
            for mean in &mut mean {
                *mean /= n;
            }
            for d in deltas {
                for ((squares, mean), d) in squares.iter_mut().zip(&mean).zip(&d[at.clone()]) {
                    let off = f64::from(*d) - mean;
                    *squares += off * off;
                }
            }
            for (variance, squares) in variance.iter_mut().zip(&squares) {
                *variance = (squares / n) as f32;
            }
        });
    }
    group.round(variance);
}
