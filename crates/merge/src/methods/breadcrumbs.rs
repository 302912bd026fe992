//! Model breadcrumbs: neither the largest deltas nor the smallest. Of the `n` deltas of an input, by
//! ascending size, `d_i` keeps those from `max(0, n - floor(p n) - floor(gamma n))` on, `floor(p n)` of them.
//!
//! Davari, Belilovsky 2023, arXiv 2312.06795. The density comes first: where it leaves no room fewer of the
//! largest are dropped, and none at a density of 1. Of equal sizes at an edge the first places count as the
//! smaller; mergekit takes them in an arbitrary order.

use super::parameter::{Parameter, Resolved};
use super::registry::{Base, Method};
use super::rescale::{self, Rescale};
use super::select::{First, edges};
use super::task_vectors::{self, TaskVectors, require_base};
use super::{Apply, Merge};
use crate::Error;
use crate::group::Group;

/// The deltas of a middle size.
#[derive(Clone, Debug, PartialEq)]
pub struct Breadcrumbs {
    /// `p`, the share of the deltas of each input that is kept.
    pub density: Vec<f64>,
    /// The share of the largest deltas that is dropped.
    pub gamma: Vec<f64>,
    /// What makes up for the deltas that are dropped.
    pub rescale: Option<Rescale>,
    /// How the deltas become the result.
    pub sum: TaskVectors,
}

pub(super) fn linear() -> Method {
    method("breadcrumbs", "Model Breadcrumbs", false)
}

pub(super) fn ties() -> Method {
    method("breadcrumbs_ties", "Model Breadcrumbs with TIES", true)
}

fn method(name: &'static str, pretty_name: &'static str, election: bool) -> Method {
    let method = Method::new(name, Base::Required, 0..=usize::MAX)
        .parameter(Parameter::number("density").or(1.0).per_input())
        .parameter(Parameter::number("gamma").or(0.01).per_input())
        .reference(pretty_name, "https://arxiv.org/abs/2312.06795");
    let method = Rescale::parameters(method, false);
    task_vectors::parameters(method, false, election).build(move |p: &Resolved| {
        Ok(Breadcrumbs {
            density: p.numbers_within("density", &(0.0..=1.0))?,
            gamma: p.numbers_within("gamma", &(0.0..=1.0))?,
            rescale: Rescale::new(p),
            sum: TaskVectors::new(p, election)?,
        })
    })
}

impl Merge for Breadcrumbs {
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        require_base(group)?;
        let n = group.numel();
        let mut questions = Vec::with_capacity(2 * self.density.len());
        for (i, (density, gamma)) in self.density.iter().zip(&self.gamma).enumerate() {
            let [target, top] = [density, gamma].map(|share| (share * n as f64) as usize);
            let bottom = if *density < 1.0 { n.saturating_sub(target + top) } else { 0 };
            questions.push((i, First::Smallest(bottom)));
            questions.push((i, First::Smallest(bottom + target)));
        }
        let edges = edges(group, &questions)?;
        let keep = move |i: usize, start, d: &mut [f32]| {
            edges[2 * i].keep(edges[2 * i + 1], start, d);
        };
        rescale::merge(self.rescale, group, &self.density, group.arithmetic, keep, &self.sum)
    }
}
