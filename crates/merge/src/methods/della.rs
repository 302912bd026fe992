//! DELLA: drop by rank. Of the `m` deltas of a row, by ascending size, the one of rank `r` (from 0) is kept
//! with probability `p_r = (p - epsilon) + 2 epsilon r / (m - 1)`: the larger, the likelier.
//!
//! Deep et al. 2024, arXiv 2406.11617. A vector is one row; of a tensor with more than two dimensions a row
//! runs along the second, as in mergekit. Equal sizes have the ranks of their places, in mergekit arbitrary
//! ones. A row of one element, where mergekit fails, keeps it with probability `p`. With
//! `inverse_density` an element is divided by its own probability, as in the paper.

use safetensors::Dtype;

use super::dare::drawing;
use super::parameter::{FINITE, Parameter, Resolved};
use super::registry::{Base, Method};
use super::rescale::{self, Rescale};
use super::task_vectors::{self, TaskVectors, require_base};
use super::{Apply, Merge};
use crate::group::Group;
use crate::{Error, dtype, ops};

/// Deltas drawn at random, the larger ones more often.
#[derive(Clone, Debug, PartialEq)]
pub struct Della {
    /// `p`, the mean probability that an element of an input is kept.
    pub density: Vec<f64>,
    /// How far the probability goes down and up from it.
    pub epsilon: Vec<f64>,
    /// What makes up for the elements that are dropped.
    pub rescale: Option<Rescale>,
    /// How the deltas become the result.
    pub sum: TaskVectors,
}

pub(super) fn linear() -> Method {
    method("della_linear", "Linear DELLA", false)
}

pub(super) fn ties() -> Method {
    method("della", "DELLA", true)
}

fn method(name: &'static str, pretty_name: &'static str, election: bool) -> Method {
    let method = Method::new(name, Base::Required, 0..=usize::MAX)
        .parameter(Parameter::number("density").or(1.0).per_input())
        .parameter(Parameter::number("epsilon").or(0.15).per_input())
        .reference(pretty_name, "https://arxiv.org/abs/2406.11617");
    let method = Rescale::parameters(method, true);
    task_vectors::parameters(method, election, election).build(move |p: &Resolved| {
        let density = p.numbers_within("density", &(0.0..=1.0))?;
        let epsilon = p.numbers_within("epsilon", &FINITE)?;
        for (i, (p, epsilon)) in density.iter().zip(&epsilon).enumerate() {
            let inside = |p: f64| p > 0.0 && p < 1.0;
            if inside(*p) && !(inside(p - epsilon) && inside(p + epsilon)) {
                let expected = format!("such that the density {p} plus and minus it is in (0, 1)");
                return Err(Error::value(format!("inputs[{i}].epsilon"), epsilon, expected));
            }
        }
        let (rescale, sum) = (Rescale::new(p), TaskVectors::new(p, election)?);
        Ok(Della { density, epsilon, rescale, sum })
    })
}

/// The elements of a row, and those that stand side by side in the dimensions after it.
pub(super) fn row(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [m] => (*m, 1),
        [_, m, inner @ ..] => (*m, inner.iter().product()),
    }
}

/// `p_r` for the ranks of a row of `m`, each step rounded to `work`.
pub(super) fn probabilities(m: usize, density: f64, epsilon: f64, work: Dtype) -> Vec<f32> {
    let round = |values: &mut Vec<f32>| dtype::round(work, values);
    let mut p: Vec<f32> = (0..m).map(|rank| rank as f32).collect();
    round(&mut p);
    // Ranks from 1 on, and then what they are above the first: not the same where they are rounded.
    for step in [1.0, -1.0] {
        ops::shift(&mut p, step);
        round(&mut p);
    }
    let last = p.last().copied().unwrap_or_default();
    if last == 0.0 {
        p.fill(density as f32);
        round(&mut p);
        return p;
    }
    ops::divide(&mut p, last);
    round(&mut p);
    for factor in [2.0, epsilon as f32] {
        ops::scale(&mut p, factor);
        round(&mut p);
    }
    ops::shift(&mut p, (density - epsilon) as f32);
    round(&mut p);
    p
}

/// The probability of each element of whole rows, from those of the ranks.
pub(super) fn by_rank(d: &[f32], (m, inner): (usize, usize), of_rank: &[f32], p: &mut [f32]) {
    let mut order: Vec<u64> = Vec::with_capacity(m);
    for (d, p) in d.chunks(m * inner).zip(p.chunks_mut(m * inner)) {
        for column in 0..inner {
            let size = |at: usize| u64::from(d[at * inner + column].abs().to_bits());
            order.clear();
            order.extend((0..m).map(|at| size(at) << 32 | at as u64));
            order.sort_unstable();
            for (place, of_rank) in order.iter().zip(of_rank) {
                p[*place as u32 as usize * inner + column] = *of_rank;
            }
        }
    }
}

impl Merge for Della {
    fn unit(&self, shape: &[usize]) -> usize {
        let (m, inner) = row(shape);
        m * inner
    }

    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        require_base(group)?;
        let (work, row) = (drawing(group), row(group.shape));
        let of_rank: Vec<Vec<f32>> = (self.density.iter().zip(&self.epsilon))
            .map(|(density, epsilon)| probabilities(row.0, *density, *epsilon, work))
            .collect();
        let inverse = self.rescale == Some(Rescale::InverseDensity);
        let keep = move |i: usize, start, d: &mut [f32]| {
            if self.density[i] <= 0.0 {
                return ops::scale(d, 0.0);
            }
            let (mut p, mut u) = (vec![0.0; d.len()], vec![0.0; d.len()]);
            by_rank(d, row, &of_rank[i], &mut p);
            group.random(i).fill(start, &mut u);
            ops::keep_below(d, &u, &p);
            if inverse {
                ops::divide_each(d, &p);
            }
        };
        let rescale = self.rescale.filter(|_| !inverse);
        rescale::merge(rescale, group, &self.density, work, keep, &self.sum)
    }
}
