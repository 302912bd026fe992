//! The files of a checkpoint folder beside the weights and `config.json`.

use std::path::Path;

use super::{io_error, is_file_name};
use crate::error::Error;

/// What transformers writes with a tokenizer and a generating model, and how steps are marked.
const NAMES: &[&str] = &[
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
    crate::reward::CONVENTION,
];
/// Templates for other uses than chat, such as `tool_use.jinja`.
const TEMPLATES: &str = "additional_chat_templates";

/// Whether a file, named from its checkpoint folder with `/`, belongs to the tokenizer or to
/// generation.
pub(super) fn is_companion(name: &str) -> bool {
    let template = name.strip_prefix(TEMPLATES).and_then(|rest| rest.strip_prefix('/'));
    NAMES.contains(&name)
        || template.is_some_and(|file| {
            is_file_name(file) && Path::new(file).extension().is_some_and(|kind| kind == "jinja")
        })
}

/// The tokenizer, chat template and generation files of a folder with their content, for
/// [`SaveOptions::companions`](super::SaveOptions::companions). `config.json` is not among them: it
/// says the dtype of the weights, so whoever saves those writes it.
///
/// # Errors
/// When a file cannot be read.
pub fn read_companions(folder: impl AsRef<Path>) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let folder = folder.as_ref();
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io_error(folder))? {
        let entry = entry.map_err(io_error(folder))?;
        names.extend(entry.file_name().into_string());
    }
    let templates = folder.join(TEMPLATES);
    if templates.is_dir() {
        for entry in std::fs::read_dir(&templates).map_err(io_error(&templates))? {
            let entry = entry.map_err(io_error(&templates))?;
            names.extend(entry.file_name().into_string().map(|name| format!("{TEMPLATES}/{name}")));
        }
    }
    names.retain(|name| is_companion(name));
    names.sort();
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let path = folder.join(&name);
        let content = std::fs::read(&path).map_err(io_error(&path))?;
        files.push((name, content));
    }
    Ok(files)
}

/// Copy the files of [`read_companions`] to another folder, which is made where it is missing.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_companions(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Error> {
    let to = to.as_ref();
    for (name, content) in read_companions(from)? {
        let path = to.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io_error(parent))?;
        }
        std::fs::write(&path, content).map_err(io_error(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_foreign_files_are_not_companions() {
        for name in
            ["tokenizer.json", "additional_chat_templates/tool_use.jinja", "generation_config.json"]
        {
            assert!(is_companion(name), "{name}");
        }
        for name in [
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "additional_chat_templates/../x.jinja",
            "additional_chat_templates/",
            "modeling_x.py",
        ] {
            assert!(!is_companion(name), "{name}");
        }
    }
}
