//! Every configuration of `examples/configs` is one that its program reads.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use posttrain::train::config::SftConfig;

#[test]
fn every_configuration_parses_and_says_how_it_is_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("examples/configs")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(&format!("--config examples/configs/{name}")), "{name}");
        let config = SftConfig::read(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        for data in config.data.data.as_slice() {
            assert!(root.join(data).exists(), "{name}: there is no {}", data.display());
        }
        // The resolved settings are a configuration with the same meaning.
        let folder = tempfile::tempdir().unwrap();
        let resolved = folder.path().join("config.yaml");
        std::fs::write(&resolved, config.to_yaml()).unwrap();
        assert_eq!(SftConfig::read(&resolved, &[]).unwrap(), config, "{name}");
        count += 1;
    }
    assert!(count >= 4);
}
