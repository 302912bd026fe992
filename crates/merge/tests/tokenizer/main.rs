//! Merged vocabularies: parity with mergekit, encoding and decoding, configurations, templates.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use posttrain_merge::Error;
use posttrain_merge::tokenizer::{
    Input, MergedTokenizer, Source, TokenizerSettings, merge_tokenizers,
};
use serde_json::{Map, Value};

mod behaviour;
mod broken;
mod parity;
mod templates;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge/tokenizers")
}

fn folder(name: &str) -> PathBuf {
    fixtures().join("inputs").join(name)
}

fn merge(
    names: &[&str],
    base: Option<usize>,
    settings: &TokenizerSettings,
) -> Result<MergedTokenizer, Error> {
    let paths: Vec<PathBuf> = names.iter().map(|name| folder(name)).collect();
    merge_paths(&paths, base, settings)
}

fn merge_paths(
    paths: &[PathBuf],
    base: Option<usize>,
    settings: &TokenizerSettings,
) -> Result<MergedTokenizer, Error> {
    let inputs: Vec<Input<'_>> =
        paths.iter().map(|path| Input { path, config: None, rows: None }).collect();
    merge_tokenizers(&inputs, base, settings)
}

fn source(source: Source) -> TokenizerSettings {
    TokenizerSettings { source, ..Default::default() }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn message<T>(result: Result<T, Error>) -> String {
    result.err().unwrap().to_string()
}

fn copy(name: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in folder(name).read_dir().unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
