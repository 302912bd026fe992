//! Linear: `y = sum_i w_i x_i / sum_i w_i`.
//!
//! Model soups, Wortsman et al. 2022, arXiv 2203.05482. Without `normalize` nothing is divided. mergekit
//! divides by a sum of zero and writes NaN; here that is an error.

use super::parameter::{Parameter, Resolved};
use super::registry::{Base, Method};
use super::{Apply, Merge};
use crate::group::Group;
use crate::{Error, ops};

/// The weighted mean or sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `w_i`, one for each input.
    pub weight: Vec<f64>,
    /// Whether to divide by the sum of the weights.
    pub normalize: bool,
}

pub(super) fn method() -> Method {
    Method::new("linear", Base::Ignored, 1..=usize::MAX)
        .parameter(Parameter::number("weight").per_input())
        .parameter(Parameter::flag("normalize", true))
        .reference("Linear", "https://arxiv.org/abs/2203.05482")
        .build(|p: &Resolved| {
            Ok(Linear { weight: p.numbers("weight"), normalize: p.flag("normalize") })
        })
}

impl Merge for Linear {
    fn copies(&self) -> Option<usize> {
        (self.weight == [1.0]).then_some(0)
    }

    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        let w: Vec<f32> = self.weight.iter().map(|w| *w as f32).collect();
        let sum: f32 = w.iter().sum();
        if self.normalize && sum == 0.0 {
            let reason = "the weights have the sum 0, expected another (or `normalize: false`)";
            return Err(Error::tensor(group.name, reason));
        }
        Ok(Box::new(move |block, y| {
            y.fill(0.0);
            for (w, x) in w.iter().zip(&block.inputs) {
                ops::fused(y, *w, x);
            }
            if self.normalize {
                ops::divide(y, sum);
            }
        }))
    }
}
