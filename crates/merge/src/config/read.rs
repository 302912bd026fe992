//! From a tree to a configuration.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::key_path::{index, key};
use super::node::{Node, Yaml};
use super::parameter::Scalar;
use super::read_parameters::parameters;
use super::reader::{At, Fields, Problems};
use super::types::{
    Body, InputModel, InputSlice, MergeConfig, ModuleBody, Origin, OutputModule, OutputSlice,
};
use super::{ModelRef, read_model, read_tokenizer};
use crate::dtype::Dtype;

pub(crate) const KEYS: &[&str] = &[
    "name",
    "merge_method",
    "models",
    "slices",
    "modules",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
];

/// One document; `None` if something is wrong with it.
pub(crate) fn config(file: &Path, node: &Node, problems: &mut Problems) -> Option<MergeConfig> {
    let at = At { path: String::new(), node };
    if !matches!(node.yaml, Yaml::Map(_)) {
        let expected = "a mapping with `merge_method` and `models`, `slices` or `modules`";
        problems.add(node.line, format!("the configuration is {}, expected {expected}", node.yaml));
        return None;
    }
    let fields = problems.fields(&at, KEYS, "a mapping")?;
    let merge_method = fields
        .required(problems, "merge_method", "the name of a method")
        .and_then(|at| problems.text(&at, "the name of a method"));
    let base_model = model_in(&fields, "base_model", problems);
    let body = body(&fields, problems);
    let parameters = parameters(&fields, problems);
    let dtype = dtype(&fields, "dtype", problems);
    let out_dtype = self::dtype(&fields, "out_dtype", problems);
    let tokenizer_source =
        fields.optional("tokenizer_source").and_then(|at| read_tokenizer::source(&at, problems));
    let tokenizer =
        fields.optional("tokenizer").and_then(|at| read_tokenizer::tokenizer(&at, problems));
    if let (Some(at), Some(_)) = (fields.optional("tokenizer_source"), fields.optional("tokenizer"))
    {
        problems.add(at.node.line, "`tokenizer_source` and `tokenizer` are both set, expected one");
    }
    let text = "`auto`, the name of a template, or a Jinja text";
    let chat_template = fields.optional("chat_template").and_then(|at| problems.text(&at, text));
    let name =
        fields.optional("name").and_then(|at| problems.text(&at, "a name for other documents"));
    let mut origin = Origin { file: file.to_owned(), lines: BTreeMap::new() };
    let (merge_method, body) = (merge_method?, body?);
    lines("", node, &mut origin.lines);
    Some(MergeConfig {
        name,
        merge_method,
        body,
        base_model,
        parameters,
        dtype,
        out_dtype,
        tokenizer_source,
        tokenizer,
        chat_template,
        origin,
    })
}

/// The line of every key path.
fn lines(path: &str, node: &Node, found: &mut BTreeMap<String, usize>) {
    found.entry(path.into()).or_insert(node.line);
    match &node.yaml {
        Yaml::Map(entries) => {
            for (name, line, node) in entries {
                let path = key(path, name);
                found.insert(path.clone(), *line);
                lines(&path, node, found);
            }
        }
        Yaml::List(items) => {
            for (i, node) in items.iter().enumerate() {
                lines(&index(path, i), node, found);
            }
        }
        _ => {}
    }
}

fn body(fields: &Fields<'_>, problems: &mut Problems) -> Option<Body> {
    let set = only_one(fields, &["models", "slices", "modules"], problems)?;
    match set {
        ("models", at) => Some(Body::Models(models(&at, problems))),
        ("slices", at) => Some(Body::Slices(slices(&at, problems))),
        (_, at) => modules(&at, problems).map(Body::Modules),
    }
}

fn only_one<'a>(
    fields: &Fields<'a>,
    names: &[&'static str],
    problems: &mut Problems,
) -> Option<(&'static str, At<'a>)> {
    let mut set = names.iter().filter_map(|name| Some((*name, fields.optional(name)?)));
    let first = set.next();
    let others: Vec<_> = set.collect();
    let here = if fields.path.is_empty() {
        "the configuration".into()
    } else {
        format!("`{}`", fields.path)
    };
    let all: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let all = all.join(", ");
    match (&first, &*others) {
        (None, _) => problems.add(fields.line, format!("{here} has none of {all}, expected one")),
        (Some(_), []) => {}
        (Some((name, _)), others) => {
            let mut found = vec![format!("`{name}`")];
            found.extend(others.iter().map(|(name, _)| format!("`{name}`")));
            let line = others[0].1.node.line;
            problems
                .add(line, format!("{here} has {}, expected one of {all}", found.join(" and ")));
            // All of them are read, for what else is wrong.
            for (name, at) in others {
                match *name {
                    "slices" => drop(slices(at, problems)),
                    "models" => drop(models(at, problems)),
                    _ => drop(modules(at, problems)),
                }
            }
        }
    }
    first
}

fn models(at: &At<'_>, problems: &mut Problems) -> Vec<InputModel> {
    let expected = "a list of models: `- model: PATH`";
    let mut models = Vec::new();
    for item in problems.items(at, expected) {
        let known = ["model", "parameters"];
        let Some(fields) = problems.fields(&item, &known, "a mapping with `model`") else {
            continue;
        };
        let parameters = parameters(&fields, problems);
        let Some(model) = required_model(&fields, problems) else { continue };
        models.push((item, InputModel { model, parameters }));
    }
    each_once(models.iter().map(|(at, input)| (at, &input.model)), problems);
    models.into_iter().map(|(_, model)| model).collect()
}

fn slices(at: &At<'_>, problems: &mut Problems) -> Vec<OutputSlice> {
    let mut slices = Vec::new();
    for item in problems.items(at, "a list of slices: `- sources: [...]`") {
        let known = ["sources", "base_model", "residual_weight", "parameters"];
        let Some(fields) = problems.fields(&item, &known, "a mapping with `sources`") else {
            continue;
        };
        let expected = "a list of sources: `- {model: PATH, layer_range: [0, 8]}`";
        let sources = match fields.required(problems, "sources", expected) {
            Some(at) => sources(&at, expected, problems),
            None => Vec::new(),
        };
        let weight = fields.optional("residual_weight");
        slices.push(OutputSlice {
            sources,
            base_model: model_in(&fields, "base_model", problems),
            residual_weight: weight
                .and_then(|at| problems.scalar(&at, "a finite number", Scalar::number)),
            parameters: parameters(&fields, problems),
        });
    }
    slices
}

fn sources(at: &At<'_>, expected: &str, problems: &mut Problems) -> Vec<InputSlice> {
    let mut sources = Vec::new();
    for item in problems.items(at, expected) {
        let known = ["model", "layer_range", "parameters"];
        let expected = "a mapping with `model` and `layer_range`";
        let Some(fields) = problems.fields(&item, &known, expected) else { continue };
        let parameters = parameters(&fields, problems);
        let range = fields
            .required(problems, "layer_range", LAYER_RANGE)
            .and_then(|at| layer_range(&at, problems));
        let model = required_model(&fields, problems);
        if let (Some(model), Some(layer_range)) = (model, range) {
            sources.push((item, InputSlice { model, layer_range, parameters }));
        }
    }
    each_once(sources.iter().map(|(at, input)| (at, &input.model)), problems);
    let sources: Vec<InputSlice> = sources.into_iter().map(|(_, source)| source).collect();
    let lengths: Vec<String> =
        sources.iter().map(|source| source.layer_range.len().to_string()).collect();
    if lengths.iter().any(|length| *length != lengths[0]) {
        let found = lengths.join(", ");
        let problem = format!("`{}` have {found} layers, expected the same number", at.path);
        problems.add(at.node.line, problem);
    }
    sources
}

const LAYER_RANGE: &str = "two whole numbers from 0 on: the first layer and the one after the last";

fn layer_range(at: &At<'_>, problems: &mut Problems) -> Option<Range<usize>> {
    let Yaml::List(items) = &at.node.yaml else {
        problems.wrong(at, LAYER_RANGE);
        return None;
    };
    let layer = |node: &Node| match node.scalar() {
        Some(Scalar::Bool(_) | Scalar::Float(_)) | None => None,
        Some(scalar) => scalar.integer().and_then(|layer| usize::try_from(layer).ok()),
    };
    let numbers: Vec<Option<usize>> = items.iter().map(layer).collect();
    let found: Vec<String> = items.iter().map(|node| node.yaml.to_string()).collect();
    let found = found.join(", ").replace("the number ", "");
    match *numbers {
        [Some(first), Some(end)] if first <= end => Some(first..end),
        [Some(_), Some(_)] => {
            let problem = format!("`{}` is [{found}], expected the lower one first", at.path);
            problems.add(at.node.line, problem);
            None
        }
        _ => {
            let problem = format!("`{}` is [{found}], expected {LAYER_RANGE}", at.path);
            problems.add(at.node.line, problem);
            None
        }
    }
}

fn modules(at: &At<'_>, problems: &mut Problems) -> Option<Vec<(String, OutputModule)>> {
    let expected = "a mapping from the names of modules to `models` or `slices`";
    let entries = problems.entries(at, expected)?;
    if entries.is_empty() {
        problems.wrong(at, expected);
    }
    let mut modules = Vec::new();
    for (name, _, node) in entries {
        let at = At { path: key(&at.path, name), node };
        let known = ["models", "slices", "parameters"];
        let expected = "a mapping with `models` or `slices`";
        let Some(fields) = problems.fields(&at, &known, expected) else { continue };
        let parameters = parameters(&fields, problems);
        let body = match only_one(&fields, &["models", "slices"], problems) {
            Some(("models", at)) => ModuleBody::Models(models(&at, problems)),
            Some((_, at)) => ModuleBody::Slices(slices(&at, problems)),
            None => continue,
        };
        modules.push((name.clone(), OutputModule { body, parameters }));
    }
    Some(modules)
}

/// Per-input parameters belong to a model, so it is one input.
fn each_once<'a, 'n: 'a>(
    inputs: impl Iterator<Item = (&'a At<'n>, &'a ModelRef)>,
    problems: &mut Problems,
) {
    let mut before: Vec<(&At<'_>, &ModelRef)> = Vec::new();
    for (at, model) in inputs {
        match before.iter().find(|(_, other)| *other == model) {
            Some((first, _)) => {
                let (path, first) = (&at.path, &first.path);
                let problem = format!(
                    "`{path}.model` is {model}, as `{first}.model` is, expected each model once"
                );
                problems.add(at.node.line, problem);
            }
            None => before.push((at, model)),
        }
    }
}

fn required_model(fields: &Fields<'_>, problems: &mut Problems) -> Option<ModelRef> {
    let at = fields.required(problems, "model", "a model")?;
    read_model::model(&at, problems)
}

fn model_in(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<ModelRef> {
    fields.optional(name).and_then(|at| read_model::model(&at, problems))
}

fn dtype(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<Dtype> {
    let at = fields.optional(name)?;
    let expected = "float32, bfloat16 or float16";
    let text = problems.text(&at, expected)?;
    let near = match text.strip_prefix("torch.").unwrap_or(&text) {
        "float32" => return Some(Dtype::F32),
        "bfloat16" => return Some(Dtype::BF16),
        "float16" => return Some(Dtype::F16),
        "float64" | "double" => " (merges compute in float32 and write at most that)",
        "int64" => " (merges are of floating-point numbers)",
        "bf16" => " (did you mean `bfloat16`?)",
        "fp16" | "f16" | "half" => " (did you mean `float16`?)",
        "fp32" | "f32" | "float" => " (did you mean `float32`?)",
        other => {
            let near = super::suggestion::did_you_mean(other, ["float32", "bfloat16", "float16"]);
            problems.wrong(&at, &format!("{expected}{near}"));
            return None;
        }
    };
    problems.wrong(&at, &format!("{expected}{near}"));
    None
}
