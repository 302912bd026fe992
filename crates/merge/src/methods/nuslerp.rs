//! `NuSLERP`: `y = (sin((1 - t) theta) v_1 + sin(t theta) v_2) / sin theta (+ b)`, `t = w_2 / (w_1 + w_2)`,
//! `theta` the angle between `v_1` and `v_2`, which are the inputs, or their differences from a base.
//!
//! mergekit's; without a base it is Shoemake's interpolation. The vectors are the whole tensors
//! (`nuslerp_flatten`), or those along the first dimension (`nuslerp_row_wise`), or those along the last.
//! `t` is one half where the sum of the weights vanishes. Where the cosine is 1 or -1 in f32, it is linear:
//! `(1 - t) v_1 + t v_2`.

use super::gram::{Gram, dot, one_each};
use super::parameter::{FINITE, Parameter, Resolved};
use super::registry::{Base, Method};
use super::task_vectors::subtract_base;
use super::{Apply, Merge, columns};
use crate::dtype::Dtype;
use crate::group::{Block, Group};
use crate::{Error, ops};

/// The smallest norm that is divided by.
const NO_NORM: f64 = 1e-7;
/// The sum of the weights below which `t` is one half.
const NO_SUM: f64 = 1e-6;

/// Interpolation on an arc between two models, or between their task vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct NuSlerp {
    /// `w_1` and `w_2`.
    pub weight: [f64; 2],
    /// Whether a tensor is one vector.
    pub nuslerp_flatten: bool,
    /// If it is not: whether the vectors lie along the first dimension, else they do along the last.
    pub nuslerp_row_wise: bool,
}

/// What `v_1` and `v_2` are multiplied by, and what their sum is divided by.
type Arc = [f32; 3];

pub(super) fn method() -> Method {
    Method::new("nuslerp", Base::Optional, 2..=2)
        .parameter(Parameter::number("weight").per_input())
        .parameter(Parameter::flag("nuslerp_flatten", true))
        .parameter(Parameter::flag("nuslerp_row_wise", false))
        .reference("NuSLERP", "https://github.com/arcee-ai/mergekit")
        .build(|p: &Resolved| {
            let weight = p.numbers_within("weight", &FINITE)?;
            let found = weight.len();
            let weight = weight
                .try_into()
                .map_err(|_| Error::value("weight", found, "one of two inputs each"))?;
            let nuslerp_flatten = p.flag("nuslerp_flatten");
            Ok(NuSlerp { weight, nuslerp_flatten, nuslerp_row_wise: p.flag("nuslerp_row_wise") })
        })
}

impl Merge for NuSlerp {
    fn by_rows(&self) -> bool {
        !self.nuslerp_flatten && !self.nuslerp_row_wise
    }

    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        one_each(group.name, "weight", 2, group.inputs.len())?;
        if self.by_rows() {
            return Ok(self.along_rows(group));
        }
        if self.nuslerp_flatten || columns::columns(group.shape) == 1 {
            self.whole(group)
        } else {
            Ok(self.along_columns(group))
        }
    }
}

impl NuSlerp {
    fn t(&self) -> f64 {
        let [first, second] = self.weight;
        let sum = first + second;
        if sum.abs() < NO_SUM { 0.5 } else { second / sum }
    }

    fn whole<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        let gram = Gram::of(group)?;
        let norms = [0, 1].map(|i| norm(group, gram.dot(i, i)));
        let cos = if group.arithmetic == Dtype::F32 {
            gram.dot(0, 1) / norms[0] / norms[1]
        } else {
            group.sum(|block| {
                subtract_base(group, block);
                let [v1, v2] = pair(block);
                [dot_of_units(group, norms, v1, v2)]
            })[0]
        };
        let arc = self.arc(group, cos);
        Ok(Box::new(move |block, y| {
            subtract_base(group, block);
            blend(group, block, y, |which, x| by(which, x, arc));
        }))
    }

    fn along_rows<'a>(&'a self, group: &'a Group<'a>) -> Apply<'a> {
        let row = group.row_len().max(1);
        Box::new(move |block, y| {
            subtract_base(group, block);
            let [v1, v2] = pair(block);
            let arcs: Vec<Arc> = (v1.chunks(row).zip(v2.chunks(row)))
                .map(|(v1, v2)| {
                    let norms = [v1, v2].map(|v| norm(group, ops::dot_f64(v, v)));
                    let cos = if group.arithmetic == Dtype::F32 {
                        ops::dot_f64(v1, v2) / norms[0] / norms[1]
                    } else {
                        dot_of_units(group, norms, &mut v1.to_vec(), &mut v2.to_vec())
                    };
                    self.arc(group, cos)
                })
                .collect();
            blend(group, block, y, |which, x| {
                for (x, arc) in x.chunks_mut(row).zip(&arcs) {
                    by(which, x, *arc);
                }
            });
        })
    }

    fn along_columns<'a>(&'a self, group: &'a Group<'a>) -> Apply<'a> {
        let [aa, bb, mut ab] = columns::sums(group, |block, range, [aa, bb, ab]| {
            subtract_base(group, block);
            let [v1, v2] = pair(block);
            for (v1, v2) in v1.chunks(range.len()).zip(v2.chunks(range.len())) {
                ops::add_products(aa, v1, v1);
                ops::add_products(bb, v2, v2);
                ops::add_products(ab, v1, v2);
            }
        });
        let norms = [aa, bb]
            .map(|sums| sums.into_iter().map(|sum| norm(group, sum) as f32).collect::<Vec<_>>());
        if group.arithmetic == Dtype::F32 {
            for (ab, (a, b)) in ab.iter_mut().zip(norms[0].iter().zip(&norms[1])) {
                *ab = *ab / f64::from(*a) / f64::from(*b);
            }
        } else {
            [ab] = columns::sums(group, |block, range, [ab]| {
                subtract_base(group, block);
                let [v1, v2] = pair(block);
                for (v1, v2) in v1.chunks_mut(range.len()).zip(v2.chunks_mut(range.len())) {
                    for (v, norms) in [&mut *v1, &mut *v2].into_iter().zip(&norms) {
                        ops::divide_each(v, &norms[range.clone()]);
                        group.round(v);
                    }
                    ops::scale_each(v1, v2);
                    group.round(v1);
                    for (sum, product) in ab.iter_mut().zip(v1) {
                        *sum += f64::from(*product);
                    }
                }
            });
        }
        let mut arcs: [Vec<f32>; 3] = Default::default();
        for cos in ab {
            for (values, value) in arcs.iter_mut().zip(self.arc(group, cos)) {
                values.push(value);
            }
        }
        Box::new(move |block, y| {
            subtract_base(group, block);
            let start = block.start;
            blend(group, block, y, |which, x| {
                let values = &arcs[which];
                let mut column = start % values.len();
                let mut rest = x;
                while !rest.is_empty() {
                    let (now, later) = rest.split_at_mut(rest.len().min(values.len() - column));
                    let values = &values[column..column + now.len()];
                    if which == 2 {
                        ops::divide_each(now, values);
                    } else {
                        ops::scale_each(now, values);
                    }
                    (column, rest) = (0, later);
                }
            });
        })
    }

    /// The arc between vectors with this cosine.
    fn arc(&self, group: &Group<'_>, cos: f64) -> Arc {
        let (t, cos) = (self.t(), group.rounded(cos.clamp(-1.0, 1.0) as f32));
        if cos.abs() == 1.0 {
            return [(1.0 - t) as f32, t as f32, 1.0];
        }
        let round = |value: f64| match group.arithmetic {
            Dtype::F32 => value,
            _ => f64::from(group.rounded(value as f32)),
        };
        let theta = round(f64::from(cos).acos());
        let sin = |part: f64| round(round(part * theta).sin()) as f32;
        [sin(1.0 - t), sin(t), sin(1.0)]
    }
}

fn pair(block: &mut Block) -> [&mut Vec<f32>; 2] {
    let [first, second] = block.inputs.as_mut_slice() else {
        unreachable!("two inputs were checked")
    };
    [first, second]
}

/// `|v|` from `<v, v>`.
fn norm(group: &Group<'_>, square: f64) -> f64 {
    f64::from(group.rounded(square.sqrt() as f32)).max(NO_NORM)
}

/// The inner product of the directions of two vectors, which are overwritten.
fn dot_of_units(group: &Group<'_>, norms: [f64; 2], v1: &mut [f32], v2: &mut [f32]) -> f64 {
    ops::divide(v1, norms[0] as f32);
    group.round(v1);
    ops::divide(v2, norms[1] as f32);
    group.round(v2);
    dot(group, v1, v2)
}

fn by(which: usize, x: &mut [f32], arc: Arc) {
    if which == 2 { ops::divide(x, arc[2]) } else { ops::scale(x, arc[which]) }
}

/// `y = (on_1 v_1 + on_2 v_2) / over (+ b)`; `by` multiplies by the first and second and divides by the third.
fn blend(group: &Group<'_>, block: &mut Block, y: &mut [f32], by: impl Fn(usize, &mut [f32])) {
    let [v1, v2] = pair(block);
    by(0, v1);
    group.round(v1);
    by(1, v2);
    group.round(v2);
    y.copy_from_slice(v1);
    ops::add_to(y, v2);
    group.round(y);
    by(2, y);
    group.round(y);
    if group.base.is_some() {
        ops::add_to(y, &block.base);
        group.round(y);
    }
}
