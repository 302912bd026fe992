//! The merged model's chat template: mergekit's `chat_template`.
//!
//! The built-in ones render the published formats of their models. Where mergekit's of the same name
//! do not (stray blank lines in `llama3` and `exaone`, no end of sequence in `alpaca`), these differ
//! from them; `chatml` and `mistral` render the same text.

use std::path::Path;

use serde_json::{Map, Value};

use super::files::{self, Files};
use crate::Error;

/// Names of the built-in templates and their Jinja texts.
pub const BUILTIN_TEMPLATES: [(&str, &str); 5] = [
    ("alpaca", include_str!("chat_templates/alpaca.jinja")),
    ("chatml", include_str!("chat_templates/chatml.jinja")),
    ("exaone", include_str!("chat_templates/exaone.jinja")),
    ("llama3", include_str!("chat_templates/llama3.jinja")),
    ("mistral", include_str!("chat_templates/mistral.jinja")),
];

/// The tokens that a built-in template writes as control tokens.
const MARKERS: [(&str, &[&str]); 3] = [
    ("chatml", &["<|im_start|>", "<|im_end|>"]),
    ("llama3", &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    ("exaone", &["[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"]),
];

/// A `chat_template` of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatTemplate {
    /// The template that most inputs have.
    Auto,
    /// Position in [`BUILTIN_TEMPLATES`].
    Builtin(usize),
    /// A template in Jinja.
    Text(String),
}

impl ChatTemplate {
    /// `auto`, the name of a built-in template, or Jinja text.
    ///
    /// # Errors
    /// For a text that is none of them: no Jinja has neither `{{` nor `{%`.
    pub fn parse(value: &str) -> Result<Self, Error> {
        if value == "auto" {
            return Ok(Self::Auto);
        }
        if let Some(at) = BUILTIN_TEMPLATES.iter().position(|(name, _)| *name == value) {
            return Ok(Self::Builtin(at));
        }
        if value.contains("{{") || value.contains("{%") {
            return Ok(Self::Text(value.to_owned()));
        }
        let names: Vec<&str> = BUILTIN_TEMPLATES.iter().map(|(name, _)| *name).collect();
        let near = std::iter::once("auto")
            .chain(names.iter().copied())
            .find(|name| strsim::damerau_levenshtein(name, value) <= 2);
        let hint = near.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        let expected = format!("`auto`, one of {}, or a Jinja text{hint}", names.join(", "));
        Err(Error::value("chat_template", format!("`{value}`"), expected))
    }

    /// The Jinja text; `None` where it is `auto` and no input has a template. With equally many
    /// votes the template of the earlier input wins.
    ///
    /// # Errors
    /// For a tokenizer configuration of an input that cannot be read.
    pub fn resolve(&self, inputs: &[&Path]) -> Result<Option<String>, Error> {
        match self {
            Self::Text(text) => Ok(Some(text.clone())),
            Self::Builtin(at) => Ok(Some(BUILTIN_TEMPLATES[*at].1.to_owned())),
            Self::Auto => {
                let mut votes: Vec<(String, usize)> = Vec::new();
                for input in inputs {
                    let Some(text) = template_of(input)? else { continue };
                    let text = text.trim();
                    match votes.iter_mut().find(|(other, _)| other == text) {
                        Some((_, count)) => *count += 1,
                        None if text.is_empty() => {}
                        None => votes.push((text.to_owned(), 1)),
                    }
                }
                let most = votes.iter().map(|(_, count)| *count).max();
                let winner = votes.into_iter().find(|(_, count)| Some(*count) == most);
                Ok(winner.map(|(text, _)| text))
            }
        }
    }

    /// A sentence on the control tokens of a built-in template that a vocabulary lacks; they would
    /// be encoded as plain text.
    pub fn missing_tokens(&self, has: impl Fn(&str) -> bool) -> Option<String> {
        let Self::Builtin(at) = self else { return None };
        let name = BUILTIN_TEMPLATES[*at].0;
        let (_, markers) = MARKERS.iter().find(|(of, _)| *of == name)?;
        let lacks: Vec<&str> = markers.iter().copied().filter(|marker| !has(marker)).collect();
        (!lacks.is_empty()).then(|| {
            format!(
                "the vocabulary lacks tokens of the chat template {name}, which will be encoded as \
                 plain text: {}",
                lacks.join(", ")
            )
        })
    }
}

/// The template that transformers loads for a checkpoint: `chat_template.jinja`, or the one in
/// `tokenizer_config.json`, there the one named `default` of several.
fn template_of(folder: &Path) -> Result<Option<String>, Error> {
    let path = folder.join(files::TEMPLATE);
    if let Some(bytes) = files::read(&path)? {
        return match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Error::checkpoint(path, "not UTF-8, expected a Jinja text")),
        };
    }
    let config = files::object(folder, files::CONFIG)?;
    Ok(match config.get("chat_template") {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(list)) => list
            .iter()
            .find(|template| template.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|template| Some(template.get("template")?.as_str()?.to_owned())),
        None | Some(Value::Null) => None,
        Some(other) => {
            let reason = format!("`chat_template` is {other}, expected a text or a list of texts");
            return Err(Error::checkpoint(folder.join(files::CONFIG), reason));
        }
    })
}

/// Makes `template` the only chat template among the files of a tokenizer, in the layout of
/// transformers 5: as `chat_template.jinja`, not in `tokenizer_config.json`. A processor's template
/// of the older layout is replaced where it is.
///
/// # Errors
/// For a `tokenizer_config.json` or `chat_template.json` that does not parse.
pub fn set_chat_template(files: &mut Files, template: &str) -> Result<(), Error> {
    let inner = format!("{}/", files::TEMPLATES);
    files.retain(|name, _| !name.starts_with(&inner));
    files.insert(files::TEMPLATE.to_owned(), template.as_bytes().to_vec());
    if let Some(bytes) = files.get(files::CONFIG) {
        let mut config: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(Error::json(files::CONFIG))?;
        if config.shift_remove("chat_template").is_some() {
            files.insert(files::CONFIG.to_owned(), files::pretty(&config));
        }
    }
    if let Some(bytes) = files.get(files::PROCESSOR_TEMPLATE) {
        let mut config: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(Error::json(files::PROCESSOR_TEMPLATE))?;
        config.insert("chat_template".into(), template.into());
        files.insert(files::PROCESSOR_TEMPLATE.to_owned(), files::pretty(&config));
    }
    Ok(())
}
