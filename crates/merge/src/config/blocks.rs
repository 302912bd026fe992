//! All `parameters` of a configuration, and whether a method knows them.

use super::key_path::{index, key};
use super::reader::Problems;
use super::suggestion::did_you_mean;
use super::types::{Body, InputModel, MergeConfig, ModuleBody, OutputSlice};
use super::{Kind, Parameters};
use crate::Error;

/// What a `parameters` block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One model, or one source of a slice.
    Input,
    /// A slice.
    Slice,
    /// A module.
    Module,
    /// The whole configuration.
    Global,
}

/// A `parameters` block and where it stands.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    /// Its key path, such as `models[1].parameters`; the line is [`MergeConfig::line`] of it.
    pub path: String,
    /// What it belongs to.
    pub scope: Scope,
    /// What it says.
    pub parameters: &'a Parameters,
}

/// A parameter that a method knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// Its name.
    pub name: &'a str,
    /// What its values are.
    pub kind: Kind,
    /// Whether each input has its own value. One that all share is nothing that a single model can set.
    pub per_input: bool,
}

impl MergeConfig {
    /// Every `parameters` block that says something, inputs before what they are part of.
    pub fn parameter_blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        match &self.body {
            Body::Models(models) => in_models("models", models, &mut blocks),
            Body::Slices(slices) => in_slices("slices", slices, &mut blocks),
            Body::Modules(modules) => {
                for (name, module) in modules {
                    let path = key("modules", name);
                    match &module.body {
                        ModuleBody::Models(models) => {
                            in_models(&key(&path, "models"), models, &mut blocks);
                        }
                        ModuleBody::Slices(slices) => {
                            in_slices(&key(&path, "slices"), slices, &mut blocks);
                        }
                    }
                    push(&mut blocks, &path, Scope::Module, &module.parameters);
                }
            }
        }
        push(&mut blocks, "", Scope::Global, &self.parameters);
        blocks
    }

    /// Whether `method` knows every parameter, takes every value of it, and takes it where it stands.
    ///
    /// # Errors
    /// [`Error::ConfigFile`] with all that is wrong: unknown names, with a suggestion; values of another
    /// kind; shared parameters that are set for a single model, which would have no effect.
    pub fn check_parameters(&self, method: &str, known: &[Known<'_>]) -> Result<(), Error> {
        let mut problems = Problems::default();
        for block in self.parameter_blocks() {
            for (name, setting) in &block.parameters.0 {
                let path = key(&block.path, name);
                let line = self.line(&path).unwrap_or(0);
                let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
                    let near = did_you_mean(name, known.iter().map(|parameter| parameter.name));
                    let names: Vec<&str> = known.iter().map(|parameter| parameter.name).collect();
                    let all = if names.is_empty() { "none".into() } else { names.join(", ") };
                    let problem =
                        format!("`{path}` is no parameter of {method}{near}, expected of: {all}");
                    problems.add(line, problem);
                    continue;
                };
                if block.scope == Scope::Input && !parameter.per_input {
                    let problem = format!(
                        "`{path}` is set for one model, expected in the `parameters` of the slice, the \
                         module or the configuration: {method} has one {name} for all models"
                    );
                    problems.add(line, problem);
                }
                for (below, scalar) in setting.scalars() {
                    if let Err(found) = scalar.convert(parameter.kind) {
                        let path = format!("{path}{below}");
                        let line = self.line(&path).unwrap_or(line);
                        let kind = parameter.kind;
                        problems.add(line, format!("`{path}` is {found}, expected {kind}"));
                    }
                }
            }
        }
        let file = self.origin.file.clone();
        problems.finish().map_err(|reason| Error::ConfigFile { path: file, reason })
    }

    /// The blocks that [`resolve`](super::resolve) asks, the nearest first: those of the source or model
    /// (for a per-input parameter), of the slice, of the module, and the configuration's own.
    pub fn scopes<'a>(
        &'a self,
        module: Option<&'a Parameters>,
        slice: Option<&'a Parameters>,
        input: Option<&'a Parameters>,
    ) -> Vec<&'a Parameters> {
        input.into_iter().chain(slice).chain(module).chain([&self.parameters]).collect()
    }
}

fn in_models<'a>(path: &str, models: &'a [InputModel], blocks: &mut Vec<Block<'a>>) {
    for (i, input) in models.iter().enumerate() {
        push(blocks, &index(path, i), Scope::Input, &input.parameters);
    }
}

fn in_slices<'a>(path: &str, slices: &'a [OutputSlice], blocks: &mut Vec<Block<'a>>) {
    for (i, slice) in slices.iter().enumerate() {
        let path = index(path, i);
        for (i, source) in slice.sources.iter().enumerate() {
            push(blocks, &index(&key(&path, "sources"), i), Scope::Input, &source.parameters);
        }
        push(blocks, &path, Scope::Slice, &slice.parameters);
    }
}

fn push<'a>(blocks: &mut Vec<Block<'a>>, above: &str, scope: Scope, parameters: &'a Parameters) {
    if !parameters.is_empty() {
        blocks.push(Block { path: key(above, "parameters"), scope, parameters });
    }
}
