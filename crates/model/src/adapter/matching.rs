//! Which modules of a model an adapter changes, by the rules of PEFT 0.21.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;

use super::config::{LoraConfig, Names};
use crate::arch::Architecture;
use crate::error::Error;

/// What a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Linear,
    /// The output matrix.
    Head,
    /// A layer of a head that scores.
    Score,
    Embedding,
    Norm,
}

/// A module of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its path: `model.layers.0.self_attn.q_proj`.
    pub(crate) path: String,
    pub(crate) kind: Kind,
}

/// An update of a module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) rank: usize,
    pub(crate) alpha: f64,
    /// s
    pub(crate) scale: f32,
}

/// What an adapter does to a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Matched {
    pub(crate) targets: Vec<Target>,
    /// Paths of the modules that are trained as a whole.
    pub(crate) whole: Vec<String>,
}

/// PEFT's choice of modules where the configuration makes none.
fn default_targets(architecture: Architecture) -> Option<Names> {
    use Architecture::{Gemma2, Gemma3, Llama, Mistral, Qwen2, Qwen3};
    let known = [Llama, Mistral, Qwen2, Qwen3, Gemma2, Gemma3].contains(&architecture);
    known.then(|| ["q_proj", "v_proj"].into())
}

/// Sets `target_modules` to a choice that names the same modules without the model: PEFT's default,
/// or the names of all linear layers. A head that scores joins `modules_to_save` where the task is to
/// classify.
pub(crate) fn resolve(
    config: &LoraConfig,
    architecture: Architecture,
    places: &[Place],
) -> Result<LoraConfig, Error> {
    let targets = match &config.target_modules {
        None => Some(default_targets(architecture).ok_or_else(|| {
            let expected = format!("a choice: PEFT has none for {architecture}; {}", there(places));
            refused("target_modules", "absent".into(), expected)
        })?),
        Some(Names::Pattern(pattern)) if pattern.to_lowercase() == "all-linear" => {
            let linear = places.iter().filter(|place| place.kind == Kind::Linear);
            let names: BTreeSet<&str> = linear.map(|place| last(&place.path)).collect();
            Some(Names::List(names.into_iter().map(Into::into).collect()))
        }
        other => other.clone(),
    };
    let mut modules_to_save = config.modules_to_save.clone();
    if config.classifies() {
        // As PEFT does.
        let new =
            HEADS.iter().filter(|head| !config.modules_to_save.iter().any(|name| name == *head));
        modules_to_save.extend(new.map(|head| (*head).to_owned()));
    }
    Ok(LoraConfig { target_modules: targets, modules_to_save, ..config.clone() })
}

/// The heads that PEFT trains as a whole for the tasks `SEQ_CLS` and `TOKEN_CLS`.
const HEADS: [&str; 2] = ["classifier", "score"];

/// The modules that a resolved configuration names. With `all_used` each name and pattern has to
/// match something.
pub(crate) fn matched(
    config: &LoraConfig,
    places: &[Place],
    all_used: bool,
) -> Result<Matched, Error> {
    let empty = Names::List(Vec::new());
    let targets = Matcher::new("target_modules", config.target_modules.as_ref().unwrap_or(&empty))?;
    let excluded = match &config.exclude_modules {
        Some(names) => Some(Matcher::new("exclude_modules", names)?),
        None => None,
    };
    let saved = saved_pattern(&config.modules_to_save)?;
    let layer = LayerNumber::new(config)?;
    let ranks = ending("rank_pattern", &config.rank_pattern)?;
    let alphas = ending("alpha_pattern", &config.alpha_pattern)?;

    let mut found = Matched::default();
    for place in places {
        let path = place.path.as_str();
        if config.modules_to_save.iter().any(|name| saves(name, place)) {
            found.whole.push(path.into());
        }
        let apart = excluded.as_ref().is_some_and(|excluded| excluded.matches(path).is_some())
            || saved.as_ref().is_some_and(|saved| saved.is_match(path));
        let Some(exactly) = targets.matches(path).filter(|_| !apart) else { continue };
        if !exactly && !layer.allows(path) {
            continue;
        }
        if matches!(place.kind, Kind::Norm | Kind::Score) {
            let expected = "linear layers and embeddings only; \
                            `modules_to_save` trains a norm or a score as a whole";
            return Err(refused(
                "target_modules",
                format!("such that it names `{path}`"),
                expected,
            ));
        }
        let rank = first(&ranks, path).unwrap_or(config.r);
        let alpha = first(&alphas, path).unwrap_or(config.lora_alpha);
        let divisor = if config.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        let scale = (alpha / divisor) as f32;
        found.targets.push(Target { path: path.into(), kind: place.kind, rank, alpha, scale });
    }
    check(config, places, &found, &targets, all_used)?;
    Ok(found)
}

/// Refuses what matches nothing, and lists what there is.
fn check(
    config: &LoraConfig,
    places: &[Place],
    found: &Matched,
    targets: &Matcher<'_>,
    all_used: bool,
) -> Result<(), Error> {
    let nothing = |key: &str, name: &str, what: &str| {
        Err(refused(key, format!("`{name}`, which names no {what}"), there(places)))
    };
    if found.targets.is_empty() {
        let names = match &config.target_modules {
            Some(Names::Pattern(pattern)) => pattern.clone(),
            Some(Names::List(list)) => list.join(", "),
            None => String::new(),
        };
        return nothing("target_modules", &names, "module that is left to adapt");
    }
    for name in &config.modules_to_save {
        let excused = config.classifies() && HEADS.contains(&name.as_str());
        if !excused && !places.iter().any(|place| saves(name, place)) {
            return nothing("modules_to_save", name, "module");
        }
    }
    if !all_used {
        return Ok(());
    }
    if let Matcher::List(list) = targets {
        for name in *list {
            let one = Matcher::List(std::slice::from_ref(name));
            if !places.iter().any(|place| one.matches(&place.path).is_some()) {
                return nothing("target_modules", name, "module");
            }
        }
    }
    let paths = || found.targets.iter().map(|target| target.path.as_str());
    let rank_names = config.rank_pattern.iter().map(|(name, _)| ("rank_pattern", name));
    let alpha_names = config.alpha_pattern.iter().map(|(name, _)| ("alpha_pattern", name));
    for (key, name) in rank_names.chain(alpha_names) {
        let pattern = regex(key, &ending_pattern(name))?;
        if !paths().any(|path| pattern.is_match(path)) {
            return nothing(key, name, "module that is adapted");
        }
    }
    if let Some(names) = &config.exclude_modules {
        let excluded = Matcher::new("exclude_modules", names)?;
        if !places.iter().any(|place| excluded.matches(&place.path).is_some()) {
            return nothing("exclude_modules", &format!("{names:?}"), "module");
        }
    }
    Ok(())
}

/// Whether a name of `modules_to_save` stands for a module or for what it is a part of.
fn saves(name: &str, place: &Place) -> bool {
    let path = place.path.as_str();
    let part = place.kind == Kind::Score;
    let whole = path.rsplit_once('.').map(|(whole, _)| whole).filter(|_| part);
    path.ends_with(name) || whole.is_some_and(|whole| whole.ends_with(name))
}

enum Matcher<'a> {
    Pattern(Regex),
    List(&'a [String]),
}

impl<'a> Matcher<'a> {
    fn new(key: &str, names: &'a Names) -> Result<Self, Error> {
        Ok(match names {
            Names::Pattern(pattern) => Self::Pattern(regex(key, &format!("^(?:{pattern})$"))?),
            Names::List(list) => Self::List(list),
        })
    }

    /// Whether the names hold this path, and if so, whether by the whole path.
    fn matches(&self, path: &str) -> Option<bool> {
        match self {
            // PEFT filters by layer only where a list named the end of a path.
            Self::Pattern(pattern) => pattern.is_match(path).then_some(true),
            Self::List(list) if list.iter().any(|name| name == path) => Some(true),
            Self::List(list) => {
                let ends = |name: &String| {
                    path.strip_suffix(name.as_str()).is_some_and(|before| before.ends_with('.'))
                };
                list.iter().any(ends).then_some(false)
            }
        }
    }
}

/// `layers_to_transform` and `layers_pattern`.
struct LayerNumber<'a> {
    wanted: Option<&'a [usize]>,
    patterns: Vec<Regex>,
}

impl<'a> LayerNumber<'a> {
    fn new(config: &'a LoraConfig) -> Result<Self, Error> {
        let wanted = config.layers_to_transform.as_deref().filter(|layers| !layers.is_empty());
        let before: Vec<String> = if config.layers_pattern.is_empty() {
            vec![r"^.*?\.[^.]*\.(\d+)\.".into()]
        } else {
            let patterns = config.layers_pattern.iter();
            patterns.map(|name| format!(r"^(?:|.*?\.){name}\.(\d+)\.")).collect()
        };
        let patterns = before.iter().map(|pattern| regex("layers_pattern", pattern));
        Ok(Self { wanted, patterns: patterns.collect::<Result<_, _>>()? })
    }

    fn allows(&self, path: &str) -> bool {
        let Some(wanted) = self.wanted else { return true };
        let number = self.patterns.iter().find_map(|pattern| {
            let captures = pattern.captures(path)?;
            // The number is the last group, behind those that a pattern may have.
            captures.iter().last().flatten()?.as_str().parse().ok()
        });
        number.is_some_and(|number: usize| wanted.contains(&number))
    }
}

/// What is trained as a whole, and everything in it, gets no update.
fn saved_pattern(modules_to_save: &[String]) -> Result<Option<Regex>, Error> {
    if modules_to_save.is_empty() {
        return Ok(None);
    }
    let names = modules_to_save.join("|");
    regex("modules_to_save", &format!(r"^(?:|.*\.)(?:{names})(?:$|\.)")).map(Some)
}

fn ending_pattern(name: &str) -> String {
    format!(r"^(?:.*\.)?(?:{name})$")
}

fn ending<T: Copy>(key: &str, patterns: &[(String, T)]) -> Result<Vec<(Regex, T)>, Error> {
    let each = patterns.iter().map(|(name, value)| {
        // PEFT's patterns may carry an anchor of their own.
        Ok((regex(key, &ending_pattern(name))?, *value))
    });
    each.collect()
}

fn first<T: Copy>(patterns: &[(Regex, T)], path: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(path)).map(|(_, value)| *value)
}

fn regex(key: &str, pattern: &str) -> Result<Regex, Error> {
    Regex::new(pattern).map_err(|error| {
        // The parser draws a picture of many lines; the last one says what is wrong.
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().to_owned();
        refused(key, format!("`{pattern}`"), format!("a regular expression ({reason})"))
    })
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The modules of a model, layers in one.
fn there(places: &[Place]) -> String {
    let number = Regex::new(r"\.\d+\.").expect("a valid pattern");
    let mut names = Vec::new();
    for place in places {
        let name = number.replace(&place.path, ".N.").into_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    format!("some of {}", names.join(", "))
}

fn refused(key: &str, found: String, expected: impl Into<String>) -> Error {
    Error::ConfigField {
        path: Path::new("the LoRA configuration").into(),
        field: key.into(),
        found,
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Vec<Place> {
        let mut places = vec![Place { path: "model.embed_tokens".into(), kind: Kind::Embedding }];
        for layer in 0..12 {
            for (name, kind) in [
                ("self_attn.q_proj", Kind::Linear),
                ("self_attn.v_proj", Kind::Linear),
                ("mlp.up_proj", Kind::Linear),
                ("input_layernorm", Kind::Norm),
            ] {
                places.push(Place { path: format!("model.layers.{layer}.{name}"), kind });
            }
        }
        places.push(Place { path: "model.norm".into(), kind: Kind::Norm });
        places.push(Place { path: "lm_head".into(), kind: Kind::Head });
        places
    }

    fn found(config: LoraConfig) -> Result<Matched, String> {
        let places = places();
        let config = resolve(&config, Architecture::Llama, &places).map_err(|e| e.to_string())?;
        matched(&config, &places, true).map_err(|e| e.to_string())
    }

    fn paths(config: LoraConfig) -> Vec<String> {
        found(config).unwrap().targets.into_iter().map(|target| target.path).collect()
    }

    fn targets(names: impl Into<Names>) -> LoraConfig {
        LoraConfig { target_modules: Some(names.into()), ..LoraConfig::default() }
    }

    #[test]
    fn names_patterns_and_all_linear() {
        assert_eq!(paths(LoraConfig::default()).len(), 24);
        assert_eq!(paths(targets("all-linear")).len(), 36);
        assert_eq!(paths(targets(["lm_head", "embed_tokens"])), ["model.embed_tokens", "lm_head"]);
        // The whole path has to match, and a name is a whole name.
        assert_eq!(paths(targets(r".*\.1\.mlp\..*")), ["model.layers.1.mlp.up_proj"]);
        assert!(found(targets(r"mlp\.up_proj")).unwrap_err().contains("names no module"));
        assert!(
            found(targets(["_proj"]))
                .unwrap_err()
                .contains("some of model.embed_tokens, model.layers.N.self_attn.q_proj")
        );
        assert!(found(targets(["q_proj", "w1"])).unwrap_err().contains("`w1`"));
        assert!(found(targets("(")).unwrap_err().contains("regular expression"));
        assert!(found(targets(["input_layernorm"])).unwrap_err().contains("linear layers"));
    }

    #[test]
    fn layers_and_exclusions() {
        let some = LoraConfig {
            layers_to_transform: Some(vec![1, 11]),
            exclude_modules: Some(["layers.11.mlp.up_proj"].into()),
            ..targets(["up_proj", "q_proj", "model.layers.0.self_attn.v_proj"])
        };
        let expected = [
            "model.layers.0.self_attn.v_proj",
            "model.layers.1.self_attn.q_proj",
            "model.layers.1.mlp.up_proj",
            "model.layers.11.self_attn.q_proj",
        ];
        assert_eq!(paths(some.clone()), expected);
        let pattern = vec!["layers".to_owned()];
        assert_eq!(paths(LoraConfig { layers_pattern: pattern, ..some.clone() }), expected);
        let none = LoraConfig { layers_pattern: vec!["h".into()], ..some };
        assert_eq!(paths(none), ["model.layers.0.self_attn.v_proj"]);
        let unused = LoraConfig { exclude_modules: Some(["x"].into()), ..targets("all-linear") };
        assert!(found(unused).unwrap_err().contains("exclude_modules"));
    }

    #[test]
    fn ranks_and_scales() {
        let config = LoraConfig {
            r: 4,
            lora_alpha: 8.0,
            rank_pattern: vec![(r"layers\.1\..*q_proj".into(), 16), ("q_proj".into(), 2)],
            alpha_pattern: vec![("^model.layers.1.self_attn.q_proj".into(), 32.0)],
            ..targets(["q_proj", "v_proj"])
        };
        let of = |config: &LoraConfig, path: &str| {
            let found = found(config.clone()).unwrap().targets;
            let target = found.into_iter().find(|target| target.path == path).unwrap();
            (target.rank, target.scale)
        };
        assert_eq!(of(&config, "model.layers.0.self_attn.v_proj"), (4, 2.0));
        assert_eq!(of(&config, "model.layers.0.self_attn.q_proj"), (2, 4.0));
        assert_eq!(of(&config, "model.layers.1.self_attn.q_proj"), (16, 2.0));
        let stable = LoraConfig { use_rslora: true, ..config.clone() };
        assert_eq!(of(&stable, "model.layers.1.self_attn.q_proj"), (16, 8.0));
        let unused = LoraConfig { rank_pattern: vec![("k_proj".into(), 1)], ..config };
        assert!(found(unused).unwrap_err().contains("`rank_pattern` is `k_proj`"));
    }

    #[test]
    fn what_is_trained_as_a_whole_gets_no_update() {
        let config = LoraConfig {
            modules_to_save: vec!["lm_head".into(), "norm".into()],
            ..targets(["q_proj", "lm_head"])
        };
        let found_ = found(config).unwrap();
        assert_eq!(found_.targets.len(), 12);
        // As in PEFT, `norm` also names `input_layernorm`.
        assert_eq!(found_.whole.len(), 14);
        let unknown = LoraConfig { modules_to_save: vec!["score".into()], ..targets(["q_proj"]) };
        assert!(found(unknown).unwrap_err().contains("`score`"));
    }
}
