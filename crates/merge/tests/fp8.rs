//! Checkpoints in fp8 with scales of every form, merged to bf16 as torch computes it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod checkpoints;

use std::path::{Path, PathBuf};

use checkpoints::{Entry, merge, plan, says, write_model, yaml};
use posttrain_merge::Checkpoint;
use posttrain_merge::dtype::Dtype;
use posttrain_merge::plan::Fate;
use serde_json::json;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge/fp8").join(name)
}

/// Whether a merged folder has the expected tensors of this name, bit by bit, and no others.
fn equals_torch(out: &Path, name: &str) {
    let expected = Checkpoint::open(fixture("expected.safetensors")).unwrap();
    let merged = Checkpoint::open(out).unwrap();
    assert_eq!(merged.tensors().len(), 6, "{:?}", merged.tensors().keys());
    for (tensor, found) in merged.tensors() {
        let wanted = &expected.tensors()[&format!("{name}:{tensor}")];
        assert_eq!((found.dtype(), found.shape()), (Dtype::BF16, wanted.shape()), "{tensor}");
        assert!(found.bytes() == wanted.bytes(), "{name}: {tensor}");
    }
    let config = merged.config();
    assert!(!config.contains_key("quantization_config"), "{config:?}");
    assert_eq!(config["dtype"], "bfloat16");
}

#[test]
fn equals_torchs() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["block", "rows"] {
        let model = fixture(name);
        let alone = scratch.path().join(name);
        merge(&yaml("passthrough", &[(&model, "")], ""), &alone).unwrap();
        equals_torch(&alone, name);
        let both = scratch.path().join(format!("{name}+plain"));
        let models: [(&Path, &str); 2] = [(&model, "weight: 1"), (&fixture("plain"), "weight: 3")];
        merge(&yaml("linear", &models, ""), &both).unwrap();
        equals_torch(&both, &format!("{name}+plain"));
    }
}

#[test]
fn scales_are_accounted_for() {
    for (name, scales) in [("block", 3), ("rows", 3)] {
        let plan = plan(&yaml("passthrough", &[(&fixture(name), "")], "")).unwrap();
        let coverage = &plan.coverage()[0];
        let with = |word: &str| {
            coverage.tensors.iter().filter(|(name, _)| name.contains(word)).collect::<Vec<_>>()
        };
        let of_weights = with("weight_scale");
        assert_eq!(of_weights.len(), scales, "{coverage:?}");
        for (_, fate) in of_weights {
            // Read with the weight that they scale.
            assert_eq!(*fate, Fate::Merged(1), "{coverage:?}");
        }
        let of_runs: Vec<_> = with("put_scale").into_iter().chain(with(".k_scale")).collect();
        let left = Fate::Left("scales activations of the quantised model".into());
        assert!(of_runs.len() == 1 && of_runs[0].1 == left, "{coverage:?}");
    }
}

#[test]
fn scales_that_do_not_fit_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let fp8 = |shape: &[usize]| {
        Entry::raw("a.weight", Dtype::F8_E4M3, shape, vec![0x38; shape.iter().product()])
    };
    let config = json!({"model_type": "x", "quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 4]}});
    let error = |weight: Entry, scale: Entry| {
        let model = write_model(&scratch.path().join("a"), &config, &[weight, scale]);
        plan(&yaml("passthrough", &[(&model, "")], "")).unwrap_err().to_string()
    };
    let scale = |shape: &[usize]| {
        Entry::new("a.weight_scale_inv", Dtype::F32, shape, &vec![1.0; shape.iter().product()])
    };
    says(
        &error(fp8(&[5, 5]), scale(&[2, 2])),
        &[
            "tensor `a.weight`: 5 x 5 with scales of shape [2, 2], expected one, one for each row",
            "block of 2 x 4",
        ],
    );
    says(
        &error(fp8(&[2, 2, 2]), scale(&[2, 2])),
        &["fp8 with scales of shape [2, 2, 2], expected a matrix"],
    );
    let integers = Entry::raw("a.weight_scale_inv", Dtype::I32, &[1], vec![0; 4]);
    says(&error(fp8(&[2, 2]), integers), &["its scales are I32, expected floating-point"]);
    let bytes = Entry::raw("a.weight_scale_inv", Dtype::F8_E8M0, &[1], vec![0]);
    says(&error(fp8(&[2, 2]), bytes), &["its scales are F8_E8M0, expected floating-point"]);
    // A scale that is no number is named with the weight that it scales.
    let nan = Entry::new("a.weight_scale_inv", Dtype::F32, &[1], &[f32::NAN]);
    let model = write_model(&scratch.path().join("a"), &config, &[fp8(&[2, 2]), nan]);
    let error =
        merge(&yaml("passthrough", &[(&model, "")], ""), &scratch.path().join("out")).unwrap_err();
    says(
        &error.to_string(),
        &["tensor `a.weight`", "a/model.safetensors: `a.weight` is NaN at element 0"],
    );
}
