//! How much of a merge comes from each of its parents.
//!
//! A merge `y` is written as a sum `c_b b + sum c_i x_i` over the base `b` and the models `x_i` with weights `w_i`. With
//! `c_i` not below 0 where `y` is such a sum, the share of a model is its part of the sum of all `|c|`. By method:
//!
//! | method | `c` |
//! |---|---|
//! | `linear` | `w_i` |
//! | `task_arithmetic`, `ties`, `dare_*`, `della*`, `breadcrumbs*` | `y = b + lambda sum w_i (x_i - b)`: `lambda w_i`, divided by `sum w` where the method normalises, and the rest to 1 for `b`, at least 0 |
//! | `slerp` | `1 - t` and `t` |
//! | `nuslerp`, `multislerp` | `w_i`, none for `b` |
//! | `passthrough` | 1 for its one model |
//! | `karcher` | the same for each model, by definition |
//! | `sce`, `ram`, `ramplus_tl` | they depend on the tensors: the same for each model, none for `b` |
//! | `model_stock`, `nearswap`, `arcee_fusion`, others | they depend on the tensors: the same for each, `b` too |
//!
//! A base that is taken away more often than it is there, as for two models of weight 1, has no share of its own; it
//! still has that of an ancestor, through the models made from it. A model of negative weight counts with its size, since
//! it shaped the result. Which elements of a delta a density or a sign election keeps is not counted.
//!
//! Where the manifest has the tensors, each is counted with its own parents, filters and layer, and with the number
//! of its elements; otherwise gradients and filters count with their mean, slices with their layers and modules
//! alike.

use std::collections::BTreeMap;

use super::Basis;
use super::recipe::{At, Block, Recipe};
use crate::manifest::Manifest;

/// What a configuration says of one parent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) weight: Option<f64>,
    pub(super) share: f64,
}

/// A model among those of one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// Whether it is the base.
    pub base: bool,
    /// Its weight, if it has one.
    pub weight: Option<f64>,
}

/// The parameters of a tensor that are not one model's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shared {
    /// Where between the base (0) and the other model (1).
    pub t: Option<f64>,
    /// The factor on the sum of deltas.
    pub lambda: Option<f64>,
    /// Whether the weights are divided by their sum; `None` is the method's default.
    pub normalize: Option<bool>,
}

/// The share of each model in one tensor (see the [module](self)): they add up to 1. `true` with it if they are
/// equal because nothing tells them.
pub fn of_tensor(method: &str, models: &[Model], shared: Shared) -> (Vec<f64>, bool) {
    let c = coefficients(method, models, shared);
    let total: f64 = c.iter().flatten().map(|c| c.abs()).sum();
    match c {
        Some(c) if total > 0.0 && total.is_finite() => {
            (c.iter().map(|c| c.abs() / total).collect(), false)
        }
        _ => {
            let some = |model: &Model| !(model.base && has_no_own_part(method));
            let count = models.iter().filter(|m| some(m)).count();
            // A base alone is all there is.
            if count == 0 {
                return (vec![1.0 / models.len() as f64; models.len()], models.len() > 1);
            }
            let share = |m: &Model| if some(m) { 1.0 / count as f64 } else { 0.0 };
            (models.iter().map(share).collect(), count > 1 && method != "karcher")
        }
    }
}

/// Whether `c` of the base is 0 whatever the weights.
fn has_no_own_part(method: &str) -> bool {
    matches!(method, "nuslerp" | "multislerp" | "sce" | "ram" | "ramplus_tl")
}

/// `c` of each model, where the configuration tells it.
fn coefficients(method: &str, models: &[Model], shared: Shared) -> Option<Vec<f64>> {
    let normalize = match method {
        "ties" | "della" => true,
        "task_arithmetic" | "dare_linear" | "dare_ties" | "della_linear" | "breadcrumbs"
        | "breadcrumbs_ties" => false,
        "linear" => return models.iter().map(|model| model.weight).collect(),
        "nuslerp" | "multislerp" => {
            let own = |model: &Model| if model.base { Some(0.0) } else { model.weight };
            return models.iter().map(own).collect();
        }
        "slerp" if models.len() == 2 && models.iter().filter(|m| m.base).count() == 1 => {
            let t = shared.t?.clamp(0.0, 1.0);
            return Some(models.iter().map(|m| if m.base { 1.0 - t } else { t }).collect());
        }
        _ => return None,
    };
    let deltas = || models.iter().filter(|model| !model.base);
    let sum: f64 = deltas().map(|model| model.weight).sum::<Option<f64>>()?;
    let normalize = shared.normalize.unwrap_or(normalize) && sum.abs() > 1e-8;
    let scale = shared.lambda.unwrap_or(1.0) / if normalize { sum } else { 1.0 };
    let base = (1.0 - scale * sum).max(0.0);
    let c = |model: &Model| if model.base { base } else { scale * model.weight.unwrap_or(0.0) };
    Some(models.iter().map(c).collect())
}

/// The shares of a block's sources in one tensor, or in all.
fn of_block(
    method: &str,
    block: &Block<'_>,
    at: At<'_>,
    used: impl Fn(&str) -> bool,
) -> (Vec<f64>, bool) {
    let weight = |source| block.parameter(Some(source), "weight", at);
    let used: Vec<bool> = block.sources.iter().map(|source| used(&source.name)).collect();
    let sources = || block.sources.iter().zip(&used).filter_map(|(s, used)| used.then_some(s));
    let models: Vec<Model> =
        sources().map(|source| Model { base: source.base, weight: weight(source) }).collect();
    let shared = Shared {
        // mergekit takes it from the global or the slice's parameters; a source may repeat it.
        t: sources().chain(None).find_map(|s| block.parameter(Some(s), "t", at)),
        lambda: block.parameter(None, "lambda", at),
        normalize: block.parameter(None, "normalize", at).map(|flag| flag != 0.0),
    };
    let (shares, equal) = of_tensor(method, &models, shared);
    let mut shares = shares.into_iter();
    (
        used.iter().map(|used| if *used { shares.next().unwrap_or(0.0) } else { 0.0 }).collect(),
        equal,
    )
}

/// The parents of a recipe in its order, with their shares from the configuration alone.
pub(super) fn of_recipe(recipe: &Recipe<'_>) -> (Vec<Part>, Basis) {
    let mut sums = Sums::new(recipe);
    for module in &recipe.modules {
        let layers: usize = module.iter().filter_map(|block| block.layers).sum();
        for block in module {
            // Slices without layers choose embeddings and heads, of unknown size.
            let part = match block.layers {
                Some(own) if layers > 0 => own as f64 / layers as f64,
                _ => 1.0 / module.len() as f64,
            };
            let (shares, equal) = of_block(recipe.method, block, None, |_| true);
            sums.add(block, &shares, part);
            sums.equal |= equal && part > 0.0;
        }
    }
    let equal = sums.equal;
    (sums.parts(recipe), if equal { Basis::Equal } else { Basis::Weights })
}

/// The parents of a manifest in its order of inputs, with their shares tensor by tensor.
pub(super) fn of_manifest(recipe: &Recipe<'_>, manifest: &Manifest) -> (Vec<Part>, Basis) {
    let tensors = &manifest.output.contents.tensors;
    let layers = tensors.keys().filter_map(|name| layer(name)).max().map_or(0, |last| last + 1);
    let mut sums = Sums::new(recipe);
    for (name, tensor) in tensors {
        let size = tensor.shape.iter().map(|d| *d as f64).product::<f64>();
        let from = manifest.output.from.get(name).map_or(&[][..], Vec::as_slice);
        let names: Vec<&str> = from.iter().map(|i| manifest.inputs[*i].name.as_str()).collect();
        let mut found = 0;
        let blocks: Vec<_> = recipe.modules.iter().filter_map(|m| place(m, name, layers)).collect();
        let known = |block: &Block<'_>| {
            block.sources.iter().any(|source| names.contains(&source.name.as_str()))
        };
        let blocks: Vec<_> = blocks.into_iter().filter(|(block, _)| known(block)).collect();
        // One parent has it all; and a parent may be there for the tokenizer alone.
        if names.len() > 1 {
            for (block, t) in &blocks {
                let at = Some((name.as_str(), *t));
                let (shares, equal) =
                    of_block(recipe.method, block, at, |source| names.contains(&source));
                sums.add(block, &shares, size / blocks.len() as f64);
                sums.equal |= equal;
                found += 1;
            }
        }
        if found == 0 {
            for name in &names {
                *sums.shares.entry((*name).to_owned()).or_default() += size / names.len() as f64;
            }
            sums.equal |= names.len() > 1;
        }
    }
    let equal = sums.equal;
    let mut parts = sums.parts(recipe);
    // In the order of the inputs, which have every model.
    let mut ordered: Vec<Part> = Vec::new();
    for input in &manifest.inputs {
        let known = parts.iter().position(|part| part.name == input.name);
        ordered.push(match known {
            Some(place) => parts.remove(place),
            None => Part { name: input.name.clone(), weight: None, share: 0.0 },
        });
    }
    (ordered, if equal { Basis::Equal } else { Basis::Tensors })
}

/// The number of a tensor's layer: the first part of its name that is one.
fn layer(tensor: &str) -> Option<usize> {
    tensor.split('.').find_map(|part| part.parse().ok())
}

/// The block of a module that a tensor belongs to, and its layer's place there from 0 to 1. Tensors outside
/// layers are at 0: embeddings in the first slice, others in the last.
fn place<'a, 'b>(
    module: &'a [Block<'b>],
    tensor: &str,
    layers: usize,
) -> Option<(&'a Block<'b>, f64)> {
    let at = |index: usize, count: usize| match count {
        0 | 1 => 1.0,
        _ => index as f64 / (count - 1) as f64,
    };
    let Some(mut index) = layer(tensor) else {
        let block = if tensor.contains("embed") { module.first() } else { module.last() };
        return block.map(|block| (block, 0.0));
    };
    for block in module {
        let count = block.layers.unwrap_or(layers);
        if index < count {
            return Some((block, at(index, count)));
        }
        index -= count;
    }
    None
}

/// Shares by name while they add up.
struct Sums {
    shares: BTreeMap<String, f64>,
    equal: bool,
}

impl Sums {
    fn new(recipe: &Recipe<'_>) -> Self {
        let names = recipe.blocks().flat_map(|block| &block.sources);
        Self { shares: names.map(|source| (source.name.clone(), 0.0)).collect(), equal: false }
    }

    fn add(&mut self, block: &Block<'_>, shares: &[f64], part: f64) {
        for (source, share) in block.sources.iter().zip(shares) {
            *self.shares.entry(source.name.clone()).or_default() += share * part;
        }
    }

    /// Each model once, in the order of the recipe.
    fn parts(mut self, recipe: &Recipe<'_>) -> Vec<Part> {
        let total: f64 = self.shares.values().sum();
        let mut parts = Vec::new();
        for (block, source) in recipe.blocks().flat_map(|b| b.sources.iter().map(move |s| (b, s))) {
            if let Some(share) = self.shares.remove(&source.name) {
                let own = !source.base || recipe.method == "linear";
                let weight = block.parameter(Some(source), "weight", None).filter(|_| own);
                let share = if total > 0.0 { share / total } else { 0.0 };
                parts.push(Part { name: source.name.clone(), weight, share });
            }
        }
        for (name, share) in self.shares {
            let share = if total > 0.0 { share / total } else { 0.0 };
            parts.push(Part { name, weight: None, share });
        }
        parts
    }
}
