//! Task arithmetic: `y = b + lambda sum_i w_i (x_i - b)`.
//!
//! Ilharco et al. 2022, arXiv 2212.04089. `density` and `rescale` are accepted, as mergekit accepts them,
//! and have no effect.

use super::parameter::{Parameter, Resolved};
use super::registry::{Base, Method};
use super::task_vectors::{self, TaskVectors, require_base};
use super::{Apply, Merge};
use crate::Error;
use crate::group::Group;

/// The weighted sum of the deltas.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskArithmetic(pub TaskVectors);

pub(super) fn method() -> Method {
    let method = Method::new("task_arithmetic", Base::Required, 0..=usize::MAX)
        .parameter(Parameter::number("density").or(1.0).per_input().unused())
        .parameter(Parameter::flag("rescale", false).unused())
        .reference("Task Arithmetic", "https://arxiv.org/abs/2212.04089");
    task_vectors::parameters(method, false, false)
        .build(|p: &Resolved| Ok(TaskArithmetic(TaskVectors::new(p, false)?)))
}

impl Merge for TaskArithmetic {
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        require_base(group)?;
        Ok(self.0.merge(group, |_, _, _| {}))
    }
}
