//! DARE: drop and rescale. `d_i` keeps each element of `x_i - b` with probability `p`.
//!
//! Yu et al. 2023, arXiv 2311.03099. The paper makes up for the others by `1 / p`, mergekit by what keeps
//! the L1 norm; see [`Rescale`]. In bf16 arithmetic the density is one of bf16, as in torch.

use safetensors::Dtype;

use super::parameter::{Parameter, Resolved};
use super::registry::{Base, Method};
use super::rescale::{self, Rescale};
use super::task_vectors::{self, PIECE, TaskVectors, require_base};
use super::{Apply, Merge};
use crate::group::Group;
use crate::{Error, ops};

/// Deltas drawn at random.
#[derive(Clone, Debug, PartialEq)]
pub struct Dare {
    /// `p`, the probability that an element of an input is kept.
    pub density: Vec<f64>,
    /// What makes up for the others.
    pub rescale: Option<Rescale>,
    /// How the deltas become the result.
    pub sum: TaskVectors,
}

pub(super) fn linear() -> Method {
    method("dare_linear", "Linear DARE", false)
}

pub(super) fn ties() -> Method {
    method("dare_ties", "DARE TIES", true)
}

fn method(name: &'static str, pretty_name: &'static str, election: bool) -> Method {
    let method = Method::new(name, Base::Required, 0..=usize::MAX)
        .parameter(Parameter::number("density").or(1.0).per_input())
        .reference(pretty_name, "https://arxiv.org/abs/2311.03099");
    let method = Rescale::parameters(method, true);
    task_vectors::parameters(method, false, election).build(move |p: &Resolved| {
        Ok(Dare {
            density: p.numbers_within("density", &(0.0..=1.0))?,
            rescale: Rescale::new(p),
            sum: TaskVectors::new(p, election)?,
        })
    })
}

/// The type that torch draws in on a processor: it has no random numbers of f16.
pub(super) fn drawing(group: &Group<'_>) -> Dtype {
    if group.arithmetic == Dtype::F16 { Dtype::F32 } else { group.arithmetic }
}

impl Merge for Dare {
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        require_base(group)?;
        let work = drawing(group);
        let mut p: Vec<f32> = self.density.iter().map(|p| *p as f32).collect();
        crate::dtype::round(work, &mut p);
        let keep = move |i: usize, start, d: &mut [f32]| {
            let random = group.random(i);
            let mut u = [0.0; PIECE];
            for (piece, d) in d.chunks_mut(PIECE).enumerate() {
                random.fill(start + piece * PIECE, &mut u[..d.len()]);
                ops::keep_below(d, &u, &[p[i]; PIECE]);
            }
        };
        rescale::merge(self.rescale, group, &self.density, work, keep, &self.sum)
    }
}
