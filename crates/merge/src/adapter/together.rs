//! Several adapters, module by module: who has it, and whether all of them can be one.

use std::collections::{BTreeMap, BTreeSet};

use super::tensors::{Adapter, Module};
use crate::checkpoint::Tensor;
use crate::ops;

/// One adapter's part in a module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    /// The place of the adapter.
    pub(super) adapter: usize,
    pub(super) weight: f64,
    pub(super) module: &'a Module,
    /// Whether its weights are stored as (in, out).
    pub(super) fan_in_fan_out: bool,
}

impl Part<'_> {
    /// `w s`.
    pub(super) fn factor(&self) -> f64 {
        self.weight * f64::from(self.module.delta.scale)
    }
}

/// All modules and replaced tensors of several adapters.
#[derive(Debug)]
pub(super) struct Together<'a> {
    pub(super) modules: BTreeMap<String, Vec<Part<'a>>>,
    pub(super) whole: BTreeMap<String, Tensor>,
}

/// Lays adapters side by side; the problems, if they cannot be combined.
pub(super) fn gather<'a>(
    adapters: &[(&'a Adapter, f64)],
    equal_ranks: bool,
) -> Result<Together<'a>, Vec<String>> {
    let mut problems = Vec::new();
    let mut modules: BTreeMap<String, Vec<Part<'a>>> = BTreeMap::new();
    let mut whole: BTreeMap<String, Tensor> = BTreeMap::new();
    for (index, (adapter, weight)) in adapters.iter().enumerate() {
        let path = adapter.path().display();
        if adapter.config().use_dora {
            problems.push(format!(
                "{path}: DoRA's magnitudes depend on the base, expected adapters without them (fold it into the base, \
                 and extract an adapter of the result)"
            ));
        }
        let fan_in_fan_out = adapter.config().fan_in_fan_out;
        for (name, module) in adapter.modules() {
            let part = Part { adapter: index, weight: *weight, module, fan_in_fan_out };
            modules.entry(name.clone()).or_default().push(part);
        }
        for (name, tensor) in adapter.whole() {
            match whole.get(name) {
                Some(other)
                    if other.dtype() != tensor.dtype() || other.bytes() != tensor.bytes() =>
                {
                    problems.push(format!(
                        "tensor `{name}` replaces the base's with different values in {} and {}",
                        other.file().display(),
                        tensor.file().display()
                    ));
                }
                Some(_) => {}
                None => {
                    whole.insert(name.clone(), tensor.clone());
                }
            }
        }
    }
    for (name, parts) in &modules {
        let first = &parts[0].module.delta;
        for part in &parts[1..] {
            let delta = &part.module.delta;
            let (path, other) =
                (adapters[part.adapter].0.path(), adapters[parts[0].adapter].0.path());
            let same = delta.a.shape()[1..] == first.a.shape()[1..]
                && delta.b.shape()[0] == first.b.shape()[0];
            if !same || delta.embedding != first.embedding {
                problems.push(format!(
                    "module `{name}`: A is {:?} and B is {:?} in {}, and {:?} and {:?} in {}",
                    first.a.shape(),
                    first.b.shape(),
                    other.display(),
                    delta.a.shape(),
                    delta.b.shape(),
                    path.display()
                ));
            } else if equal_ranks && delta.rank() != first.rank() {
                problems.push(format!(
                    "module `{name}`: rank {} in {} and {} in {}, expected equal ranks to average factors",
                    first.rank(),
                    other.display(),
                    delta.rank(),
                    path.display()
                ));
            }
        }
    }
    if problems.is_empty() { Ok(Together { modules, whole }) } else { Err(problems) }
}

/// `sum w_i s_i bias_i`, if any has one.
pub(super) fn sum_of_biases(parts: &[Part<'_>]) -> Option<Vec<f32>> {
    let mut sum: Option<Vec<f32>> = None;
    for part in parts {
        if let Some(bias) = &part.module.bias {
            let mut values = vec![0.0; bias.numel()];
            bias.read(0, &mut values);
            let sum = sum.get_or_insert_with(|| vec![0.0; values.len()]);
            ops::axpy(sum, part.factor() as f32, &values);
        }
    }
    sum
}

/// Names for `target_modules`: the end of a path where an adapter says that all modules of that end are
/// adapted, else the path.
pub(super) fn target_names<'a>(
    adapters: &[(&Adapter, f64)],
    modules: impl Iterator<Item = &'a String>,
) -> Vec<String> {
    let complete: BTreeSet<&String> = adapters
        .iter()
        .filter_map(|(adapter, _)| adapter.config().target_modules.as_ref())
        .flatten()
        .collect();
    let named = |path: &String| {
        let end =
            complete.iter().find(|name| path == **name || path.ends_with(&format!(".{name}")));
        end.map_or_else(|| path.clone(), |name| (*name).clone())
    };
    modules.map(named).collect::<BTreeSet<_>>().into_iter().collect()
}
