//! `examples/merge.rs`, `merge_search.rs`, `adapters.rs` and `family_tree.rs` on tiny models, as a user runs them.

use std::fs;
use std::path::Path;

use crate::init_model::{sibling, tiny_model};
use crate::support::{Files, Program, root};

const PROGRAM: Program = Program("merge");

/// The tiny model and two siblings, and an example configuration that names them.
fn configuration(files: &Files, name: &str) -> String {
    let model = tiny_model(files);
    sibling(files, "model-2", "2");
    sibling(files, "model-3", "3");
    let text = fs::read_to_string(root().join("examples/merges").join(name)).unwrap();
    files.write(name, &text.replace("tiny-model", &model))
}

#[test]
fn every_example_is_planned_merged_verified_and_answers() {
    let mut seen = 0;
    for entry in fs::read_dir(root().join("examples/merges")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let files = Files::new();
        let (config, out) = (configuration(&files, &name), files.path("merged"));
        let plan = PROGRAM.stdout(&[&config, &out, "--plan"]);
        assert!(plan.contains("model.layers.0.mlp.up_proj.weight"), "{plan}");
        assert!(plan.contains("reads ") && plan.contains(" of memory"), "{plan}");
        assert!(!Path::new(&out).exists(), "a plan writes nothing");
        let verified = PROGRAM.stdout(&[&config, &out, "--verify", "--threads", "2"]);
        assert!(verified.contains("0 differences"), "{verified}");
        let (_, said) = PROGRAM.answer(&[&config, &out, "--verify"], "");
        assert!(said.contains("merged already"), "{said}");
        let answer = Program("chat").stdout(&["--model", &out, "--prompt", "Hello", "--json"]);
        assert!(answer.contains("finish_reason"), "{answer}");
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn what_does_not_fit_is_told_and_nothing_is_written() {
    let files = Files::new();
    let (good, out) = (configuration(&files, "ties.yaml"), files.path("merged"));
    let text = fs::read_to_string(&good).unwrap();
    for (from, to, expected) in [
        ("merge_method: ties", "merge_method: tiess", "(did you mean `ties`?)"),
        ("density: 0.5", "densty: 0.5", "(did you mean `density`?)"),
        ("density: 0.5", "density: 1.5", "`density` is 1.5"),
        ("model-3", "model-4", "no such folder"),
        ("base_model:", "base_modl:", "(did you mean `base_model`?)"),
        (
            "merge_method: ties",
            "merge_method: slerp",
            "slerp merges exactly 1 models besides the base",
        ),
    ] {
        let bad = files.write("bad.yaml", &text.replace(from, to));
        let said = PROGRAM.failure(&[&bad, &out]);
        assert!(said.contains(expected), "{from} -> {to}: {said}");
        assert!(!Path::new(&out).exists());
    }
    let said = PROGRAM.failure(&[&good, &out, "--memory", "1MB"]);
    assert!(said.contains("`memory` is 1000000"), "{said}");
    let weights = files.path("model-3/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 100]).unwrap();
    let said = PROGRAM.failure(&[&good, &out]);
    assert!(said.contains("cut off") && said.contains("model-3"), "{said}");
}

#[test]
fn a_changed_byte_is_found() {
    let files = Files::new();
    let (config, out) = (configuration(&files, "slerp.yaml"), files.path("merged"));
    PROGRAM.answer(&[&config, &out], "");
    let weights = files.path("merged/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let output = PROGRAM.run(&[&config, &out, "--verify"], "");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        !output.status.success() && said.contains("is another when it is computed again"),
        "{said}"
    );
}

#[test]
fn the_tree_of_a_merge_of_merges() {
    let files = Files::new();
    let (linear, first) = (configuration(&files, "linear.yaml"), files.path("first"));
    PROGRAM.answer(&[&linear, &first], "");
    let second = files.write(
        "second.yaml",
        &format!(
            "merge_method: linear\nmodels:\n- model: {first}\n  parameters: {{weight: 3}}\n- model: {}\n  parameters: {{weight: 1}}\n",
            files.path("model-3")
        ),
    );
    let merged = files.path("second");
    PROGRAM.answer(&[&second, &merged], "");
    let svg = files.path("tree.svg");
    let text = Program("family_tree").stdout(&[&merged, "--svg", &svg]);
    for share in ["37.5", "25"] {
        assert!(text.contains(share), "{share} % is somebody's share: {text}");
    }
    assert!(fs::read_to_string(svg).unwrap().contains("<svg"));
}

#[test]
fn an_adapter_is_extracted_and_added_again() {
    let files = Files::new();
    let base = tiny_model(&files);
    let tuned = sibling(&files, "model-2", "2");
    let (adapter, added) = (files.path("adapter"), files.path("added"));
    let program = Program("adapters");
    // All singular values of a matrix of 64 rows.
    let said = program.stdout(&["extract", &base, &tuned, &adapter, "--rank", "64"]);
    assert!(said.contains("rank"), "{said}");
    program.answer(&["add", &base, &adapter, &added], "");
    let read = |folder: &str| {
        let checkpoint = posttrain::merge::Checkpoint::open(folder).unwrap();
        let tensor = &checkpoint.tensors()["model.layers.1.self_attn.q_proj.weight"];
        let mut values = vec![0.0; tensor.numel()];
        posttrain::merge::dtype::decode(tensor.dtype(), tensor.bytes(), &mut values);
        values
    };
    for (a, b) in read(&added).into_iter().zip(read(&tuned)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn a_search_goes_on_where_it_was() {
    let files = Files::new();
    let config = configuration(&files, "linear.yaml");
    let store = files.path("search.sqlite");
    let search = |trials: &str| {
        let number = "models[0].parameters.weight=0..1";
        let args = ["--store", &store, "--number", number, "--grid", "3", "--trials", trials];
        let score = ["--score", "wc -c < {}/model.safetensors"];
        Program("merge_search").answer(&[&[config.as_str()], &args[..], &score[..]].concat(), "")
    };
    let (best, said) = search("2");
    assert!(best.contains("merge_method: linear"), "{best}");
    assert!(said.contains("trial 0: ") && said.contains("trial 1: "), "{said}");
    let (_, said) = search("4");
    assert!(!said.contains("trial 1: ") && said.contains("trial 3: "), "{said}");
}
