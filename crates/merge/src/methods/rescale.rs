//! What makes up for the deltas that were dropped.

use safetensors::Dtype;

use super::Apply;
use super::parameter::{Parameter, Resolved};
use super::registry::MethodBuilder;
use super::task_vectors::{TaskVectors, subtract_base};
use crate::group::Group;
use crate::{Error, dtype, ops};

/// Sums of sizes below this are left alone.
const NO_NORM: f32 = 1e-7;

/// The factor on the deltas that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescale {
    /// `sum |d| / sum |kept|`: the L1 norm stays, as in mergekit. 1 where a sum is below 1e-7.
    L1,
    /// One over the share that is kept, as in the paper of DARE (arXiv 2311.03099): the expectation stays.
    InverseDensity,
}

impl Rescale {
    /// `rescale` and `rescale_norm`.
    pub(super) fn parameters(method: MethodBuilder, rescale: bool) -> MethodBuilder {
        method
            .parameter(Parameter::flag("rescale", rescale))
            .parameter(Parameter::choice("rescale_norm", &["l1", "inverse_density"]))
    }

    pub(super) fn new(p: &Resolved) -> Option<Self> {
        let norm = match p.choice("rescale_norm") {
            "inverse_density" => Self::InverseDensity,
            _ => Self::L1,
        };
        p.flag("rescale").then_some(norm)
    }
}

/// The merge of deltas of which `keep` sets some to zero: it gets an input with a density below 1, the place
/// of the first element and a block of its deltas. `work` is the type of the arithmetic.
pub(super) fn merge<'a>(
    rescale: Option<Rescale>,
    group: &'a Group<'a>,
    density: &'a [f64],
    work: Dtype,
    keep: impl Fn(usize, usize, &mut [f32]) + Send + Sync + 'a,
    sum: &'a TaskVectors,
) -> Result<Apply<'a>, Error> {
    let factors = factors(rescale, group, density, work, &keep)?;
    Ok(sum.merge(group, move |i, start, d| {
        if density[i] < 1.0 {
            keep(i, start, d);
            if factors[i] != 1.0 {
                ops::scale(d, factors[i]);
            }
            group.round(d);
        }
    }))
}

/// The factor of each input on what is kept of its deltas; 1 where nothing is dropped.
fn factors(
    rescale: Option<Rescale>,
    group: &Group<'_>,
    density: &[f64],
    work: Dtype,
    keep: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Result<Vec<f32>, Error> {
    match rescale {
        None => Ok(vec![1.0; density.len()]),
        Some(Rescale::InverseDensity) => {
            // Of nothing, nothing is kept.
            let factor = |p: &f64| if *p > 0.0 { (1.0 / p) as f32 } else { 1.0 };
            Ok(density.iter().map(factor).collect())
        }
        Some(Rescale::L1) => l1_factors(group, density, work, keep),
    }
}

fn l1_factors(
    group: &Group<'_>,
    density: &[f64],
    work: Dtype,
    keep: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Result<Vec<f32>, Error> {
    let mut factors = vec![1.0; density.len()];
    let sparse: Vec<usize> = (0..density.len()).filter(|i| density[*i] < 1.0).collect();
    if sparse.is_empty() {
        return Ok(factors);
    }
    let sums = group.sums(2 * sparse.len(), |block| {
        subtract_base(group, block);
        let mut sums = Vec::with_capacity(2 * sparse.len());
        for i in &sparse {
            let d = &mut block.inputs[*i];
            sums.push(ops::l1(d));
            keep(*i, block.start, d);
            sums.push(ops::l1(d));
        }
        sums
    });
    for (i, sums) in sparse.into_iter().zip(sums.as_chunks::<2>().0) {
        let mut norms = sums.map(|sum| sum as f32);
        dtype::round(work, &mut norms);
        if !norms.iter().all(|norm| norm.is_finite()) {
            let reason = format!(
                "the deltas of input {i} have sizes with the sum {}, expected one that {} holds",
                sums[0],
                dtype::name(work)
            );
            return Err(Error::tensor(group.name, reason));
        }
        let [before, after] = norms;
        if before >= NO_NORM && after >= NO_NORM {
            let mut factor = [before / after];
            dtype::round(work, &mut factor);
            factors[i] = factor[0];
        }
    }
    Ok(factors)
}
