//! One tensor: from mapped inputs to its place in the file.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rayon::prelude::*;
use safetensors::Dtype;

use super::shards::{Place, ShardFile};
use crate::checkpoint::Tensor;
use crate::group::{Block, Group};
use crate::methods::{Merge, block_len};
use crate::plan::{Origin, Output};
use crate::source::Source;
use crate::{Error, dtype};

/// Takes bytes of a tensor and where they belong in it.
pub(crate) type Emit<'a> = dyn Fn(Range<usize>, &[u8]) -> Result<(), Error> + Sync + 'a;

/// Elements that are written at once, in whole blocks.
const SPAN: usize = 131_072;

/// Computes a tensor and hands its bytes out in stretches, in any order, from several threads.
pub(crate) fn compute(output: &Output, seed: u64, emit: &Emit<'_>) -> Result<(), Error> {
    if output.numel() == 0 {
        return Ok(());
    }
    match &output.origin {
        Origin::Copy { tensor, .. } => emit(0..tensor.bytes().len(), tensor.bytes()),
        Origin::Merge { method, base, inputs, arithmetic, .. } => {
            let inputs: Vec<Source> = inputs.iter().map(|(_, source)| source.clone()).collect();
            let group = Group {
                name: &output.name,
                shape: &output.shape,
                base: base.as_ref().map(|(_, source)| source),
                inputs: &inputs,
                seed,
                arithmetic: *arithmetic,
                block: block_len(method.as_ref(), &output.shape),
            };
            merge(output, method.as_ref(), &group, emit)
        }
    }
}

fn merge(
    output: &Output,
    method: &dyn Merge,
    group: &Group<'_>,
    emit: &Emit<'_>,
) -> Result<(), Error> {
    let apply = method.prepare(group).map_err(|error| name_nan(group, error))?;
    let size = dtype::size_of(output.dtype);
    let blocks_of_span = (SPAN / group.block).max(1);
    let spans = group.blocks().div_ceil(blocks_of_span);
    let buffers = || (group.buffers(), vec![0.0f32; group.block], Vec::new());
    (0..spans).into_par_iter().try_for_each_init(buffers, |(block, y, bytes), span| {
        let blocks = span * blocks_of_span..((span + 1) * blocks_of_span).min(group.blocks());
        let start = blocks.start * group.block;
        let end = (blocks.end * group.block).min(group.numel());
        bytes.resize((end - start) * size, 0);
        for index in blocks {
            group.read(index, block);
            let from = index * group.block;
            let length = group.block.min(group.numel() - from);
            let y = &mut y[..length];
            apply(block, y);
            if crate::ops::has_nan(y) {
                return Err(found_nan(group, from, y));
            }
            if let Some(at) = beyond(output.dtype, y) {
                let reason = format!(
                    "element {} is {:e}, more than {} can hold (`out_dtype: bfloat16` or float32 can)",
                    from + at,
                    y[at],
                    dtype::name(output.dtype)
                );
                return Err(Error::tensor(&output.name, reason));
            }
            // What was computed in the inputs' type has it before it is widened.
            group.round(y);
            let at = (from - start) * size;
            dtype::encode(output.dtype, y, &mut bytes[at..at + length * size]);
        }
        emit(start * size..end * size, bytes)
    })
}

/// A tensor as its writer sees it: computed into its place.
pub(crate) fn write(
    output: &Output,
    seed: u64,
    shard: &ShardFile,
    place: Place,
) -> Result<(), Error> {
    if let Origin::Copy { tensor, .. } = &output.origin
        && copy_range(tensor, &shard.file, place.offset)
    {
        return Ok(());
    }
    compute(output, seed, &|range, bytes| {
        let at = place.offset + range.start as u64;
        shard.file.write_all_at(bytes, at).map_err(Error::io(&shard.path))
    })
}

/// Copies within the kernel, as a reference where the file system shares blocks; `false` where it cannot.
fn copy_range(tensor: &Tensor, to: &File, offset: u64) -> bool {
    let Ok(from) = File::open(tensor.file()) else { return false };
    let range = tensor.bytes.range();
    let (mut source, mut target) = (range.start as u64, offset);
    let mut left = range.len();
    while left > 0 {
        match rustix::fs::copy_file_range(&from, Some(&mut source), to, Some(&mut target), left) {
            Ok(0) | Err(_) => return false,
            Ok(copied) => left -= copied,
        }
    }
    true
}

/// The first finite number that would be stored as an infinite one.
fn beyond(dtype: Dtype, y: &[f32]) -> Option<usize> {
    // Half a step above 65504, the largest; from there on it rounds to infinity.
    const F16: f32 = 65_520.0;
    if dtype != Dtype::F16 || !crate::ops::any(y, |y| y.abs() >= F16) {
        return None;
    }
    y.iter().position(|y| y.abs() >= F16 && y.is_finite())
}

/// Where the first NaN of a tensor comes from: from an input, or from the method.
fn found_nan(group: &Group<'_>, start: usize, y: &[f32]) -> Error {
    let at = start + y.iter().position(|y| y.is_nan()).unwrap_or(0);
    nan_of_input(group).unwrap_or_else(|| {
        let reason = format!("the merge is not a number at element {at}, though all inputs are");
        Error::tensor(group.name, reason)
    })
}

/// A method that cannot go on because an input is NaN says so by the input.
fn name_nan(group: &Group<'_>, error: Error) -> Error {
    nan_of_input(group).unwrap_or(error)
}

fn nan_of_input(group: &Group<'_>) -> Option<Error> {
    let find = |block: &mut Block| {
        let all = std::iter::once(&block.base).chain(&block.inputs);
        let found = all.enumerate().find_map(|(input, values)| {
            values.iter().position(|value| value.is_nan()).map(|at| (input, at))
        });
        found.map(|(input, at)| (input, block.start + at))
    };
    let (input, at) = group.map(find).into_iter().flatten().next()?;
    let source = if input == 0 { group.base? } else { &group.inputs[input - 1] };
    let stored = source.stored();
    let place = stored.first().map_or_else(
        || "an input".into(),
        |tensor| format!("{}: `{}`", tensor.file().display(), tensor.name()),
    );
    let reason = format!("{place} is NaN at element {at}, expected numbers");
    Some(Error::tensor(group.name, reason))
}
