//! What a mergekit configuration says of weights: as much of it as the shares need.

use serde_json::{Map, Value};

/// The models of a configuration in blocks: one for `models`, one for each of `slices` and of `modules`.
#[derive(Debug)]
pub(super) struct Recipe<'a> {
    pub(super) method: &'a str,
    /// The blocks of each module; one module for a configuration without them.
    pub(super) modules: Vec<Vec<Block<'a>>>,
}

/// Models that are merged with each other.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) sources: Vec<Source<'a>>,
    /// Where parameters are looked up after the source's own, the nearest first.
    scopes: Vec<&'a Value>,
    /// How many layers, for a slice.
    pub(super) layers: Option<usize>,
}

/// A model in a block.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// As the configuration has it: `path@revision+lora`.
    pub(super) name: String,
    pub(super) base: bool,
    parameters: Option<&'a Value>,
}

/// For which tensor a parameter is asked: its name, and the place of its layer from 0 to 1. `None` is all
/// tensors: the mean of gradients and filters.
pub(super) type At<'a> = Option<(&'a str, f64)>;

impl<'a> Recipe<'a> {
    /// Reads the configuration of a merge, or of a mixture of experts.
    ///
    /// The error is what is wrong, for a sentence that names the file.
    pub(super) fn read(config: &'a Value) -> Result<Self, String> {
        let config = config.as_object().ok_or("is no mapping, expected a merge configuration")?;
        let base = config.get("base_model").filter(|b| !b.is_null()).map(reference).transpose()?;
        if let Some(experts) = config.get("experts") {
            let block = block(experts, &["source_model"], base.as_deref(), Vec::new())?;
            return Ok(Self { method: "moe", modules: vec![vec![block]] });
        }
        let method = config.get("merge_method").and_then(Value::as_str);
        let method = method.ok_or("has no `merge_method`")?;
        let scopes: Vec<&Value> = config.get("parameters").into_iter().collect();
        let modules = match config.get("modules") {
            Some(modules) => {
                let modules = modules.as_object().ok_or("`modules` is no mapping")?;
                let blocks = modules.values().map(|module| {
                    let module = module.as_object().ok_or("a module is no mapping")?;
                    let own = module.get("parameters").into_iter().chain(scopes.iter().copied());
                    blocks(module, base.as_deref(), &own.collect::<Vec<_>>())
                });
                blocks.collect::<Result<_, String>>()?
            }
            None => vec![blocks(config, base.as_deref(), &scopes)?],
        };
        Ok(Self { method, modules })
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = &Block<'a>> {
        self.modules.iter().flatten()
    }
}

/// The blocks of a mapping with `models` or `slices`.
fn blocks<'a>(
    map: &'a Map<String, Value>,
    base: Option<&str>,
    scopes: &[&'a Value],
) -> Result<Vec<Block<'a>>, String> {
    if let Some(models) = map.get("models") {
        return Ok(vec![block(models, &["model"], base, scopes.to_vec())?]);
    }
    let slices = map.get("slices").and_then(Value::as_array);
    let slices = slices.ok_or("has neither `models` nor `slices` nor `modules`")?;
    let slices = slices.iter().map(|slice| {
        let sources = slice.get("sources").ok_or("a slice has no `sources`")?;
        let own = slice.get("parameters").into_iter().chain(scopes.iter().copied());
        let base = match slice.get("base_model").filter(|b| !b.is_null()) {
            Some(base) => Some(reference(base)?),
            None => base.map(str::to_owned),
        };
        let layers = sources.get(0).and_then(|s| s.get("layer_range")).map(length).transpose()?;
        // A base that is no source of a slice has no layers there.
        let mut block = block(sources, &["model"], None, own.collect())?;
        for source in &mut block.sources {
            source.base = Some(&source.name) == base.as_ref();
        }
        Ok(Block { layers, ..block })
    });
    slices.collect()
}

fn length(range: &Value) -> Result<usize, String> {
    let bound = |place: usize| range.get(place).and_then(Value::as_u64);
    match (bound(0), bound(1)) {
        (Some(from), Some(to)) if from <= to => Ok((to - from) as usize),
        _ => Err(format!("`layer_range` is {range}, expected [from, to]")),
    }
}

/// The models of a list, and the base if it is not one of them.
fn block<'a>(
    models: &'a Value,
    keys: &[&str],
    base: Option<&str>,
    scopes: Vec<&'a Value>,
) -> Result<Block<'a>, String> {
    let models = models.as_array().ok_or_else(|| format!("{models} is no list of models"))?;
    let mut sources = Vec::new();
    for model in models {
        let name = keys.iter().find_map(|key| model.get(key));
        let name = reference(name.ok_or_else(|| format!("{model} names no model"))?)?;
        let base = base == Some(name.as_str());
        sources.push(Source { name, base, parameters: model.get("parameters") });
    }
    if let Some(base) = base.filter(|_| !sources.iter().any(|source| source.base)) {
        sources.push(Source { name: base.to_owned(), base: true, parameters: None });
    }
    if sources.is_empty() {
        return Err("has an empty list of models".to_owned());
    }
    Ok(Block { sources, scopes, layers: None })
}

/// A model as a text: `path@revision+lora@revision`, also for the form of a mapping.
fn reference(value: &Value) -> Result<String, String> {
    let path = |value: &Value| -> Option<String> {
        if let Value::String(text) = value {
            return Some(text.clone());
        }
        let path = value.get("path")?.as_str()?;
        Some(match value.get("revision").and_then(Value::as_str) {
            Some(revision) => format!("{path}@{revision}"),
            None => path.to_owned(),
        })
    };
    let model = path(value.get("model").unwrap_or(value));
    let model = model.ok_or_else(|| format!("{value} is no model, expected its name or path"))?;
    Ok(match value.get("lora").and_then(path) {
        Some(lora) => format!("{model}+{lora}"),
        None => model,
    })
}

impl Block<'_> {
    /// A source's parameter: its own, then those of the scopes, where a list of filters that does not match falls
    /// through.
    pub(super) fn parameter(
        &self,
        source: Option<&Source<'_>>,
        key: &str,
        at: At<'_>,
    ) -> Option<f64> {
        let own = source.and_then(|source| source.parameters);
        own.into_iter()
            .chain(self.scopes.iter().copied())
            .find_map(|scope| number(scope.get(key)?, at))
    }
}

/// A parameter as a number: a scalar, a gradient, `{value, filter}` or a list of those. True is 1.
fn number(setting: &Value, at: At<'_>) -> Option<f64> {
    match setting {
        Value::Number(number) => number.as_f64(),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        // YAML 1.1 has `1e-5` as a text.
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        Value::Object(entry) => filtered(entry, at),
        Value::Array(list) if list.iter().any(Value::is_object) => match at {
            Some(_) => list.iter().find_map(|entry| number(entry, at)),
            None => mean(&list.iter().map(|e| number(e, at)).collect::<Option<Vec<_>>>()?),
        },
        Value::Array(list) => {
            let anchors =
                list.iter().map(|value| number(value, None)).collect::<Option<Vec<_>>>()?;
            gradient(&anchors, at.map(|(_, t)| t))
        }
        Value::Null => None,
    }
}

fn filtered(entry: &Map<String, Value>, at: At<'_>) -> Option<f64> {
    let filter = entry.get("filter").and_then(Value::as_str).unwrap_or("*");
    let applies = filter == "*" || at.is_none_or(|(tensor, _)| tensor.contains(filter));
    entry.get("value").filter(|_| applies).and_then(|value| number(value, at))
}

/// The piecewise linear function through evenly spaced `anchors` at `t`, or its mean over 0 to 1.
fn gradient(anchors: &[f64], t: Option<f64>) -> Option<f64> {
    let steps = anchors.len().checked_sub(1)?;
    let Some(t) = t else {
        return match steps {
            0 => Some(anchors[0]),
            _ => mean(
                &anchors.windows(2).map(|two| f64::midpoint(two[0], two[1])).collect::<Vec<_>>(),
            ),
        };
    };
    let place = t * steps as f64;
    let below = (place as usize).min(steps.saturating_sub(1));
    let above = (below + 1).min(steps);
    Some(anchors[below] + (place - below as f64) * (anchors[above] - anchors[below]))
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
