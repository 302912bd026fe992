//! Every configuration of `examples/configs` is one that its program reads.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use posttrain::train::config::{
    Method, Paths, PreferenceArguments, RewardArguments, Settings, SftArguments,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn reads<M: Method + Clone + Debug + PartialEq>(path: &Path) {
    let name = path.display();
    let config = Settings::<M>::read(path, &[]).unwrap_or_else(|error| panic!("{error}"));
    let data = &config.data;
    for rows in [&data.data, &data.eval_data].into_iter().flat_map(Paths::as_slice) {
        assert!(root().join(rows).exists(), "{name}: there is no {}", rows.display());
    }
    // The resolved settings are a configuration with the same meaning.
    let folder = tempfile::tempdir().unwrap();
    let resolved = folder.path().join("config.yaml");
    std::fs::write(&resolved, config.to_yaml()).unwrap();
    assert_eq!(Settings::<M>::read(&resolved, &[]).unwrap(), config, "{name}");
}

#[test]
fn every_configuration_parses_and_says_how_it_is_run() {
    let mut programs = Vec::new();
    for entry in std::fs::read_dir(root().join("examples/configs")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let run = format!(" -- --config examples/configs/{name}");
        let program = text.lines().find_map(|line| line.strip_prefix('#')?.strip_suffix(&run));
        let program = program.and_then(|command| command.split_once("--example "));
        let (_, program) = program.unwrap_or_else(|| panic!("{name} does not say how it is run"));
        match program {
            "sft" => reads::<SftArguments>(&path),
            "preference" => reads::<PreferenceArguments>(&path),
            "reward" => reads::<RewardArguments>(&path),
            other => panic!("{name}: {other} reads no configuration"),
        }
        programs.push(program.to_owned());
    }
    programs.sort();
    programs.dedup();
    assert_eq!(programs, ["preference", "reward", "sft"], "each program has one");
}
