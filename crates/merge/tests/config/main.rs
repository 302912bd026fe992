//! Configurations: what is read, against mergekit, and what is wrong, in words.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod deviations;
mod documents;
mod errors;
mod fuzz;
mod parity;
mod read;

use std::path::PathBuf;

use posttrain_merge::config::MergeConfig;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge")
}

/// The texts of all configurations, by file name.
fn texts() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(fixtures().join("configs")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let texts: Vec<_> =
        paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect();
    assert!(texts.len() >= 13, "{} configurations", texts.len());
    texts
}

fn parse(text: &str) -> MergeConfig {
    MergeConfig::parse("merge.yaml", text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// What is wrong with a text.
fn wrong(text: &str) -> String {
    match MergeConfig::parse("merge.yaml", text) {
        Ok(config) => panic!("nothing is wrong with\n{text}\n{config:#?}"),
        Err(error) => error.to_string().strip_prefix("merge.yaml: ").unwrap().to_owned(),
    }
}
