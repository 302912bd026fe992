//! TIES: trim, elect, merge. `d_i` keeps the `max(1, floor(p n))` largest of `x_i - b`, then the deltas of
//! the elected sign are summed.
//!
//! Yadav et al. 2023, arXiv 2306.01708. Of equal sizes at the edge the first are kept; mergekit keeps
//! arbitrary ones. A density of 0 keeps nothing.

use super::parameter::{Parameter, Resolved};
use super::registry::{Base, Method};
use super::rescale::{self, Rescale};
use super::select::{Edge, First, edges};
use super::task_vectors::{self, TaskVectors, require_base};
use super::{Apply, Merge};
use crate::Error;
use crate::group::Group;

/// The largest deltas, and of them those of the elected sign.
#[derive(Clone, Debug, PartialEq)]
pub struct Ties {
    /// `p`, the share of the deltas of each input that is kept.
    pub density: Vec<f64>,
    /// What makes up for the others.
    pub rescale: Option<Rescale>,
    /// How the deltas become the result.
    pub sum: TaskVectors,
}

pub(super) fn method() -> Method {
    let method = Method::new("ties", Base::Required, 0..=usize::MAX)
        .parameter(Parameter::number("density").or(1.0).per_input())
        .reference("TIES", "https://arxiv.org/abs/2306.01708");
    let method = Rescale::parameters(method, false);
    task_vectors::parameters(method, true, true).build(|p: &Resolved| {
        Ok(Ties {
            density: p.numbers_within("density", &(0.0..=1.0))?,
            rescale: Rescale::new(p),
            sum: TaskVectors::new(p, true)?,
        })
    })
}

impl Merge for Ties {
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        require_base(group)?;
        let largest = |density: f64| {
            let count = (density * group.numel() as f64) as usize;
            First::Largest(if density > 0.0 { count.max(1) } else { 0 })
        };
        let questions: Vec<_> = self.density.iter().map(|p| largest(*p)).enumerate().collect();
        let edges = edges(group, &questions)?;
        let keep = move |i: usize, start, d: &mut [f32]| edges[i].keep(Edge::TOP, start, d);
        rescale::merge(self.rescale, group, &self.density, group.arithmetic, keep, &self.sum)
    }
}
