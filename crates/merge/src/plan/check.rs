//! What can be said of a configuration before its tensors are looked at.

use serde_json::Value;

use super::input::Input;
use super::pieces::Slice;
use super::problem::{Problem, ProblemKind};
use crate::Error;
use crate::config::{Kind as SettingKind, Known, MergeConfig, suggestion};
use crate::methods::{Base, Kind, Method, Parameter, Registry, Scope};

/// The method of a configuration, which knows all its parameters.
pub(super) fn method<'r>(
    config: &MergeConfig,
    registry: &'r Registry,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Result<&'r Method, Error> {
    let name = config.merge_method.as_str();
    let Some(method) = registry.get(name) else {
        let near = suggestion(name, registry.names())
            .map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
        let names: Vec<&str> = registry.names().collect();
        let reason =
            format!("`merge_method` is `{name}`{near}, expected one of {}", names.join(", "));
        return Err(config.error("merge_method", reason));
    };
    let known = |parameter: &Parameter| Known {
        name: parameter.name,
        kind: match parameter.kind {
            Kind::Number => SettingKind::Number,
            Kind::Flag => SettingKind::Boolean,
            Kind::Choice(_) => SettingKind::Text,
        },
        per_input: parameter.scope == Scope::PerInput,
    };
    let mut all: Vec<Known<'_>> = method.parameters.iter().map(known).collect();
    for block in config.parameter_blocks() {
        for parameter in method.parameters.iter().filter(|parameter| !parameter.used) {
            if block.parameters.get(parameter.name).is_some() {
                let (path, name) = (&block.path, parameter.name);
                warnings.push(format!("`{path}.{name}` has no effect on {}", method.name));
            }
        }
    }
    // Files often carry parameters of another method along: said, and not refused.
    for block in config.parameter_blocks() {
        for (name, _) in &block.parameters.0 {
            if all.iter().any(|known| known.name == name) {
                continue;
            }
            let other = registry.methods().find_map(|other| {
                other.parameters.iter().find(|p| p.name == name).map(|p| (other.name, p))
            });
            if let Some((other, parameter)) = other {
                warnings.push(format!(
                    "`{}.{name}` has no effect: it is a parameter of {other}, not of {}",
                    block.path, method.name
                ));
                all.push(Known { per_input: true, ..known(parameter) });
            }
        }
    }
    if let Err(error) = config.check_parameters(method.name, &all) {
        problems.push(Problem::new(ProblemKind::Parameter, error.to_string()));
    }
    Ok(method)
}

fn type_of(input: &Input) -> Option<&str> {
    input.config().get("model_type")?.as_str()
}

/// Whether the inputs are of one architecture.
pub(super) fn architectures(inputs: &[Input], problems: &mut Vec<Problem>) {
    let kind = |input: &Input| {
        let declared = input.reference.override_architecture.clone();
        declared.or_else(|| {
            let names = input.config().get("architectures")?.as_array()?;
            names.first().and_then(Value::as_str).map(str::to_owned)
        })
    };
    let Some(first) = inputs.iter().find(|input| !input.checkpoint().is_raw()) else { return };
    for input in inputs.iter().filter(|input| !input.checkpoint().is_raw()) {
        let same = type_of(input) == type_of(first) || kind(input) == kind(first);
        // A text model may be merged into the text tower of a vision-language model of its family.
        let nested = |a: &Input, b: &Input| {
            ["text_config", "llm_config"].iter().any(|key| {
                let inner = a.config().get(*key).and_then(|text| text.get("model_type"));
                let inner = inner.and_then(Value::as_str);
                inner.is_some_and(|inner| {
                    let plain = inner.trim_end_matches("_text");
                    type_of(b).is_some_and(|b| b.trim_end_matches("_text") == plain)
                })
            })
        };
        if !same && !nested(first, input) && !nested(input, first) {
            let text = format!(
                "{} is {}, {} is {}: expected one architecture (or `override_architecture`)",
                first.name,
                kind(first).or_else(|| type_of(first).map(str::to_owned)).unwrap_or_default(),
                input.name,
                kind(input).or_else(|| type_of(input).map(str::to_owned)).unwrap_or_default(),
            );
            problems.push(Problem::new(ProblemKind::Architecture, text));
        }
    }
}

/// Whether a method can merge what stands side by side in a slice.
pub(super) fn slice(
    slice: &Slice<'_>,
    method: &Method,
    inputs: &[Input],
    problems: &mut Vec<Problem>,
) {
    let mut fail = |text: String| problems.push(Problem::new(ProblemKind::Method, text));
    let named: Vec<usize> = slice.sources.iter().map(|source| source.input).collect();
    for (index, input) in named.iter().enumerate() {
        if named[..index].contains(input) {
            let name = &inputs[*input].name;
            fail(format!("{} has {name} twice, expected each model once", slice.key()));
        }
    }
    let base = slice.base.filter(|base| named.contains(base));
    if method.base == Base::Required && base.is_none() {
        let found = match slice.base {
            Some(base) => format!("{} is not among the sources", inputs[base].name),
            None => "there is none".into(),
        };
        fail(format!(
            "{} needs a base model (`base_model`) in {}: {found}",
            method.name,
            slice.key()
        ));
        return;
    }
    let apart = usize::from(method.base != Base::Ignored && base.is_some());
    let count = named.len() - apart;
    if !method.inputs.contains(&count) {
        let (least, most) = (*method.inputs.start(), *method.inputs.end());
        let expected = match (least, most) {
            _ if least == most => format!("exactly {least}"),
            (_, usize::MAX) => format!("at least {least}"),
            _ => format!("{least} to {most}"),
        };
        let besides = if apart == 1 { " besides the base" } else { "" };
        fail(format!(
            "{} merges {expected} models{besides}, {} has {count}{}",
            method.name,
            slice.key(),
            if method.base == Base::Ignored && slice.base.is_some() {
                " (`base_model` is one of them, named or not)"
            } else {
                ""
            }
        ));
    }
}
