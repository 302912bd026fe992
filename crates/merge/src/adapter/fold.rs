//! `base + adapter` as tensors, what PEFT's `merge_and_unload` computes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::extract::same_bytes;
use super::folded::{Folded, matrix};
use super::low_rank::LowRank;
use super::tensors::{Adapter, Module};
use crate::checkpoint::Checkpoint;
use crate::source::Source;
use crate::{Error, dtype, ops};

/// The tensors of the base with the adapter folded in, each by its name in the base. Only biases are read
/// here; weights are computed where they are read.
///
/// The arithmetic is f32: PEFT rounds `s B A` to the type of the adapter and the sum to that of the base.
/// As in a model that PEFT merged, a weight that embeddings and head share gets what either is given.
///
/// # Errors
/// [`Error::Adapter`] with everything that does not fit: tensors of the adapter that the base has not, shapes
/// that differ, a base that is no floating-point number, square weights of which nothing tells whether
/// they are stored as (out, in) or (in, out).
pub fn fold(base: &Checkpoint, adapter: &Adapter) -> Result<BTreeMap<String, Source>, Error> {
    let stored = base.tensors().iter();
    fold_into(
        base,
        stored.map(|(name, tensor)| (name.clone(), Source::Stored(tensor.clone()))).collect(),
        adapter,
    )
}

/// [`fold`] into the tensors of `base` as they are read: dequantised, for instance.
pub(crate) fn fold_into(
    base: &Checkpoint,
    mut tensors: BTreeMap<String, Source>,
    adapter: &Adapter,
) -> Result<BTreeMap<String, Source>, Error> {
    let mut problems = Vec::new();
    for (name, tensor) in adapter.whole() {
        match tensors.get_mut(name) {
            None if is_shared(base, adapter, name) => {}
            None => problems.push(missing(base, name)),
            Some(old) if old.shape() != tensor.shape() => problems.push(format!(
                "tensor `{name}` is {:?} in the adapter and {:?} in the base",
                tensor.shape(),
                old.shape()
            )),
            Some(old) => *old = Source::Stored(tensor.clone()),
        }
    }
    let habit = Habit::of(adapter, &tensors);
    for (name, module) in adapter.modules() {
        let weight = format!("{name}.weight");
        let Some(old) = tensors.get(&weight) else {
            problems.push(missing(base, &weight));
            continue;
        };
        match folded(&weight, old, module, habit) {
            Ok(new) => {
                tensors.insert(weight, new);
            }
            Err(problem) => problems.push(problem),
        }
        if let Some(bias) = &module.bias {
            let name = format!("{name}.bias");
            match tensors.get(&name) {
                None => problems.push(missing(base, &name)),
                Some(old) if old.numel() != bias.numel() || !dtype::is_float(old.dtype()) => {
                    problems.push(format!(
                        "tensor `{name}` is {:?} {:?}, expected {} floating-point numbers",
                        old.dtype(),
                        old.shape(),
                        bias.numel()
                    ));
                }
                Some(old) => {
                    let new = with_bias(old, bias, module.delta.scale);
                    tensors.insert(name, new);
                }
            }
        }
    }
    if problems.is_empty() {
        return Ok(tensors);
    }
    Err(Error::Adapter { path: adapter.path().to_owned(), problems })
}

fn missing(base: &Checkpoint, name: &str) -> String {
    let why = if is_tied(base) && name == "lm_head.weight" {
        ": its head is the matrix of its embeddings (tie_word_embeddings), which an adapter of the head would \
         change as well; save the base with a head of its own first"
    } else {
        ""
    };
    format!("tensor `{name}` is not in the base{why}")
}

fn is_tied(base: &Checkpoint) -> bool {
    base.config().get("tie_word_embeddings").and_then(serde_json::Value::as_bool) == Some(true)
}

/// Whether a tensor of the adapter is a second copy of another, for the second use of a tied matrix: PEFT's
/// `ensure_weight_tying`.
fn is_shared(base: &Checkpoint, adapter: &Adapter, name: &str) -> bool {
    let tensor = &adapter.whole()[name];
    let others = adapter.whole().iter().filter(|(other, _)| base.tensors().contains_key(*other));
    is_tied(base) && others.into_iter().any(|(_, other)| same_bytes(other, tensor))
}

/// How the weights that are not square are stored: (out, in) or (in, out).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Straight,
    Transposed,
    /// Both ways.
    Mixed,
}

impl Habit {
    /// PEFT's `fan_in_fan_out` in the file is the last module's: the shapes say more.
    fn of(adapter: &Adapter, tensors: &BTreeMap<String, Source>) -> Self {
        let mut seen = [false; 2];
        for (name, module) in adapter.modules().iter().filter(|(_, module)| !module.delta.embedding)
        {
            let Some(weight) = tensors.get(&format!("{name}.weight")) else { continue };
            let (m, n) = module.delta.dims();
            if m != n && matrix(weight.shape()) == (m, n) {
                seen[0] = true;
            } else if m != n && matrix(weight.shape()) == (n, m) {
                seen[1] = true;
            }
        }
        match seen {
            [true, true] => Self::Mixed,
            [straight, transposed] => {
                let by_setting = !straight && !transposed && adapter.config().fan_in_fan_out;
                if transposed || by_setting { Self::Transposed } else { Self::Straight }
            }
        }
    }
}

fn folded(name: &str, base: &Source, module: &Module, habit: Habit) -> Result<Source, String> {
    if !dtype::is_float(base.dtype()) {
        return Err(format!(
            "tensor `{name}` is {:?} in the base, expected floating point",
            base.dtype()
        ));
    }
    let transposed = is_transposed(name, base.shape(), &module.delta, habit)?;
    let magnitude = module.magnitude.clone();
    Ok(Source::Folded(Arc::new(Folded::new(
        base.clone(),
        module.delta.clone(),
        transposed,
        magnitude,
    ))))
}

fn is_transposed(
    name: &str,
    shape: &[usize],
    delta: &LowRank,
    habit: Habit,
) -> Result<bool, String> {
    let (m, n) = delta.dims();
    let found = matrix(shape);
    if shape.len() >= 2 && delta.embedding && found == (n, m) {
        return Ok(true);
    }
    // A convolution's kernel is part of A: its shape says that nothing is transposed.
    let kernel = delta.a.shape().len() > 2;
    let fits =
        shape.len() >= 2 && !delta.embedding && (!kernel || shape[1..] == delta.a.shape()[1..]);
    match (fits && found == (m, n), fits && !kernel && found == (n, m), habit) {
        (true, true, Habit::Mixed) => Err(format!(
            "tensor `{name}` is square, and other weights are stored both as (out, in) and as (in, out): nothing \
             tells which this one is"
        )),
        (true, true, habit) => Ok(habit == Habit::Transposed),
        (true, false, _) => Ok(false),
        (false, true, _) => Ok(true),
        (false, false, _) => Err(format!(
            "tensor `{name}` is {shape:?} in the base, expected {}: A is {:?} and B is {:?}",
            if delta.embedding { format!("{n} x {m}") } else { format!("{m} x {n}") },
            delta.a.shape(),
            delta.b.shape()
        )),
    }
}

/// `bias + s (bias of B)`, in the type of the base.
fn with_bias(base: &Source, bias: &Source, scale: f32) -> Source {
    let mut sum = vec![0.0; base.numel()];
    let mut added = vec![0.0; base.numel()];
    base.read(0, &mut sum);
    bias.read(0, &mut added);
    ops::axpy(&mut sum, scale, &added);
    let from = [base, bias].into_iter().flat_map(Source::stored).cloned().collect();
    Source::Made { values: sum.into(), shape: base.shape().to_vec(), from }.cast(base.dtype())
}
