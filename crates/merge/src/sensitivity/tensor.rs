//! The measures of one tensor that are not sums over its elements, and the sums.

use super::inputs::Compared;
use super::sums::Sums;
use crate::adapter::{COLUMNS, Tiles};
use crate::dtype::Dtype;
use crate::group::{BLOCK, Group};
use crate::methods::{Edge, First, edges};
use crate::philox::Stream;
use crate::source::Source;
use crate::{Error, ops};

/// Columns and power iterations of the estimate of the spectral norm (Halko, Martinsson, Tropp 2011); exact for
/// matrices of no more rows or columns.
const SKETCH: usize = 16;
const ITERATIONS: usize = 2;

/// All sums of a tensor.
pub(super) fn measure(tensor: &Compared, ranks: bool) -> Result<Sums, Error> {
    let group = Group {
        name: &tensor.name,
        shape: tensor.models[0].shape(),
        base: tensor.base.as_ref(),
        inputs: &tensor.models,
        seed: 0,
        arithmetic: Dtype::F32,
        block: BLOCK,
    };
    let with_base = group.base.is_some();
    let mut sums = Sums::new(tensor.models.len(), with_base);
    for part in group.map(|block| Sums::of(block, with_base)) {
        sums.add(&part);
    }
    check(tensor, &sums)?;
    if with_base {
        concentration(&group, &mut sums)?;
        if let (true, &[rows, columns]) = (ranks, group.shape) {
            stable_ranks(tensor, [rows, columns], &mut sums);
        }
    }
    Ok(sums)
}

/// NaN and infinities are errors.
fn check(tensor: &Compared, sums: &Sums) -> Result<(), Error> {
    let base = tensor.base.as_ref().zip(sums.base);
    let models = tensor.models.iter().zip(sums.models.iter().map(|model| model.x));
    if let Some((source, _)) = base.into_iter().chain(models).find(|(_, sum)| !sum.is_finite()) {
        let (at, value) = first_strange(source);
        let reason = format!("element {at} is {value}, expected a finite number");
        return Err(match source.stored().first() {
            Some(stored) => {
                Error::checkpoint(stored.file(), format!("tensor `{}`: {reason}", tensor.name))
            }
            None => Error::tensor(&tensor.name, reason),
        });
    }
    if sums.models.iter().any(|model| !model.d.is_finite()) {
        let reason =
            "the difference of a model and the base is beyond f32, expected finite numbers";
        return Err(Error::tensor(&tensor.name, reason));
    }
    Ok(())
}

/// The first element that is not finite.
fn first_strange(source: &Source) -> (usize, f32) {
    let n = source.numel();
    let mut values = vec![0.0; BLOCK.min(n)];
    for start in (0..n).step_by(BLOCK) {
        let values = &mut values[..BLOCK.min(n - start)];
        source.read(start, values);
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return (start + at, values[at]);
        }
    }
    (n, f32::NAN)
}

/// How much the largest tenth and fifth of the deltas hold; as many as a density of 0.1 and 0.2 keeps.
fn concentration(group: &Group<'_>, sums: &mut Sums) -> Result<(), Error> {
    let changed: Vec<usize> =
        (0..sums.models.len()).filter(|i| sums.models[*i].changed > 0).collect();
    let counts = [10, 5].map(|part| First::Largest((group.numel() / part).max(1)));
    let questions: Vec<(usize, First)> =
        changed.iter().flat_map(|i| counts.map(|first| (*i, first))).collect();
    let edges = edges(group, &questions)?;
    let held = group.sums(questions.len(), |block| {
        let mut kept = Vec::new();
        let of = |((input, _), edge): (&(usize, First), &Edge)| {
            kept.clone_from(&block.inputs[*input]);
            ops::sub_from(&mut kept, &block.base);
            edge.keep(Edge::TOP, block.start, &mut kept);
            ops::l1(&kept)
        };
        questions.iter().zip(&edges).map(of).collect()
    });
    for (i, held) in changed.iter().zip(held.as_chunks::<2>().0) {
        [sums.models[*i].tenth, sums.models[*i].fifth] = *held;
    }
    Ok(())
}

/// `||d||_F^2 / ||d||_2^2` of each model.
fn stable_ranks(tensor: &Compared, [rows, columns]: [usize; 2], sums: &mut Sums) {
    let Some(base) = &tensor.base else { return };
    for (x, model) in tensor.models.iter().zip(&mut sums.models) {
        if model.changed == 0 {
            continue;
        }
        let read = |start: usize, out: &mut [f32]| {
            let mut before = [0.0; COLUMNS];
            let before = &mut before[..out.len()];
            base.read(start, before);
            x.read(start, out);
            ops::sub_from(out, before);
        };
        let tiles = Tiles { rows, columns, read: &read };
        let svd = tiles.decompose(SKETCH, ITERATIONS, Stream::new(0, &tensor.name, 0));
        let spectral = svd.s.first().copied().unwrap_or(0.0);
        if spectral > 0.0 {
            model.rank += (model.d / (spectral * spectral)).max(1.0);
            model.ranked += 1;
        }
    }
}
