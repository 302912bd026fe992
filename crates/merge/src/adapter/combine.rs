//! Several adapters into one, without the base: `sum w_i s_i B_i A_i`, or what a merge method makes of the
//! deltas `s_i B_i A_i`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;
use safetensors::Dtype;

use super::methods::{OnDeltas, merge_module};
use super::randomized::{self, Svd};
use super::tensors::Adapter;
use super::together::{self, Part, Together};
use super::write::{NewAdapter, NewModule, check_free};
use crate::methods::{Method, Value};
use crate::{Error, ops};

/// How adapters are combined.
#[derive(Clone, Debug)]
pub enum Combination<'a> {
    /// Exact: `A = [w_1 s_1 A_1; w_2 s_2 A_2; ..]`, `B = [B_1, B_2, ..]`, of the sum of the ranks (PEFT's `cat`).
    Concatenate,
    /// The best approximation of the sum of this rank, from the factors: their QR decompositions and the SVD
    /// of what is between them, never an m x n matrix (PEFT's `svd` without that).
    Svd {
        /// The new rank.
        rank: usize,
    },
    /// PEFT's `linear`: `A = sum sign(w_i s_i) sqrt|w_i s_i| A_i`, `B = sum sqrt|w_i s_i| B_i`. Not the sum of the
    /// deltas; what it misses of that is reported. Equal ranks only.
    Linear,
    /// A merge method on the deltas, with a base of zeros if it needs one, then the best approximation of the
    /// result. One module's m x n numbers in f32 are in memory at a time.
    Method {
        /// The method; the adapters' weights are its `weight`.
        method: &'a Method,
        /// Its other parameters, the same for each adapter; the method's own values where they are absent.
        parameters: &'a BTreeMap<String, Value>,
        /// The new rank.
        rank: usize,
        /// For random methods and the decomposition.
        seed: u64,
    },
}

/// What a combination made of one module.
#[derive(Clone, Debug, PartialEq)]
pub struct CombinedModule {
    /// Its path.
    pub name: String,
    /// Its rank.
    pub rank: usize,
    /// The Frobenius norm of what is missed, relative to that of the combined delta: truncation, or the
    /// approximation that [`Combination::Linear`] is. 0 for a combined delta of zero.
    pub error: f64,
}

/// What a combination made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Combined {
    /// Every module, by path.
    pub modules: Vec<CombinedModule>,
    /// Tensors that replace those of the base, taken over as they are, without weight.
    pub carried: Vec<String>,
    /// The base models that the adapters name; more than one deserves a look.
    pub base_models: Vec<String>,
}

/// Combines adapters, each with its weight, into a new adapter in `folder`, in f32. The folder appears when
/// it is complete.
///
/// A module that some adapters have not counts as a delta of zero there (for [`Combination::Linear`] it is
/// left out, as PEFT does). Tensors that replace those of the base (`modules_to_save`, biases) are taken over if
/// one adapter has them, or several have the same bytes.
///
/// # Errors
/// [`Error::Value`] for a weight, rank or parameter out of range; [`Error::Checkpoint`] for a folder that exists;
/// [`Error::Adapter`] with everything that cannot be combined: `DoRA`, shapes that differ, replaced tensors that
/// differ, unequal ranks for [`Combination::Linear`]; [`Error::Tensor`] from a method; [`Error::Io`].
pub fn combine(
    adapters: &[(&Adapter, f64)],
    combination: &Combination<'_>,
    folder: impl AsRef<Path>,
) -> Result<Combined, Error> {
    let folder = folder.as_ref();
    check_free(folder)?;
    check_numbers(adapters, combination)?;
    let on_deltas = match combination {
        Combination::Method { method, parameters, rank, seed } => {
            Some(OnDeltas::new(method, parameters, adapters, *rank, *seed)?)
        }
        _ => None,
    };
    let together = together::gather(adapters, matches!(combination, Combination::Linear))
        .map_err(|problems| Error::Adapter { path: folder.to_owned(), problems })?;
    let one = |(name, parts): (&String, &Vec<Part<'_>>)| {
        let made = match (combination, &on_deltas) {
            (Combination::Concatenate, _) => concatenate(parts),
            (Combination::Svd { rank }, _) => approximate(parts, *rank),
            (Combination::Linear, _) => linear(parts),
            (Combination::Method { .. }, Some(on_deltas)) => merge_module(on_deltas, name, parts)?,
            (Combination::Method { .. }, None) => unreachable!("made above"),
        };
        Ok((name.clone(), made))
    };
    // A method needs the memory of a whole weight: one after the other.
    let made: Vec<(String, (NewModule, f64))> = if on_deltas.is_some() {
        together.modules.iter().map(one).collect::<Result<_, Error>>()?
    } else {
        together.modules.par_iter().map(one).collect::<Result<_, Error>>()?
    };
    write(adapters, together, made, folder)
}

fn check_numbers(adapters: &[(&Adapter, f64)], combination: &Combination<'_>) -> Result<(), Error> {
    if adapters.is_empty() {
        return Err(Error::value("adapters", "empty", "at least one"));
    }
    if let Some((adapter, weight)) = adapters.iter().find(|(_, weight)| !weight.is_finite()) {
        return Err(Error::value(
            format!("weight of {}", adapter.path().display()),
            weight,
            "a number",
        ));
    }
    match combination {
        Combination::Svd { rank: 0 } | Combination::Method { rank: 0, .. } => {
            Err(Error::value("rank", 0, "at least 1"))
        }
        _ => Ok(()),
    }
}

/// The columns of `[B_1, B_2, ..]`, and the rows of `[w_1 s_1 A_1; ..]`.
fn stack(parts: &[Part<'_>]) -> (Vec<f32>, Vec<f32>) {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for part in parts {
        let (mut a, b) = part.module.delta.factors();
        ops::scale(&mut a, part.factor() as f32);
        right.append(&mut a);
        let (m, _) = part.module.delta.dims();
        left.extend(super::low_rank::transpose(&b, m, part.module.delta.rank()));
    }
    (left, right)
}

fn new_module(parts: &[Part<'_>], a: Vec<f32>, left: &[f32]) -> NewModule {
    let (m, _) = parts[0].module.delta.dims();
    let rank = left.len() / m;
    NewModule {
        a,
        b: super::low_rank::transpose(left, rank, m),
        rank,
        embedding: parts[0].module.delta.embedding,
        kernel: parts[0].module.delta.a.shape()[1..].to_vec(),
        bias: together::sum_of_biases(parts),
    }
}

fn concatenate(parts: &[Part<'_>]) -> (NewModule, f64) {
    let (left, right) = stack(parts);
    (new_module(parts, right, &left), 0.0)
}

fn approximate(parts: &[Part<'_>], rank: usize) -> (NewModule, f64) {
    let (left, right) = stack(parts);
    let (m, n) = parts[0].module.delta.dims();
    let Svd { u, s, v } = randomized::of_factors(&left, &right, m, n);
    let rank = rank.min(m).min(n).min(s.len());
    let energy = |values: &[f64]| values.iter().fold(0.0, |sum, s| sum + s * s);
    let (missed, whole) = (energy(&s[rank..]), energy(&s));
    let (a, left) = randomized::truncated(&u, &s, &v, rank, false);
    let error = if whole > 0.0 { (missed / whole).sqrt() } else { 0.0 };
    (new_module(parts, a, &left), error)
}

fn linear(parts: &[Part<'_>]) -> (NewModule, f64) {
    let (mut a, mut left) = (Vec::new(), Vec::new());
    let (m, n) = parts[0].module.delta.dims();
    for part in parts {
        let (of_a, of_b) = part.module.delta.factors();
        let root = part.factor().abs().sqrt();
        let sign = if part.factor() >= 0.0 { 1.0 } else { -1.0 };
        a.resize(of_a.len(), 0.0);
        left.resize(of_b.len(), 0.0);
        ops::axpy(&mut a, (root * sign) as f32, &of_a);
        let columns = super::low_rank::transpose(&of_b, m, part.module.delta.rank());
        ops::axpy(&mut left, root as f32, &columns);
    }
    // The difference to the sum of the deltas is a product of factors as well.
    let (sum_left, sum_right) = stack(parts);
    let whole = randomized::norm_of_product(&sum_left, &sum_right, m, n);
    let minus: Vec<f32> = a.iter().map(|x| -x).collect();
    let missed = randomized::norm_of_product(
        &[sum_left, left.clone()].concat(),
        &[sum_right, minus].concat(),
        m,
        n,
    );
    let error = if whole > 0.0 { missed / whole } else { 0.0 };
    (new_module(parts, a, &left), error)
}

fn write(
    adapters: &[(&Adapter, f64)],
    together: Together<'_>,
    made: Vec<(String, (NewModule, f64))>,
    folder: &Path,
) -> Result<Combined, Error> {
    let bases: BTreeSet<String> =
        adapters.iter().filter_map(|(adapter, _)| adapter.config().base_model.clone()).collect();
    let report = Combined {
        modules: made
            .iter()
            .map(|(name, (module, error))| CombinedModule {
                name: name.clone(),
                rank: module.rank,
                error: *error,
            })
            .collect(),
        carried: together.whole.keys().cloned().collect(),
        base_models: bases.into_iter().collect(),
    };
    let config =
        |of: fn(&Adapter) -> Option<String>| adapters.iter().find_map(|(adapter, _)| of(adapter));
    let to_save: BTreeSet<&String> =
        adapters.iter().flat_map(|(adapter, _)| &adapter.config().modules_to_save).collect();
    NewAdapter {
        target_modules: together::target_names(adapters, together.modules.keys()),
        modules: made.into_iter().map(|(name, (module, _))| (name, module)).collect(),
        whole: together.whole,
        modules_to_save: to_save.into_iter().cloned().collect(),
        base_model: config(|adapter| adapter.config().base_model.clone()),
        task_type: config(|adapter| adapter.config().task_type.clone()),
        fan_in_fan_out: adapters.iter().any(|(adapter, _)| adapter.config().fan_in_fan_out),
        trains_bias: adapters.iter().any(|(adapter, _)| adapter.config().trains_bias),
        ensure_weight_tying: false,
    }
    .write(folder, Dtype::F32)?;
    Ok(report)
}
