//! What one folder says of its model: the first of `merge.json`, `mergekit_config.yml`, the card's YAML,
//! `adapter_config.json` and the card's `base_model` that is there.

use std::fs;
use std::path::{Path, PathBuf};

use blake3::Hash;
use serde_json::Value;

use super::front_matter::{self, Card};
use super::recipe::Recipe;
use super::share::{self, Part};
use super::{Basis, Kind, Note};
use crate::Error;
use crate::manifest::{self, Manifest};

/// A model folder in its own words.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) folder: PathBuf,
    pub(super) kind: Kind,
    pub(super) content: Option<Hash>,
    pub(super) basis: Basis,
    pub(super) parents: Vec<Parent>,
}

/// A parent in its child's words.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    pub(super) model: Reference,
    /// The adapter that was added to it.
    pub(super) lora: Option<Reference>,
    pub(super) method: String,
    pub(super) weight: Option<f64>,
    pub(super) share: Option<f64>,
}

/// Which model is meant.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) path: Option<PathBuf>,
    pub(super) content: Option<Hash>,
}

/// Describes `folder`, `None` if it has no model; notes go to `notes`. `locate` finds the folder of a name.
pub(super) fn describe(
    folder: &Path,
    locate: &dyn Fn(&str) -> Option<PathBuf>,
    notes: &mut Vec<Note>,
) -> Option<Described> {
    let described = |kind, parents| Described {
        folder: folder.to_owned(),
        kind,
        content: None,
        basis: Basis::Weights,
        parents,
    };
    let mut bad = false;
    let mut note = |result: Result<Described, Error>| match result {
        Ok(described) => Some(described),
        Err(error) => {
            notes.push(Note::Unreadable(error));
            bad = true;
            None
        }
    };
    if folder.join(manifest::FILE).is_file()
        && let Some(found) = note(from_manifest(folder))
    {
        return Some(found);
    }
    let config = folder.join("mergekit_config.yml");
    if config.is_file()
        && let Some(found) = note(from_config_file(&config, locate))
    {
        return Some(found);
    }
    let card_path = folder.join("README.md");
    let card = match read_card(&card_path) {
        Ok(card) => card,
        Err(error) => {
            note(Err(error));
            Card::default()
        }
    };
    if let Some(config) = &card.config
        && let Some(found) = note(from_config(config, &card_path, locate))
    {
        return Some(found);
    }
    let adapter = folder.join("adapter_config.json");
    if adapter.is_file() {
        let base = note(adapter_base(&adapter, locate).map(|base| described(Kind::Adapter, base)));
        let mut found = base.unwrap_or_else(|| described(Kind::Adapter, Vec::new()));
        for name in &card.base_models {
            let model = reference(name, locate);
            let known = found.parents.iter().any(|p| {
                p.model.name == *name || p.model.path == model.path && model.path.is_some()
            });
            // Of an adapter without a base the first is it; of an extracted one the second is what it was extracted from.
            let share = found.parents.is_empty().then_some(1.0);
            if !known {
                let method = "adapter".to_owned();
                found.parents.push(Parent { model, lora: None, method, weight: None, share });
            }
        }
        return Some(found);
    }
    if !card.base_models.is_empty() {
        return Some(from_base_models(&card, folder, locate));
    }
    has_model(folder).then(|| described(if bad { Kind::Unknown } else { Kind::Base }, Vec::new()))
}

/// The name of a model in the form `path@revision+lora`, or the whole if there is a folder with it.
fn parse(name: &str, locate: &dyn Fn(&str) -> Option<PathBuf>) -> (Reference, Option<Reference>) {
    match name.split_once('+') {
        Some((model, lora)) if locate(name).is_none() => {
            (reference(model, locate), Some(reference(lora, locate)))
        }
        _ => (reference(name, locate), None),
    }
}

fn reference(name: &str, locate: &dyn Fn(&str) -> Option<PathBuf>) -> Reference {
    Reference { name: name.to_owned(), path: locate(name), content: None }
}

fn from_manifest(folder: &Path) -> Result<Described, Error> {
    let path = folder.join(manifest::FILE);
    let manifest = Manifest::read(&path)?;
    let recipe = Recipe::read(&manifest.config);
    let recipe = recipe.map_err(|reason| Error::Manifest {
        path: path.clone(),
        reason: format!("`config` {reason}"),
    })?;
    let (parts, basis) = share::of_manifest(&recipe, &manifest);
    let parents = manifest.inputs.iter().zip(parts).map(|(input, part)| {
        // Where both exist the folder's own form is the one to compare.
        let same = |path: &PathBuf| fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let (model, adapter) = match (&input.lora, input.name.split_once('+')) {
            (Some(_), Some((model, lora))) => (model, lora),
            _ => (input.name.as_str(), "adapter"),
        };
        Parent {
            model: Reference {
                name: model.to_owned(),
                path: Some(same(&input.path)),
                content: Some(input.contents.content),
            },
            lora: input.lora.as_ref().map(|lora| Reference {
                name: adapter.to_owned(),
                path: Some(same(lora)),
                content: None,
            }),
            method: manifest.method.clone(),
            weight: part.weight,
            share: Some(part.share),
        }
    });
    Ok(Described {
        folder: folder.to_owned(),
        kind: Kind::Merge,
        content: Some(manifest.output.contents.content),
        basis,
        parents: parents.collect(),
    })
}

fn from_config_file(
    path: &Path,
    locate: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<Described, Error> {
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    let config = front_matter::yaml(&text);
    let config = config.map_err(|reason| Error::Card { path: path.to_owned(), reason })?;
    from_config(&config, path, locate)
}

fn from_config(
    config: &Value,
    path: &Path,
    locate: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<Described, Error> {
    let recipe = Recipe::read(config);
    let recipe = recipe.map_err(|reason| Error::Card { path: path.to_owned(), reason })?;
    let (parts, basis) = share::of_recipe(&recipe);
    let parents = parts.into_iter().map(|Part { name, weight, share }| {
        let (model, lora) = parse(&name, locate);
        Parent { model, lora, method: recipe.method.to_owned(), weight, share: Some(share) }
    });
    Ok(Described {
        folder: path.parent().unwrap_or(path).to_owned(),
        kind: Kind::Merge,
        content: None,
        basis,
        parents: parents.collect(),
    })
}

fn read_card(path: &Path) -> Result<Card, Error> {
    if !path.is_file() {
        return Ok(Card::default());
    }
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    front_matter::read(&text).map_err(|reason| Error::Card { path: path.to_owned(), reason })
}

/// The base of an adapter, if its configuration names one.
fn adapter_base(
    path: &Path,
    locate: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<Vec<Parent>, Error> {
    let config: Value = serde_json::from_slice(&fs::read(path).map_err(Error::io(path))?)
        .map_err(Error::json(path))?;
    match config.get("base_model_name_or_path") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(name)) => Ok(vec![Parent {
            model: reference(name, locate),
            lora: None,
            method: "adapter".to_owned(),
            weight: None,
            share: Some(1.0),
        }]),
        Some(other) => Err(Error::Card {
            path: path.to_owned(),
            reason: format!("`base_model_name_or_path` is {other}, expected a name or path"),
        }),
    }
}

fn from_base_models(
    card: &Card,
    folder: &Path,
    locate: &dyn Fn(&str) -> Option<PathBuf>,
) -> Described {
    let several = card.base_models.len() > 1;
    let (kind, method) = match card.relation.as_deref() {
        Some("merge") => (Kind::Merge, "merge"),
        Some("adapter") => (Kind::Adapter, "adapter"),
        Some("quantized") => (Kind::Quantized, "quantized"),
        Some("finetune") => (Kind::Finetune, "finetune"),
        // As the hub takes them.
        _ if several => (Kind::Merge, "merge"),
        _ => (Kind::Finetune, "finetune"),
    };
    let share = Some(1.0 / card.base_models.len() as f64);
    let parents = card.base_models.iter().map(|name| Parent {
        model: reference(name, locate),
        lora: None,
        method: method.to_owned(),
        weight: None,
        share,
    });
    Described {
        folder: folder.to_owned(),
        kind,
        content: None,
        basis: if several { Basis::Equal } else { Basis::Weights },
        parents: parents.collect(),
    }
}

/// Whether a folder without words of a parent has a model: weights, or a model's configuration.
fn has_model(folder: &Path) -> bool {
    let weights = |name: &str| {
        let end = Path::new(name).extension().and_then(|end| end.to_str()).unwrap_or_default();
        matches!(end, "safetensors" | "gguf") || name == "pytorch_model.bin"
    };
    let config = || -> Option<bool> {
        let config: Value =
            serde_json::from_slice(&fs::read(folder.join("config.json")).ok()?).ok()?;
        Some(config.get("model_type").or(config.get("architectures")).is_some())
    };
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    files.into_iter().any(|file| weights(&file.file_name().to_string_lossy()))
        || config() == Some(true)
}
