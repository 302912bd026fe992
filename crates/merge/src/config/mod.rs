//! mergekit's YAML: what to merge, how, and with which parameters.
//!
//! The keys are those of mergekit 0.1.5 (`config.py`, `tokenizer/config.py`), also of its files with
//! several documents and of its raw checkpoints. Where mergekit keeps silent, this does not: unknown keys,
//! empty lists, repeated keys and values of another type are errors, all of them at once, each with its
//! line, its key path and what was expected.

mod blocks;
mod documents;
mod key_path;
mod model_ref;
mod node;
mod parameter;
mod read;
mod read_model;
mod read_parameters;
mod read_tokenizer;
mod reader;
mod references;
mod suggestion;
mod tokenizer;
mod types;
mod write;

use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::Error;
pub use blocks::{Block, Known, Scope};
pub use key_path::{get, set};
pub use model_ref::{Lora, ModelRef};
pub use parameter::{
    Conditional, Kind, Parameters, Scalar, ScalarOrGradient, Setting, resolve, resolve_boolean,
    resolve_integer, resolve_number,
};
pub use suggestion::suggestion;
pub use tokenizer::{TokenConfig, TokenName, TokenSource, TokenizerConfig, TokenizerSource};
pub use types::{Body, InputModel, InputSlice, MergeConfig, ModuleBody, OutputModule, OutputSlice};

const EMPTY: &str =
    "the file is empty, expected `merge_method` and `models`, `slices` or `modules`";

impl MergeConfig {
    /// Reads a file with one merge.
    ///
    /// # Errors
    /// [`Error::Io`], and those of [`parse`](Self::parse).
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        Self::parse(path, &text(path)?)
    }

    /// Reads a text with one merge; `path` is what errors name.
    ///
    /// # Errors
    /// [`Error::ConfigFile`] for what is not YAML, for none or several documents, and with everything
    /// that is wrong with the one.
    ///
    /// # Examples
    /// ```
    /// use posttrain_merge::config::MergeConfig;
    ///
    /// let text = "merge_method: linear\nmodels:\n- model: a\n  parametres: {weight: 1}\n";
    /// let error = MergeConfig::parse("merge.yaml", text).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "merge.yaml: line 4: unknown key `models[0].parametres` (did you mean `parameters`?)"
    /// );
    /// ```
    pub fn parse(path: impl AsRef<Path>, text: &str) -> Result<Self, Error> {
        let path = path.as_ref();
        let fail = |reason| Error::ConfigFile { path: path.to_owned(), reason };
        let nodes = node::documents(text).map_err(fail)?;
        match &*nodes {
            [] => Err(fail(EMPTY.into())),
            [one] => from_node(path, one),
            [_, second, ..] => {
                let (count, line) = (nodes.len(), second.line);
                Err(fail(format!("{count} documents (the second from line {line}), expected one")))
            }
        }
    }

    /// The configuration of a tree, as [`to_value`](Self::to_value) makes them.
    ///
    /// # Errors
    /// [`Error::ConfigFile`] for `<config>` with everything that is wrong.
    pub fn from_value(value: &Value) -> Result<Self, Error> {
        from_node(Path::new("<config>"), &node::Node::from(value))
    }

    /// The line of a key path such as `models[1].parameters.weight`, if it stands in the file.
    pub fn line(&self, path: &str) -> Option<usize> {
        self.origin.lines.get(path).copied().filter(|line| *line > 0)
    }

    /// The error that what stands at a key path cannot be: `FILE: line N: reason`.
    pub fn error(&self, path: &str, reason: impl fmt::Display) -> Error {
        let line = self.line(path).map_or(String::new(), |line| format!("line {line}: "));
        Error::ConfigFile { path: self.origin.file.clone(), reason: format!("{line}{reason}") }
    }

    /// The section `tokenizer`, also where it is written as `tokenizer_source`; `None` where neither is.
    pub fn tokenizer_section(&self) -> Option<TokenizerConfig> {
        let short = |source: &TokenizerSource| TokenizerConfig {
            source: source.clone(),
            tokens: Vec::new(),
            pad_to_multiple_of: None,
        };
        self.tokenizer.clone().or_else(|| self.tokenizer_source.as_ref().map(short))
    }
}

fn from_node(path: &Path, node: &node::Node) -> Result<MergeConfig, Error> {
    let mut problems = reader::Problems::default();
    let config = read::config(path, node, &mut problems);
    let fail = |reason| Error::ConfigFile { path: path.to_owned(), reason };
    problems.finish().map_err(fail)?;
    config.ok_or_else(|| fail("it could not be read".into()))
}

fn text(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].split(|byte| *byte == b'\n').count();
        let reason = format!("line {line}: no UTF-8 text (byte {valid})");
        Error::ConfigFile { path: path.to_owned(), reason }
    })
}
