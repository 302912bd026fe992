//! From a configuration to what each output tensor is made of: names, layers, depths.

use std::collections::BTreeSet;
use std::ops::Range;

use super::input::Input;
use super::layout::{Layout, Position, natural};
use super::problem::{Problem, ProblemKind};
use crate::config::{Body, InputModel, MergeConfig, ModelRef, ModuleBody, OutputSlice, Parameters};

/// A slice of the output: layers of one or several inputs, side by side.
#[derive(Debug)]
pub(super) struct Slice<'c> {
    pub(super) sources: Vec<SliceSource<'c>>,
    pub(super) base: Option<usize>,
    /// Where parameters are looked for behind the source's own: slice, module, configuration.
    pub(super) scopes: Vec<&'c Parameters>,
    /// How errors name it.
    key: String,
}

/// The part of one input in a slice.
#[derive(Debug)]
pub(super) struct SliceSource<'c> {
    pub(super) input: usize,
    /// Its layers; `None` for all.
    layers: Option<Range<usize>>,
    pub(super) parameters: Option<&'c Parameters>,
}

/// One output tensor before it is looked at.
#[derive(Debug)]
pub(super) struct Piece<'s, 'c> {
    pub(super) name: String,
    pub(super) slice: &'s Slice<'c>,
    /// Its name in each source of the slice.
    pub(super) names: Vec<String>,
    /// The depth in its slice, from 0 to 1.
    pub(super) t: f64,
}

/// The layers of a module of the output: for each, the input and its layer there.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) module: usize,
    pub(super) layers: Vec<(usize, usize)>,
}

/// A module of the output with its slices.
#[derive(Debug)]
pub(super) struct Section<'c> {
    /// The module of the output's model; `None` for all of them.
    module: Option<usize>,
    slices: Vec<Slice<'c>>,
}

/// What a configuration asks for, part by part.
pub(super) fn sections<'c>(
    config: &'c MergeConfig,
    inputs: &[Input],
    donor: &Layout,
    problems: &mut Vec<Problem>,
) -> Vec<Section<'c>> {
    let find = |model: &ModelRef| inputs.iter().position(|input| input.reference == *model);
    let base = config.base_model.as_ref().and_then(find);
    let whole = |models: &'c [InputModel], scopes: Vec<&'c Parameters>, key: &str| {
        let mut sources: Vec<SliceSource<'c>> = models
            .iter()
            .filter_map(|model| {
                let input = find(&model.model)?;
                Some(SliceSource { input, layers: None, parameters: Some(&model.parameters) })
            })
            .collect();
        // As mergekit: the base is an input, named or not.
        if let Some(base) = base
            && sources.iter().all(|source| source.input != base)
        {
            sources.push(SliceSource { input: base, layers: None, parameters: None });
        }
        vec![Slice { sources, base, scopes, key: key.into() }]
    };
    let sliced = |slices: &'c [OutputSlice], scopes: Vec<&'c Parameters>, key: &str| {
        let slice = |(index, slice): (usize, &'c OutputSlice)| Slice {
            sources: slice
                .sources
                .iter()
                .filter_map(|source| {
                    Some(SliceSource {
                        input: find(&source.model)?,
                        layers: Some(source.layer_range.clone()),
                        parameters: Some(&source.parameters),
                    })
                })
                .collect(),
            base: slice.base_model.as_ref().and_then(find).or(base),
            scopes: std::iter::once(&slice.parameters).chain(scopes.iter().copied()).collect(),
            key: format!("{key}[{index}]"),
        };
        slices.iter().enumerate().map(slice).collect::<Vec<_>>()
    };
    let global = &config.parameters;
    match &config.body {
        Body::Models(models) => {
            vec![Section { module: None, slices: whole(models, vec![global], "models") }]
        }
        Body::Slices(slices) => {
            if donor.modules.len() > 1 {
                let names = donor.module_names().join(", ");
                let text = format!(
                    "`slices` are for models of one module, this one has {names}: name the slices of each under `modules`"
                );
                problems.push(Problem::new(ProblemKind::Layers, text));
            }
            vec![Section { module: None, slices: sliced(slices, vec![global], "slices") }]
        }
        Body::Modules(modules) => modules
            .iter()
            .filter_map(|(name, module)| {
                let Some(index) = donor.module(name) else {
                    let names = donor.module_names();
                    let near = crate::config::suggestion(name, names.iter().map(String::as_str))
                        .map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
                    let text = format!(
                        "`modules.{name}`: the model has no such module{near}; it has {}",
                        names.join(", ")
                    );
                    problems.push(Problem::new(ProblemKind::Layers, text));
                    return None;
                };
                let scopes = vec![&module.parameters, global];
                let slices = match &module.body {
                    ModuleBody::Models(models) => {
                        whole(models, scopes, &format!("modules.{name}.models"))
                    }
                    ModuleBody::Slices(slices) => {
                        sliced(slices, scopes, &format!("modules.{name}.slices"))
                    }
                };
                Some(Section { module: Some(index), slices })
            })
            .collect(),
    }
}

impl<'c> Section<'c> {
    pub(super) fn slices(&self) -> &[Slice<'c>] {
        &self.slices
    }

    /// Every output tensor of this section, and the layers that the configuration chooses, where it does.
    pub(super) fn pieces<'s>(
        &'s self,
        inputs: &[Input],
        donor: &Layout,
        problems: &mut Vec<Problem>,
    ) -> (Vec<Piece<'s, 'c>>, Option<Taken>) {
        let sliced = self
            .slices
            .iter()
            .any(|slice| slice.sources.iter().any(|source| source.layers.is_some()));
        if sliced {
            let (pieces, layers) = self.layered(inputs, donor, problems);
            (pieces, Some(Taken { module: self.module.unwrap_or(0), layers }))
        } else {
            (self.whole(inputs, donor), None)
        }
    }

    fn holds(&self, module: usize) -> bool {
        self.module.is_none_or(|wanted| wanted == module)
    }

    /// All tensors of all sources.
    fn whole<'s>(&'s self, inputs: &[Input], donor: &Layout) -> Vec<Piece<'s, 'c>> {
        let Some(slice) = self.slices.first() else { return Vec::new() };
        let mut names: BTreeSet<String> = BTreeSet::new();
        for source in &slice.sources {
            let input = &inputs[source.input];
            names.extend(input.sources.keys().map(|name| input.outer_name(name, donor)));
        }
        let piece = |name: String| {
            let (module, position) = donor.position(&name);
            let layers = donor.modules.get(module).and_then(|module| module.stack.as_ref());
            let t = match (position, layers) {
                (Position::Layer(layer, _), Some(stack)) => depth(layer, stack.layers),
                _ => 0.0,
            };
            self.holds(module).then(|| Piece {
                names: slice.names(inputs, donor, &name),
                name,
                slice,
                t,
            })
        };
        names.into_iter().filter_map(piece).collect()
    }

    /// The layers that the slices choose, numbered anew; what stands before the layers comes from the
    /// first slice, what stands behind them from the last.
    fn layered<'s>(
        &'s self,
        inputs: &[Input],
        donor: &Layout,
        problems: &mut Vec<Problem>,
    ) -> (Vec<Piece<'s, 'c>>, Vec<(usize, usize)>) {
        let module = self.module.unwrap_or(0);
        let mut pieces = Vec::new();
        let mut taken = Vec::new();
        let Some(out) = donor.modules.get(module).and_then(|module| module.stack.as_ref()) else {
            let text = "layers are chosen, and no stack of layers was found whose number is in config.json";
            problems.push(Problem::new(ProblemKind::Layers, text));
            return (pieces, taken);
        };
        for slice in &self.slices {
            if !slice.check(inputs, module, problems) {
                continue;
            }
            let ranges: Vec<Range<usize>> =
                slice.sources.iter().map(|source| source.layers.clone().unwrap_or(0..0)).collect();
            let count = ranges.first().map_or(0, ExactSizeIterator::len);
            for offset in 0..count {
                let mut rests: BTreeSet<&str> = BTreeSet::new();
                for (source, range) in slice.sources.iter().zip(&ranges) {
                    rests.extend(inputs[source.input].layer(module, range.start + offset));
                }
                let number = taken.len();
                for rest in rests {
                    let names = slice
                        .sources
                        .iter()
                        .zip(&ranges)
                        .map(|(source, range)| {
                            let stack = inputs[source.input].stack(module);
                            let prefix = stack.map_or(out.prefix.as_str(), |stack| &stack.prefix);
                            format!("{prefix}.{}.{rest}", range.start + offset)
                        })
                        .collect();
                    let name = format!("{}.{number}.{rest}", out.prefix);
                    pieces.push(Piece { name, slice, names, t: depth(offset, count) });
                }
                let first = slice.sources.first().map_or(0, |source| source.input);
                taken.push((first, ranges.first().map_or(0, |range| range.start) + offset));
            }
        }
        let ends = [(self.slices.first(), true), (self.slices.last(), false)];
        for (slice, before) in ends {
            let Some(slice) = slice else { continue };
            let mut names: BTreeSet<String> = BTreeSet::new();
            for source in &slice.sources {
                let input = &inputs[source.input];
                names.extend(input.sources.keys().map(|name| input.outer_name(name, donor)));
            }
            for name in names {
                let (of, position) = donor.position(&name);
                let wanted = match position {
                    Position::Before => before,
                    Position::After => !before,
                    Position::Layer(..) => false,
                };
                if wanted && self.holds(of) {
                    let names = slice.names(inputs, donor, &name);
                    pieces.push(Piece { name, slice, names, t: 0.0 });
                }
            }
        }
        (pieces, taken)
    }
}

impl SliceSource<'_> {
    /// Whether the configuration chooses layers of it.
    pub(super) fn is_sliced(&self) -> bool {
        self.layers.is_some()
    }
}

impl Slice<'_> {
    /// The name of an output tensor in each source.
    fn names(&self, inputs: &[Input], donor: &Layout, name: &str) -> Vec<String> {
        self.sources.iter().map(|source| inputs[source.input].inner_name(name, donor)).collect()
    }

    /// Whether every range lies within its model.
    fn check(&self, inputs: &[Input], module: usize, problems: &mut Vec<Problem>) -> bool {
        let mut fine = true;
        for (index, source) in self.sources.iter().enumerate() {
            let input = &inputs[source.input];
            let layers = input.stack(module).map_or(0, |stack| stack.layers);
            if let Some(range) = &source.layers
                && range.end > layers
            {
                let text = format!(
                    "`{}.sources[{index}].layer_range` is [{}, {}], {} has {layers} layers (0 to {})",
                    self.key,
                    range.start,
                    range.end,
                    input.name,
                    layers.saturating_sub(1)
                );
                problems.push(Problem::new(ProblemKind::Layers, text));
                fine = false;
            }
        }
        fine
    }

    /// How errors name it.
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

/// mergekit's depth: from 0 in the first layer of a slice to 1 in its last; a slice of one layer is at 1.
fn depth(layer: usize, layers: usize) -> f64 {
    if layers > 1 { layer as f64 / (layers - 1) as f64 } else { 1.0 }
}

/// The order in which tensors are written.
pub(super) fn in_order(pieces: &mut [Piece<'_, '_>]) {
    pieces.sort_by(|a, b| natural(&a.name, &b.name));
}
