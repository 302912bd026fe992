//! The files of a tokenizer beside `tokenizer.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::tokenizer_json::AddedToken;
use crate::Error;

/// Contents by file name, ready to be written into a checkpoint's folder. The names may lead into
/// `additional_chat_templates/`.
pub type Files = BTreeMap<String, Vec<u8>>;

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL: &str = "special_tokens_map.json";
pub(super) const ADDED: &str = "added_tokens.json";
pub(super) const TEMPLATE: &str = "chat_template.jinja";
/// Where processors of vision-language models had their template.
pub(super) const PROCESSOR_TEMPLATE: &str = "chat_template.json";
pub(super) const TEMPLATES: &str = "additional_chat_templates";

/// Vocabularies in formats that cannot be extended here.
pub(super) const OTHER_FORMATS: [&str; 8] = [
    "tokenizer.model",
    "tokenizer.model.v3",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
];

/// All files of a checkpoint's tokenizer, as they are. A folder without a tokenizer has none.
///
/// # Errors
/// For a file that cannot be read.
pub fn tokenizer_files(folder: &Path) -> Result<Files, Error> {
    let mut files = Files::new();
    let names = [TOKENIZER, CONFIG, SPECIAL, ADDED, TEMPLATE, PROCESSOR_TEMPLATE];
    for name in names.into_iter().chain(OTHER_FORMATS) {
        if let Some(bytes) = read(&folder.join(name))? {
            files.insert(name.to_owned(), bytes);
        }
    }
    let templates = folder.join(TEMPLATES);
    if templates.is_dir() {
        for entry in std::fs::read_dir(&templates).map_err(Error::io(&templates))? {
            let path = entry.map_err(Error::io(&templates))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.extension().is_some_and(|extension| extension == "jinja")
                && let Some(bytes) = read(&path)?
            {
                files.insert(format!("{TEMPLATES}/{name}"), bytes);
            }
        }
    }
    Ok(files)
}

/// The content of a file, or `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// A JSON object of a folder, empty where the file is missing.
pub(super) fn object(folder: &Path, name: &str) -> Result<Map<String, Value>, Error> {
    let path = folder.join(name);
    match read(&path)? {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(Error::json(path)),
        None => Ok(Map::new()),
    }
}

/// What the configuration of a tokenizer says about tokens.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Such as `eos_token`, with its token.
    pub roles: Vec<(String, String)>,
    /// Every token that is named, in the order in which transformers adds those that
    /// `tokenizer.json` lacks.
    pub tokens: Vec<AddedToken>,
}

/// The tokens that `tokenizer_config.json` and `special_tokens_map.json` name.
pub(super) fn named(folder: &Path) -> Result<Named, Error> {
    let config = object(folder, CONFIG)?;
    let special = object(folder, SPECIAL)?;
    let mut named = Named::default();
    if let Some(Value::Object(decoder)) = config.get("added_tokens_decoder") {
        let mut tokens: Vec<AddedToken> = Vec::new();
        for (id, value) in decoder {
            let id = id.parse().map_err(|_| {
                let reason = format!("`added_tokens_decoder` has the key `{id}`, expected an id");
                Error::checkpoint(folder.join(CONFIG), reason)
            })?;
            tokens.extend(token_of(value, false).map(|token| AddedToken { id, ..token }));
        }
        tokens.sort_by_key(|token| token.id);
        named.tokens = tokens;
    }
    for (key, value) in config.iter().chain(&special) {
        if let (true, Some(token)) = (key.ends_with("_token"), token_of(value, true)) {
            if named.roles.iter().any(|(role, _)| role == key) {
                continue;
            }
            named.roles.push((key.clone(), token.content.clone()));
            named.tokens.push(token);
        }
    }
    for (key, value) in config.iter().chain(&special).filter(|(key, _)| is_list(key)) {
        let values: Vec<&Value> = match value {
            Value::Array(values) => values.iter().collect(),
            Value::Object(values) => values.values().collect(),
            Value::Null => continue,
            other => {
                let reason = format!("`{key}` is {other}, expected a list of tokens");
                return Err(Error::checkpoint(folder.join(CONFIG), reason));
            }
        };
        named.tokens.extend(values.into_iter().filter_map(|value| token_of(value, true)));
    }
    Ok(named)
}

fn is_list(key: &str) -> bool {
    matches!(key, "additional_special_tokens" | "extra_special_tokens")
}

/// A token as text, or as an object with its settings.
fn token_of(value: &Value, special: bool) -> Option<AddedToken> {
    let content = content_of(value)?;
    let flag = |key, or| value.get(key).and_then(Value::as_bool).unwrap_or(or);
    let special = flag("special", special);
    Some(AddedToken {
        id: 0,
        content: content.to_owned(),
        single_word: flag("single_word", false),
        lstrip: flag("lstrip", false),
        rstrip: flag("rstrip", false),
        normalized: flag("normalized", !special),
        special,
    })
}

fn content_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// Brings the companions of `files` in line with a vocabulary that has changed: `added` are all of
/// its added tokens, `has` says whether it has a token. What had to go is told in `warnings`.
pub(super) fn update(
    files: &mut Files,
    folder: &Path,
    added: &[AddedToken],
    has: impl Fn(&str) -> bool,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    for name in OTHER_FORMATS {
        if files.remove(name).is_some() {
            warnings.push(format!(
                "{name} is not carried over: it does not hold the merged vocabulary, \
                 {TOKENIZER} does"
            ));
        }
    }
    for name in [CONFIG, SPECIAL] {
        let Some(bytes) = files.get(name) else { continue };
        let mut config: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(Error::json(folder.join(name)))?;
        config.retain(|key, value| match content_of(value) {
            Some(token) if key.ends_with("_token") && !token.is_empty() && !has(token) => {
                warnings.push(format!(
                    "{name}: `{key}` is left out, the merged vocabulary has no token `{token}`"
                ));
                false
            }
            _ => true,
        });
        for (key, value) in config.iter_mut().filter(|(key, _)| is_list(key)) {
            let mut gone = |value: &Value| match content_of(value) {
                Some(token) if !has(token) => {
                    warnings.push(format!(
                        "{name}: `{token}` is left out of `{key}`, the merged vocabulary has no \
                         such token"
                    ));
                    true
                }
                _ => false,
            };
            match value {
                Value::Array(values) => values.retain(|value| !gone(value)),
                Value::Object(values) => values.retain(|_, value| !gone(value)),
                _ => {}
            }
        }
        if let Some(decoder) = config.get_mut("added_tokens_decoder") {
            *decoder = added.iter().map(|t| (t.id.to_string(), settings(t))).collect();
        }
        files.insert(name.to_owned(), pretty(&config));
    }
    if let Some(bytes) = files.get(ADDED) {
        let before: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(Error::json(folder.join(ADDED)))?;
        let mut ids = Map::new();
        for (token, _) in before {
            if let Some(found) = added.iter().find(|t| t.content == token) {
                ids.insert(token, found.id.into());
            }
        }
        for token in added {
            ids.entry(token.content.clone()).or_insert_with(|| token.id.into());
        }
        files.insert(ADDED.to_owned(), pretty(&ids));
    }
    Ok(())
}

fn settings(token: &AddedToken) -> Value {
    serde_json::json!({
        "content": token.content,
        "lstrip": token.lstrip,
        "normalized": token.normalized,
        "rstrip": token.rstrip,
        "single_word": token.single_word,
        "special": token.special,
    })
}

/// JSON in the layout of the Hugging Face libraries.
pub(super) fn pretty(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("keys are strings");
    bytes.push(b'\n');
    bytes
}
