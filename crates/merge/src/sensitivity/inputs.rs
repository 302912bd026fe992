//! Which tensors of the models are compared, where each stands, and which are left out and why.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::plan::layout::{Layout, Position, natural};
use crate::plan::quantised;
use crate::source::Source;
use crate::{Checkpoint, Error, dtype};

/// Where a tensor stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The stack of layers, such as `model.layers`; `None` outside of all.
    pub stack: Option<String>,
    /// The layer in it.
    pub layer: Option<usize>,
    /// The rest of its name without `.weight` and with `*` for numbers, such as experts' ones: `mlp.down_proj`.
    pub kind: String,
}

/// A tensor that was not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Whether a merge needs no decision about it: it is the same in all, empty, or read with another tensor.
    pub harmless: bool,
}

/// A tensor of all models.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) base: Option<Source>,
    pub(super) models: Vec<Source>,
}

/// The models with their labels, the base first where there is one.
pub(super) struct Inputs<'a> {
    pub(super) base: Option<&'a Checkpoint>,
    pub(super) models: &'a [&'a Checkpoint],
    pub(super) names: &'a [String],
}

impl<'a> Inputs<'a> {
    fn all(&self) -> Vec<(&'a str, &'a Checkpoint)> {
        let base = self.base.map(|base| ("the base", base));
        let names = self.names.iter().map(String::as_str);
        base.into_iter().chain(names.zip(self.models.iter().copied())).collect()
    }

    /// The tensors that all have, in the order of the model, and the others.
    pub(super) fn compare(&self) -> Result<(Vec<Compared>, Vec<LeftOut>), Error> {
        let all = self.all();
        let mut sources = Vec::new();
        for (_, checkpoint) in &all {
            sources.push(quantised::sources(checkpoint)?);
        }
        let names: BTreeSet<&String> =
            all.iter().flat_map(|(_, checkpoint)| checkpoint.tensors().keys()).collect();
        let layout = Layout::of(all[0].1);
        let (mut compared, mut left_out) = (Vec::new(), Vec::new());
        for name in names {
            if let Some((reason, harmless)) = reason(name, &all, &sources) {
                left_out.push(LeftOut { name: name.clone(), reason, harmless });
                continue;
            }
            let mut found = sources.iter().filter_map(|sources| sources.get(name).cloned());
            compared.push(Compared {
                name: name.clone(),
                place: Place::of(name),
                base: self.base.and_then(|_| found.next()),
                models: found.collect(),
            });
        }
        if compared.is_empty() {
            let first = left_out.first().map_or(String::new(), |left| {
                format!(" (tensor `{}`: {})", left.name, left.reason)
            });
            let reason = format!("no tensor that can be compared with the other models'{first}");
            return Err(Error::checkpoint(self.models[0].path(), reason));
        }
        let before = |tensor: &Compared| {
            tensor.place.layer.is_none() && layout.position(&tensor.name).1 == Position::Before
        };
        compared.sort_by(|a, b| {
            (!before(a), a.place.layer.is_none())
                .cmp(&(!before(b), b.place.layer.is_none()))
                .then_with(|| natural(&a.name, &b.name))
        });
        Ok((compared, left_out))
    }
}

/// Why a tensor is left out, and whether that is harmless; `None` for one that is compared.
fn reason(
    name: &str,
    all: &[(&str, &Checkpoint)],
    sources: &[BTreeMap<String, Source>],
) -> Option<(String, bool)> {
    let stored = |checkpoint: &Checkpoint| checkpoint.tensors().contains_key(name);
    for ((_, checkpoint), sources) in all.iter().zip(sources) {
        if stored(checkpoint) && !sources.contains_key(name) {
            let role = quantised::role(name, checkpoint);
            return Some((role.unwrap_or("belongs to another tensor").to_owned(), true));
        }
    }
    let missing: Vec<&str> =
        all.iter().filter(|(_, checkpoint)| !stored(checkpoint)).map(|(label, _)| *label).collect();
    if !missing.is_empty() {
        return Some((format!("missing in {}", missing.join(", ")), false));
    }
    let tensors: Vec<_> =
        all.iter().filter_map(|(label, c)| Some((label, c.tensors().get(name)?))).collect();
    let (_, first) = tensors.first()?;
    if tensors.iter().any(|(_, tensor)| tensor.shape() != first.shape()) {
        let shapes = tensors.iter().map(|(label, t)| format!("{:?} in {label}", t.shape()));
        let shapes = shapes.collect::<Vec<_>>().join(", ");
        return Some((format!("shapes differ: {shapes}"), false));
    }
    if first.numel() == 0 {
        return Some(("has no elements".to_owned(), true));
    }
    let (label, other) = tensors.iter().find(|(_, tensor)| !dtype::is_float(tensor.dtype()))?;
    let equal =
        tensors.iter().all(|(_, t)| t.dtype() == first.dtype() && t.bytes() == first.bytes());
    let words = if equal { "the same in all" } else { "not the same in all" };
    let dtype = dtype::stored_name(other.dtype());
    Some((format!("{dtype} in {label}, expected f32, f16, bf16 or fp8; {words}"), equal))
}

impl Place {
    /// Read off the name: the first number in it is the layer's.
    pub(super) fn of(name: &str) -> Self {
        let parts: Vec<&str> = name.split('.').collect();
        let layer = (1..parts.len().saturating_sub(1))
            .find_map(|at| Some((at, parts[at].parse::<usize>().ok()?)));
        let Some((at, layer)) = layer else {
            return Self { stack: None, layer: None, kind: kind(&parts) };
        };
        let stack = Some(parts[..at].join("."));
        Self { stack, layer: Some(layer), kind: kind(&parts[at + 1..]) }
    }
}

fn kind(parts: &[&str]) -> String {
    let parts = match parts {
        [front @ .., "weight"] if !front.is_empty() => front,
        all => all,
    };
    let numbered = |part: &str| part.parse::<u64>().is_ok();
    let parts = parts.iter().map(|part| if numbered(part) { "*" } else { *part });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_by_name() {
        let place = |stack: Option<&str>, layer, kind: &str| Place {
            stack: stack.map(str::to_owned),
            layer,
            kind: kind.to_owned(),
        };
        for (name, expected) in [
            (
                "model.layers.12.mlp.up_proj.weight",
                place(Some("model.layers"), Some(12), "mlp.up_proj"),
            ),
            ("h.0.attn.c_attn.bias", place(Some("h"), Some(0), "attn.c_attn.bias")),
            (
                "model.layers.3.mlp.experts.17.up_proj.weight",
                place(Some("model.layers"), Some(3), "mlp.experts.*.up_proj"),
            ),
            ("lm_head.weight", place(None, None, "lm_head")),
            ("weight", place(None, None, "weight")),
            ("betas.0", place(None, None, "betas.*")),
        ] {
            assert_eq!(Place::of(name), expected, "{name}");
        }
    }
}
