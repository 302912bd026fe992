//! `verify` tells everything that changed at once, and `replay` names the tensors that come out otherwise.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod checkpoints;

use std::path::{Path, PathBuf};

use checkpoints::{config, llama, plan, says, write_model, write_shards, yaml};
use posttrain_merge::dtype::Dtype;
use posttrain_merge::manifest::{Difference, Whose};
use posttrain_merge::{Checkpoint, Execution, execute, replay, verify};

/// Inverts the last byte of a tensor in its file.
fn change(folder: &Path, tensor: &str) {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let found = &checkpoint.tensors()[tensor];
    let path = found.file().to_owned();
    let mut bytes = std::fs::read(&path).unwrap();
    let place =
        bytes.windows(found.bytes().len()).position(|window| window == found.bytes()).unwrap();
    bytes[place + found.bytes().len() - 1] ^= 0x81;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn merged(scratch: &Path, shard_size: u64) -> (String, PathBuf) {
    let a = write_model(&scratch.join("a"), &config(2), &llama(1, Dtype::BF16, 2));
    let entries = llama(2, Dtype::BF16, 2);
    let b = write_shards(&scratch.join("b"), &config(2), &[&entries[..4], &entries[4..]]);
    let text = yaml("linear", &[(&a, "weight: 1"), (&b, "weight: 2")], "");
    let out = scratch.join("out");
    let execution = Execution { shard_size, ..Execution::default() };
    execute(&plan(&text).unwrap(), &out, &execution, &|_| true).unwrap();
    let report = verify(&out).unwrap();
    assert!(report.is_ok() && report.tensors == 27, "{report}");
    (text, out)
}

#[test]
fn everything_that_changed_is_told_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let (text, out) = merged(scratch.path(), u64::MAX);
    let before = plan(&text).unwrap();
    change(&out, "model.norm.weight");
    change(&scratch.path().join("a"), "lm_head.weight");
    let config = std::fs::read_to_string(out.join("config.json")).unwrap();
    std::fs::write(
        out.join("config.json"),
        config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
    )
    .unwrap();
    std::fs::remove_file(out.join("README.md")).unwrap();
    std::fs::write(out.join("extra.txt"), "x").unwrap();
    std::fs::remove_file(scratch.path().join("b/model-00002-of-00002.safetensors")).unwrap();
    let report = verify(&out).unwrap();
    let gone: Vec<String> =
        llama(2, Dtype::BF16, 2)[4..].iter().map(|entry| entry.name.clone()).collect();
    let has = |whose: &str, difference: Difference| {
        let whose = match whose {
            "" => Whose::Output,
            name => Whose::Input(scratch.path().join(name).display().to_string()),
        };
        assert!(
            report.differences.contains(&(whose, difference.clone())),
            "{difference}: {report}"
        );
    };
    has("", Difference::TensorBytes { tensor: "model.norm.weight".into() });
    has("", Difference::Config);
    has("", Difference::FileMissing { file: "README.md".into() });
    has("", Difference::FileExtra { file: "extra.txt".into() });
    has("a", Difference::TensorBytes { tensor: "lm_head.weight".into() });
    has("b", Difference::FileMissing { file: "model-00002-of-00002.safetensors".into() });
    for tensor in &gone {
        has("b", Difference::TensorMissing { tensor: tensor.clone() });
    }
    assert_eq!(report.differences.len(), 6 + gone.len(), "{report}");
    says(
        &report.to_string(),
        &[
            "output: tensor `model.norm.weight` has other bytes",
            "output: `config.json` is another",
            "a`: tensor `lm_head.weight` has other bytes",
            &format!("27 tensors compared, {} differences", 6 + gone.len()),
        ],
    );
    // With the inputs as they were.
    let execution = Execution::default();
    let differ = replay(&before, &Checkpoint::open(&out).unwrap(), &execution).unwrap();
    assert_eq!(differ, ["model.norm.weight"]);
}

#[test]
fn inputs_that_changed_are_seen_by_replay() {
    let scratch = tempfile::tempdir().unwrap();
    let (text, out) = merged(scratch.path(), u64::MAX);
    let unchanged =
        replay(&plan(&text).unwrap(), &Checkpoint::open(&out).unwrap(), &Execution::default());
    assert!(unchanged.unwrap().is_empty());
    change(&scratch.path().join("a"), "lm_head.weight");
    let differ =
        replay(&plan(&text).unwrap(), &Checkpoint::open(&out).unwrap(), &Execution::default());
    assert_eq!(differ.unwrap(), ["lm_head.weight"]);
    std::fs::remove_dir_all(scratch.path().join("b")).unwrap();
    let report = verify(&out).unwrap().to_string();
    says(&report, &["is no longer at", "tensor `lm_head.weight` has other bytes"]);
}

#[test]
fn broken_outputs() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, out) = merged(scratch.path(), 1000);
    // A file of several that is cut off, one that is gone, and no index.
    let files: Vec<PathBuf> = Checkpoint::open(&out).unwrap().files().to_vec();
    let tensors = |file: &Path| Checkpoint::open(file).unwrap().tensors().len();
    let lost = tensors(&files[0]) + tensors(&files[1]);
    let bytes = std::fs::read(&files[0]).unwrap();
    std::fs::remove_file(&files[0]).unwrap();
    std::fs::write(&files[0], &bytes[..bytes.len() - 1]).unwrap();
    std::fs::remove_file(&files[1]).unwrap();
    std::fs::remove_file(out.join("model.safetensors.index.json")).unwrap();
    let report = verify(&out).unwrap();
    assert_eq!(report.differences.len(), lost + 3, "{report}");
    let text = report.to_string();
    let length = bytes.len();
    says(
        &text,
        &[
            "output: file `model.safetensors.index.json` is gone",
            &format!("has {} bytes, had {length}", length - 1),
            "is gone",
        ],
    );
    // All of it but the manifest.
    for entry in std::fs::read_dir(&out).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("merge.json") {
            std::fs::remove_file(path).unwrap();
        }
    }
    says(
        &verify(&out).unwrap().to_string(),
        &["output: `config.json` is another", "lm_head.weight` is gone"],
    );
    std::fs::write(out.join("merge.json"), "{").unwrap();
    says(&verify(&out).unwrap_err().to_string(), &["out/merge.json: EOF"]);
}
