//! What the task-vector methods share: `y = b + lambda sum_i w_i d_i`, where `d_i` is what a method keeps
//! of `x_i - b`.
//!
//! Ilharco et al. 2022, arXiv 2212.04089. With an [`Election`] only the deltas of the elected sign are
//! summed. With `normalize` the sum is divided by the weights that took part.

use super::Apply;
use super::election::Election;
use super::parameter::{FINITE, Parameter, Resolved};
use super::registry::MethodBuilder;
use crate::group::{Block, Group};
use crate::{Error, ops};

/// Elements that are summed at a time, so that they stay in the first cache.
pub(super) const PIECE: usize = 1024;
/// A sum of weights below this does not divide.
const NO_WEIGHT: f32 = 1e-8;

/// How the deltas become the result.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskVectors {
    /// `w_i`, one for each input.
    pub weight: Vec<f64>,
    /// `lambda`, on the sum.
    pub lambda: f64,
    /// Whether to divide by the weights: by the sum of all of them, or at each place by the sum of those
    /// that have the elected sign there. A sum of zero does not divide.
    pub normalize: bool,
    /// Who takes part at each place; everyone without.
    pub election: Option<Election>,
}

/// The parameters of all these methods, with the method's own defaults.
pub(super) fn parameters(method: MethodBuilder, normalize: bool, election: bool) -> MethodBuilder {
    let method = method
        .parameter(Parameter::number("weight").per_input())
        .parameter(Parameter::number("lambda").or(1.0))
        .parameter(Parameter::flag("normalize", normalize))
        .parameter(Parameter::flag("int8_mask", false).unused());
    if election { method.parameter(Election::parameter()) } else { method }
}

/// The deltas in place of the inputs.
pub(super) fn subtract_base(group: &Group<'_>, block: &mut Block) {
    for x in &mut block.inputs {
        ops::sub_from(x, &block.base);
        group.round(x);
    }
}

impl TaskVectors {
    pub(super) fn new(p: &Resolved, election: bool) -> Result<Self, Error> {
        Ok(Self {
            weight: p.numbers_within("weight", &FINITE)?,
            lambda: p.number_within("lambda", &FINITE)?,
            normalize: p.flag("normalize"),
            election: election.then(|| Election::new(p)),
        })
    }

    /// The merge, `sparsify` being what the method does to a block of the deltas of an input; it gets the
    /// input, the place of the first element and the deltas.
    pub(super) fn merge<'a>(
        &'a self,
        group: &'a Group<'a>,
        sparsify: impl Fn(usize, usize, &mut [f32]) + Send + Sync + 'a,
    ) -> Apply<'a> {
        let w: Vec<f32> = self.weight.iter().map(|w| group.rounded(*w as f32)).collect();
        let sum = group.rounded(w.iter().sum());
        let divisor = if sum.abs() < NO_WEIGHT { 1.0 } else { sum };
        Box::new(move |block, y| {
            if block.inputs.is_empty() {
                // Not even a zero is added: -0 stays.
                return y.copy_from_slice(&block.base);
            }
            subtract_base(group, block);
            for (input, d) in block.inputs.iter_mut().enumerate() {
                sparsify(input, block.start, d);
            }
            for (piece, y) in y.chunks_mut(PIECE).enumerate() {
                let at = piece * PIECE..piece * PIECE + y.len();
                let d = block.inputs.iter_mut().map(|d| &mut d[at.clone()]);
                match self.election {
                    None => {
                        sum_all(group, &w, d, y);
                        if self.normalize {
                            ops::divide(y, divisor);
                            group.round(y);
                        }
                    }
                    Some(election) => {
                        let mut divisor = [0.0; PIECE];
                        let divisor = &mut divisor[..y.len()];
                        election.sum(group, &w, &mut d.collect::<Vec<_>>(), y, divisor);
                        if self.normalize {
                            ops::divide_each(y, divisor);
                            group.round(y);
                        }
                    }
                }
                if self.lambda != 1.0 {
                    ops::scale(y, self.lambda as f32);
                    group.round(y);
                }
                ops::add_to(y, &block.base[at]);
                group.round(y);
            }
        })
    }
}

/// `y = sum_i w_i d_i`.
fn sum_all<'d>(
    group: &Group<'_>,
    w: &[f32],
    deltas: impl Iterator<Item = &'d mut [f32]>,
    y: &mut [f32],
) {
    y.fill(0.0);
    for (w, d) in w.iter().zip(deltas) {
        ops::scale(d, *w);
        group.round(d);
        ops::add_to(y, d);
    }
    group.round(y);
}

/// An error where there is nothing that the deltas could be from.
pub(super) fn require_base(group: &Group<'_>) -> Result<(), Error> {
    match group.base {
        Some(_) => Ok(()),
        None => Err(Error::tensor(group.name, "the base model has no such tensor, expected one")),
    }
}
