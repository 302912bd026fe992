//! Where a checkpoint folder keeps its chat templates and special tokens.

use std::path::Path;

use serde_json::{Map, Value as Json};

use crate::error::{Error, Result, kind, read, read_json};

/// `tokenizer_config.json` as an object; empty when the file is absent.
pub(crate) fn tokenizer_config(folder: &Path) -> Result<Map<String, Json>> {
    json_object(&folder.join("tokenizer_config.json"))
}

fn json_object(path: &Path) -> Result<Map<String, Json>> {
    if !path.exists() {
        return Ok(Map::new());
    }
    match read_json(path)? {
        Json::Object(object) => Ok(object),
        found => Err(Error::Form {
            what: path.display().to_string(),
            found: kind(&found),
            expected: "an object",
        }),
    }
}

/// The templates by name. Files of their own win over the configuration.
pub(crate) fn templates(
    folder: &Path,
    config: &Map<String, Json>,
) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let default = folder.join("chat_template.jinja");
    if default.exists() {
        found.push(("default".to_owned(), read(&default)?));
    }
    let additional = folder.join("additional_chat_templates");
    if additional.is_dir() {
        let read_dir = |source| Error::Read { path: additional.clone(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&additional).map_err(read_dir)? {
            paths.push(entry.map_err(read_dir)?.path());
        }
        paths.sort();
        for path in paths {
            let is_template = path.extension().is_some_and(|extension| extension == "jinja");
            if let (true, Some(name)) = (is_template, path.file_stem().and_then(|s| s.to_str())) {
                found.push((name.to_owned(), read(&path)?));
            }
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let path = folder.join("tokenizer_config.json");
    if let Some(templates) = config.get("chat_template").filter(|value| !value.is_null()) {
        return from_json(&path, templates);
    }
    let path = folder.join("chat_template.json");
    match json_object(&path)?.get("chat_template") {
        Some(templates) => from_json(&path, templates),
        None => Ok(Vec::new()),
    }
}

/// A template as a string, or a list of `{"name": ..., "template": ...}`.
fn from_json(path: &Path, templates: &Json) -> Result<Vec<(String, String)>> {
    let form = |what: &str, found: &Json| Error::Form {
        what: format!("`chat_template`{what} in {}", path.display()),
        found: kind(found),
        expected: "a string, or a list of objects with `name` and `template`",
    };
    match templates {
        Json::String(template) => Ok(vec![("default".into(), template.clone())]),
        Json::Array(templates) => templates
            .iter()
            .enumerate()
            .map(|(i, item)| {
                let field = |name| item.get(name).and_then(Json::as_str).map(str::to_owned);
                field("name").zip(field("template")).ok_or_else(|| form(&format!("[{i}]"), item))
            })
            .collect(),
        // A processor's file can hold an object of names.
        Json::Object(templates) => templates
            .iter()
            .map(|(name, item)| match item {
                Json::String(template) => Ok((name.clone(), template.clone())),
                found => Err(form(&format!(".{name}"), found)),
            })
            .collect(),
        found => Err(form("", found)),
    }
}

/// The named special tokens: `bos_token`, `eos_token` and every other `*_token`. Those of
/// `special_tokens_map.json` count where `tokenizer_config.json` does not describe its tokens itself.
pub(crate) fn special_tokens(
    folder: &Path,
    config: &Map<String, Json>,
) -> Result<Map<String, Json>> {
    let mut tokens = Map::new();
    let mut take = |object: &Map<String, Json>, all: bool| {
        for (name, value) in object {
            let text = value.as_str().or_else(|| value.get("content").and_then(Json::as_str));
            if let (true, Some(text)) = (all || name.ends_with("_token"), text) {
                tokens.insert(name.clone(), text.into());
            }
        }
    };
    take(config, false);
    if let Some(Json::Object(extra)) = config.get("extra_special_tokens") {
        take(extra, true);
    }
    if !config.contains_key("added_tokens_decoder") {
        take(&json_object(&folder.join("special_tokens_map.json"))?, false);
    }
    Ok(tokens)
}

/// `chat_control_tokens`: the added tokens that count as control tokens besides the special ones,
/// for templates that build them from pieces.
pub(crate) fn control_tokens(
    folder: &Path,
    config: &Map<String, Json>,
) -> Result<Option<Vec<String>>> {
    let form = |found: &Json| Error::Form {
        what: format!(
            "`chat_control_tokens` in {}",
            folder.join("tokenizer_config.json").display()
        ),
        found: kind(found),
        expected: "a list of strings",
    };
    match config.get("chat_control_tokens") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Array(tokens)) => {
            let text = |token: &Json| token.as_str().map(str::to_owned).ok_or_else(|| form(token));
            tokens.iter().map(text).collect::<Result<_>>().map(Some)
        }
        Some(found) => Err(form(found)),
    }
}
