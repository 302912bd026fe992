//! A merge method on the deltas of adapters: TIES, DARE and all others, module by module.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;
use safetensors::Dtype;

use super::folded::Folded;
use super::low_rank::transpose;
use super::randomized::{Svd, Tiles, truncated, width};
use super::tensors::Adapter;
use super::together::Part;
use super::write::NewModule;
use crate::Error;
use crate::group::Group;
use crate::methods::{Base, Merge, Method, Resolved, Scope, Value, block_len};
use crate::philox::Stream;
use crate::source::Source;

/// Power iterations of the decomposition of what a method made.
const ITERATIONS: usize = 2;
/// Columns of its random matrix beyond the rank.
const OVERSAMPLING: usize = 10;

/// A method with its parameters, for adapters.
#[derive(Debug)]
pub(super) struct OnDeltas {
    merge: Box<dyn Merge>,
    base: Base,
    adapters: usize,
    rank: usize,
    seed: u64,
}

impl OnDeltas {
    pub(super) fn new(
        method: &Method,
        parameters: &BTreeMap<String, Value>,
        adapters: &[(&Adapter, f64)],
        rank: usize,
        seed: u64,
    ) -> Result<Self, Error> {
        let count = adapters.len();
        if !method.inputs.contains(&count) {
            let expected = format!("{:?} for {}", method.inputs, method.name);
            return Err(Error::value("adapters", count, expected));
        }
        let known =
            |name: &String| method.parameters.iter().any(|parameter| parameter.name == name);
        if let Some(name) = parameters.keys().find(|name| !known(name) || *name == "weight") {
            let names: Vec<&str> =
                method.parameters.iter().map(|p| p.name).filter(|name| *name != "weight").collect();
            return Err(Error::value(
                "parameters",
                format!("`{name}`"),
                format!("one of {names:?} for {}", method.name),
            ));
        }
        let mut resolved =
            Resolved { shared: BTreeMap::new(), inputs: vec![BTreeMap::new(); count] };
        let mut weighted = false;
        for parameter in &method.parameters {
            let given = parameters.get(parameter.name).copied().or(parameter.default);
            let missing =
                || Error::value(parameter.name, "absent", format!("a value for {}", method.name));
            match parameter.scope {
                Scope::PerInput if parameter.name == "weight" => {
                    weighted = true;
                    for (input, (_, weight)) in resolved.inputs.iter_mut().zip(adapters) {
                        input.insert(parameter.name, Value::Number(*weight));
                    }
                }
                Scope::PerInput => {
                    let value = given.ok_or_else(missing)?;
                    for input in &mut resolved.inputs {
                        input.insert(parameter.name, value);
                    }
                }
                Scope::Shared => {
                    resolved.shared.insert(parameter.name, given.ok_or_else(missing)?);
                }
            }
        }
        if let Some((_, weight)) = adapters.iter().find(|(_, weight)| !weighted && *weight != 1.0) {
            return Err(Error::value(
                "weight",
                weight,
                format!("1: {} has no weights", method.name),
            ));
        }
        Ok(Self { merge: method.with(&resolved)?, base: method.base, adapters: count, rank, seed })
    }

    /// What the method makes of sources of one shape; in f32, all of it.
    fn merged(&self, name: &str, shape: &[usize], inputs: &[Source]) -> Result<Vec<f32>, Error> {
        let zeros = Source::Zeros(shape.to_vec());
        let group = Group {
            name,
            shape,
            base: (self.base == Base::Required).then_some(&zeros),
            inputs,
            seed: self.seed,
            arithmetic: Dtype::F32,
            block: block_len(self.merge.as_ref(), shape),
        };
        let apply = self.merge.prepare(&group)?;
        let mut out = vec![0.0; group.numel()];
        out.par_chunks_mut(group.block).enumerate().for_each_init(
            || group.buffers(),
            |block, (index, out)| {
                group.read(index, block);
                apply(block, out);
            },
        );
        Ok(out)
    }
}

/// One module, and the relative error of its rank.
pub(super) fn merge_module(
    on: &OnDeltas,
    name: &str,
    parts: &[Part<'_>],
) -> Result<(NewModule, f64), Error> {
    let first = &parts[0].module.delta;
    let (m, n) = first.dims();
    let kernel = first.a.shape()[1..].to_vec();
    // As the weight is stored: some methods work on its rows.
    let transposed = first.embedding || parts[0].fan_in_fan_out && kernel.len() == 1;
    let shape = if transposed { [n, m] } else { [m, n] };
    let mut inputs = vec![Source::Zeros(shape.to_vec()); on.adapters];
    for part in parts {
        let zeros = Source::Zeros(shape.to_vec());
        let delta = Folded::new(zeros, part.module.delta.clone(), transposed, None);
        inputs[part.adapter] = Source::Folded(Arc::new(delta));
    }
    let merged = on.merged(&format!("{name}.weight"), &shape, &inputs)?;
    let read =
        |start: usize, out: &mut [f32]| out.copy_from_slice(&merged[start..start + out.len()]);
    let tiles = Tiles { rows: shape[0], columns: shape[1], read: &read };
    let rank = on.rank.min(m).min(n);
    let random = Stream::new(on.seed, &format!("{name} omega"), 0);
    let Svd { u, s, v } = tiles.decompose(width(rank, OVERSAMPLING), ITERATIONS, random);
    let whole = tiles.distance(&[], &[], 0);
    let (rows, columns) = truncated(&u, &s, &v, rank, false);
    let missed = tiles.distance(&rows, &transpose(&columns, rank, shape[0]), rank);
    // The factors of the weight; those of B A are the other way round if it is the transpose.
    let (a, left) = if transposed { truncated(&v, &s, &u, rank, false) } else { (rows, columns) };
    let module = NewModule {
        a,
        b: transpose(&left, rank, m),
        rank,
        embedding: first.embedding,
        kernel,
        bias: merged_bias(on, name, parts, m)?,
    };
    Ok((module, if whole > 0.0 { (missed / whole).sqrt() } else { 0.0 }))
}

/// The method on `s_i bias_i`, if any has one.
fn merged_bias(
    on: &OnDeltas,
    name: &str,
    parts: &[Part<'_>],
    m: usize,
) -> Result<Option<Vec<f32>>, Error> {
    if parts.iter().all(|part| part.module.bias.is_none()) {
        return Ok(None);
    }
    let mut inputs = vec![Source::Zeros(vec![m]); on.adapters];
    for part in parts {
        if let Some(bias) = super::together::sum_of_biases(&[Part { weight: 1.0, ..*part }]) {
            inputs[part.adapter] = Source::memory(bias, &[m]);
        }
    }
    on.merged(&format!("{name}.bias"), &[m], &inputs).map(Some)
}
