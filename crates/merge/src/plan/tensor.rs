//! One output tensor: which sources, which parameters, which type.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::input::Input;
use super::output::{Origin, Output};
use super::pieces::Piece;
use super::problem::{Problem, ProblemKind};
use super::{Arithmetic, Missing, PlanOptions};
use crate::config::{Kind as SettingKind, MergeConfig, Parameters, Scalar, resolve};
use crate::dtype;
use crate::methods::{Base, Kind, Method, Parameter, Resolved, Scope, Value};
use crate::source::Source;

/// What is needed to look at any tensor of a plan.
pub(super) struct Context<'a> {
    pub(super) config: &'a MergeConfig,
    pub(super) inputs: &'a [Input],
    pub(super) method: &'a Method,
    pub(super) options: &'a PlanOptions,
    pub(super) vocabulary: Option<&'a super::vocabulary::Vocabulary>,
}

/// An input's tensor for a piece.
struct Part<'p> {
    input: usize,
    name: &'p str,
    source: Source,
    parameters: Option<&'p Parameters>,
    is_base: bool,
}

impl Context<'_> {
    /// The output for a piece; `None` where it is left out on request, or where a problem was found.
    pub(super) fn output(
        &self,
        piece: &Piece<'_, '_>,
        problems: &mut Vec<Problem>,
    ) -> Option<Output> {
        let mut parts = self.parts(piece, problems)?;
        self.vocabulary(piece, &mut parts, problems)?;
        self.same_shape(piece, &parts, problems)?;
        let shape = parts[0].source.shape().to_vec();
        if parts.iter().any(|part| !dtype::is_float(part.source.dtype())) {
            return self.buffer(piece, &parts, problems);
        }
        let incomplete = parts.len() < piece.slice.sources.len();
        if incomplete && parts.len() == 1 {
            return Some(self.alone(piece, &parts[0]));
        }
        let resolved = match self.parameters(piece, &parts) {
            Ok(resolved) => resolved,
            Err(found) => {
                problems.extend(found);
                return None;
            }
        };
        let method = match self.method.with(&resolved) {
            Ok(method) => method,
            Err(error) => {
                let named = |input: usize| self.input_name(piece, &parts, input);
                let text = with_names(&error.to_string(), named);
                problems.push(Problem::new(ProblemKind::Parameter, text).of(&piece.name));
                return None;
            }
        };
        let cast = |source: Source| match self.config.dtype {
            Some(dtype) => source.cast(dtype),
            None => source,
        };
        let sources: Vec<Source> = parts.iter().map(|part| cast(part.source.clone())).collect();
        let common = sources.iter().map(Source::dtype).reduce(dtype::promote)?;
        let common = if dtype::is_written(common) { common } else { Dtype::BF16 };
        let stored = self.config.out_dtype.unwrap_or(common);
        let (mut base, mut inputs) = (None, Vec::new());
        for (part, source) in parts.iter().zip(sources) {
            if part.is_base && self.method.base != Base::Ignored {
                base = Some((part.input, source));
            } else {
                inputs.push((part.input, source));
            }
        }
        if let Some(index) = method.copies()
            && let (input, Source::Stored(tensor)) = &inputs[index]
            && tensor.dtype() == stored
        {
            let origin = Origin::Copy { input: *input, tensor: tensor.clone() };
            return Some(Output { name: piece.name.clone(), shape, dtype: stored, origin });
        }
        let arithmetic = match self.options.arithmetic {
            Arithmetic::Float32 => Dtype::F32,
            Arithmetic::Input => common,
        };
        let origin = Origin::Merge { method, parameters: resolved, base, inputs, arithmetic };
        Some(Output { name: piece.name.clone(), shape, dtype: stored, origin })
    }

    /// The sources of a piece that are there.
    fn parts<'p>(
        &self,
        piece: &'p Piece<'_, '_>,
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<Part<'p>>> {
        let mut parts = Vec::new();
        let mut missing = Vec::new();
        for (source, name) in piece.slice.sources.iter().zip(&piece.names) {
            let input = &self.inputs[source.input];
            let found = match input.sources.get(name) {
                Some(found) => Some(found.clone()),
                None => tied(input, name),
            };
            match found {
                Some(found) => parts.push(Part {
                    input: source.input,
                    name,
                    source: found,
                    parameters: source.parameters,
                    is_base: piece.slice.base == Some(source.input),
                }),
                None => missing.push(input.name.as_str()),
            }
        }
        if missing.is_empty() {
            return Some(parts);
        }
        match self.options.missing {
            Missing::Error => {
                let there = parts.first().map_or("", |part| self.inputs[part.input].name.as_str());
                let text = format!(
                    "in {there} and not in {} (see `missing`: union or intersection)",
                    missing.join(", ")
                );
                problems.push(Problem::new(ProblemKind::Missing, text).of(&piece.name));
                None
            }
            Missing::Union => {
                let base_missing = self.method.base == Base::Required
                    && parts.len() > 1
                    && !parts.iter().any(|part| part.is_base);
                if base_missing {
                    let text = format!(
                        "missing from the base, which {} needs, and in several inputs",
                        self.method.name
                    );
                    problems.push(Problem::new(ProblemKind::Missing, text).of(&piece.name));
                    return None;
                }
                Some(parts)
            }
            Missing::Intersection => None,
        }
    }

    /// Maps the rows of vocabulary tensors to the merged vocabulary.
    fn vocabulary(
        &self,
        piece: &Piece<'_, '_>,
        parts: &mut [Part<'_>],
        problems: &mut Vec<Problem>,
    ) -> Option<()> {
        let Some(vocabulary) = self.vocabulary else { return Some(()) };
        let all = |part: &Part<'_>| self.inputs[part.input].is_vocabulary(part.name, &part.source);
        if !parts.iter().all(all) {
            return Some(());
        }
        let sources: Vec<(usize, Source)> =
            parts.iter().map(|part| (part.input, part.source.clone())).collect();
        match vocabulary.mapped(&sources) {
            Ok(mapped) => {
                for (part, source) in parts.iter_mut().zip(mapped) {
                    part.source = source;
                }
                Some(())
            }
            Err(reason) => {
                problems.push(Problem::new(ProblemKind::Vocabulary, reason).of(&piece.name));
                None
            }
        }
    }

    fn same_shape(
        &self,
        piece: &Piece<'_, '_>,
        parts: &[Part<'_>],
        problems: &mut Vec<Problem>,
    ) -> Option<()> {
        let first = parts.first()?;
        let other = parts.iter().find(|part| part.source.shape() != first.source.shape());
        let Some(other) = other else { return Some(()) };
        let vocabulary = [first, other]
            .iter()
            .all(|part| self.inputs[part.input].is_vocabulary(part.name, &part.source));
        let hint = if vocabulary {
            "; their vocabularies differ: set `tokenizer_source: union` (or base, or a model)"
        } else {
            ""
        };
        let text = format!(
            "{:?} in {} and {:?} in {}{hint}",
            first.source.shape(),
            self.inputs[first.input].name,
            other.source.shape(),
            self.inputs[other.input].name,
        );
        let kind = if vocabulary { ProblemKind::Vocabulary } else { ProblemKind::Shape };
        problems.push(Problem::new(kind, text).of(&piece.name));
        None
    }

    /// Integers and booleans: the same in all inputs, or nothing that could be merged.
    fn buffer(
        &self,
        piece: &Piece<'_, '_>,
        parts: &[Part<'_>],
        problems: &mut Vec<Problem>,
    ) -> Option<Output> {
        let stored = |part: &Part<'_>| match &part.source {
            Source::Stored(tensor) => Some(tensor.clone()),
            _ => None,
        };
        let first = stored(&parts[0])?;
        for part in parts {
            let same = stored(part).is_some_and(|other| {
                other.dtype() == first.dtype() && other.bytes() == first.bytes()
            });
            if !same {
                let text = format!(
                    "{} in {} and {} in {}: what is not floating-point is only taken where all inputs have the same",
                    dtype::name(first.dtype()),
                    self.inputs[parts[0].input].name,
                    dtype::name(part.source.dtype()),
                    self.inputs[part.input].name,
                );
                problems.push(Problem::new(ProblemKind::Dtype, text).of(&piece.name));
                return None;
            }
        }
        Some(Output {
            name: piece.name.clone(),
            shape: first.shape().to_vec(),
            dtype: first.dtype(),
            origin: Origin::Copy { input: parts[0].input, tensor: first },
        })
    }

    /// A tensor that one input alone has, as it is there.
    fn alone(&self, piece: &Piece<'_, '_>, part: &Part<'_>) -> Output {
        let source = match self.config.dtype {
            Some(dtype) => part.source.clone().cast(dtype),
            None => part.source.clone(),
        };
        let found = source.dtype();
        let found = if dtype::is_written(found) { found } else { Dtype::BF16 };
        let dtype = self.config.out_dtype.unwrap_or(found);
        let shape = source.shape().to_vec();
        let origin = match &source {
            Source::Stored(tensor) if tensor.dtype() == dtype => {
                Origin::Copy { input: part.input, tensor: tensor.clone() }
            }
            _ => Origin::Merge {
                method: Box::new(crate::methods::Linear { weight: vec![1.0], normalize: false }),
                parameters: Resolved::default(),
                base: None,
                inputs: vec![(part.input, source)],
                arithmetic: Dtype::F32,
            },
        };
        Output { name: piece.name.clone(), shape, dtype, origin }
    }

    /// The model that is the `input`-th of a method.
    fn input_name(&self, piece: &Piece<'_, '_>, parts: &[Part<'_>], input: usize) -> String {
        let apart = |part: &&Part<'_>| part.is_base && self.method.base != Base::Ignored;
        let found = parts.iter().filter(|part| !apart(part)).nth(input);
        found.map_or_else(|| piece.name.clone(), |part| self.inputs[part.input].name.clone())
    }

    /// The parameters of the method for a piece, from the nearest scope that gives them.
    fn parameters(
        &self,
        piece: &Piece<'_, '_>,
        parts: &[Part<'_>],
    ) -> Result<Resolved, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut one =
            |parameter: &Parameter, tensor: &str, own: Option<&Parameters>, whose: &str| {
                let scopes: Vec<&Parameters> =
                    own.into_iter().chain(piece.slice.scopes.iter().copied()).collect();
                let kind = match parameter.kind {
                    Kind::Number => SettingKind::Number,
                    Kind::Flag => SettingKind::Boolean,
                    Kind::Choice(_) => SettingKind::Text,
                };
                let fail = |text: String| Problem::new(ProblemKind::Parameter, text);
                let found = match resolve(parameter.name, kind, tensor, piece.t, &scopes) {
                    Ok(found) => found,
                    Err(error) => {
                        problems.push(
                            fail(format!("{}{whose}: {error}", piece.slice.key())).of(tensor),
                        );
                        return None;
                    }
                };
                let value = match found {
                    None => parameter.default,
                    Some(scalar) => value(parameter.kind, &scalar),
                };
                if value.is_none() {
                    let name = parameter.name;
                    problems.push(fail(match parameter.kind {
                        Kind::Choice(words) => {
                            format!(
                                "`{name}` is unknown for `{tensor}`, expected {}",
                                words.join(" or ")
                            )
                        }
                        _ => format!(
                            "`{name}` is missing{whose} for `{tensor}`: {} needs it in {}",
                            self.method.name,
                            piece.slice.key()
                        ),
                    }));
                }
                value
            };
        let mut resolved = Resolved::default();
        for parameter in self.method.parameters.iter().filter(|p| p.scope == Scope::Shared) {
            if let Some(value) = one(parameter, &piece.name, None, "") {
                resolved.shared.insert(parameter.name, value);
            }
        }
        for part in parts {
            if part.is_base && self.method.base != Base::Ignored {
                continue;
            }
            let mut values = BTreeMap::new();
            let whose = format!(" of {}", self.inputs[part.input].name);
            for parameter in self.method.parameters.iter().filter(|p| p.scope == Scope::PerInput) {
                if let Some(value) = one(parameter, part.name, part.parameters, &whose) {
                    values.insert(parameter.name, value);
                }
            }
            resolved.inputs.push(values);
        }
        if problems.is_empty() { Ok(resolved) } else { Err(problems) }
    }
}

/// A method's message with the models' names in the place of `inputs[N].`.
fn with_names(message: &str, name: impl Fn(usize) -> String) -> String {
    let Some((before, rest)) = message.split_once("`inputs[") else { return message.into() };
    let Some((number, rest)) = rest.split_once("].") else { return message.into() };
    match number.parse() {
        Ok(input) => format!("{before}{}: `{rest}", name(input)),
        Err(_) => message.into(),
    }
}

fn value(kind: Kind, scalar: &Scalar) -> Option<Value> {
    match kind {
        Kind::Number => scalar.number().map(Value::Number),
        Kind::Flag => scalar.boolean().map(Value::Flag),
        Kind::Choice(words) => match scalar {
            Scalar::Text(text) => {
                words.iter().find(|word| *word == text).map(|word| Value::Choice(word))
            }
            _ => None,
        },
    }
}

/// The head of a model that has none of its own: its embeddings.
fn tied(input: &Input, name: &str) -> Option<Source> {
    const HEADS: [&str; 3] = ["lm_head.weight", "embed_out.weight", "output.weight"];
    if !HEADS.iter().any(|head| name.ends_with(head)) {
        return None;
    }
    input.embeddings().map(|(_, source)| source.clone())
}
