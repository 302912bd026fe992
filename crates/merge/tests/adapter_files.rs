//! Adapter folders: what is read, and what is refused by name.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod adapter_support;

use adapter_support::{fixture, write_adapter};
use posttrain_merge::adapter::Adapter;
use serde_json::{Value, json};

const A: &str = "base_model.model.q_proj.lora_A.weight";
const B: &str = "base_model.model.q_proj.lora_B.weight";

fn error_of(settings: &Value, tensors: &[(&str, &[usize])]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4});
    for (key, value) in settings.as_object().unwrap() {
        config[key] = value.clone();
    }
    write_adapter(folder.path(), &config, tensors);
    Adapter::open(folder.path()).map_or_else(|error| error.to_string(), |_| "none".into())
}

#[test]
fn every_adapter_of_the_fixtures_opens() {
    let mut opened = 0;
    for folder in [fixture(""), fixture("../../adapters")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.join("adapter_config.json").exists() {
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let found = Adapter::open(&path);
            if name.contains("pissa") || name == "olora" {
                let error = found.unwrap_err().to_string();
                assert!(error.contains("init_lora_weights"), "{error}");
                continue;
            }
            let adapter = found.unwrap();
            assert!(!adapter.modules().is_empty(), "{name}");
            opened += 1;
        }
    }
    assert!(opened >= 25, "{opened}");
}

/// By hand from the configuration of the fixture: r 4, alpha 6, patterns, divided by the root of the rank.
#[test]
fn ranks_and_scales_of_patterns() {
    let adapter = Adapter::open(fixture("patterns")).unwrap();
    for (module, rank, alpha) in [
        ("model.layers.0.self_attn.q_proj", 3, 6.0),
        ("model.layers.1.self_attn.q_proj", 4, 5.0),
        ("model.layers.0.mlp.down_proj", 2, 3.0),
    ] {
        let delta = adapter.delta_for(&format!("{module}.weight")).unwrap();
        assert_eq!(delta.rank(), rank, "{module}");
        assert!((f64::from(delta.scale) - alpha / (rank as f64).sqrt()).abs() < 1e-6, "{module}");
    }
    assert!(adapter.delta_for("model.layers.0.self_attn.k_proj.weight").is_none());
    assert!(adapter.delta_for("model.layers.0.mlp.down_proj.bias").is_none());
    assert_eq!(adapter.whole().keys().collect::<Vec<_>>(), ["lm_head.weight", "model.norm.weight"]);
}

#[test]
fn settings_that_are_not_read_are_named() {
    let pair: &[(&str, &[usize])] = &[(A, &[2, 3]), (B, &[5, 2])];
    assert_eq!(
        error_of(&json!({"lora_dropout": 0.1, "init_lora_weights": "gaussian"}), pair),
        "none"
    );
    for (settings, part) in [
        (json!({"peft_type": "IA3"}), "`peft_type` is \"IA3\", expected \"LORA\""),
        (json!({"peft_type": null}), "`peft_type` is null"),
        (json!({"r": 0}), "`r` is 0, expected a positive integer"),
        (json!({"lora_alpha": "x"}), "`lora_alpha` is \"x\", expected a number"),
        (json!({"bias": "some"}), "`bias` is \"some\""),
        (json!({"use_qalora": true}), "`use_qalora` is true, expected null"),
        (json!({"target_parameters": ["experts.gate_up_proj"]}), "`target_parameters`"),
        (json!({"trainable_token_indices": [1]}), "`trainable_token_indices`"),
        (json!({"layer_replication": [[0, 2]]}), "`layer_replication`"),
        (json!({"kasa_config": {}}), "`kasa_config`"),
        (json!({"init_lora_weights": "pissa_niter_4"}), "path_initial_model_for_weight_conversion"),
        (json!({"use_rslor": true}), "`use_rslor` is unknown (did you mean `use_rslora`?)"),
        (json!({"rank_pattern": {"q(": 3}}), "`rank_pattern.q(`"),
        (json!({"rank_pattern": {"q": 0}}), "`rank_pattern.q` is 0, expected a positive integer"),
        (
            json!({"modules_to_save": "norm"}),
            "`modules_to_save` is \"norm\", expected a list of names",
        ),
    ] {
        let error = error_of(&settings, pair);
        assert!(error.contains(part), "{error}");
    }
    let error = error_of(&json!({"r": 0, "bias": 3, "x": 1}), pair);
    assert!(error.contains("3 problems"), "{error}");
}

#[test]
fn tensors_without_a_part_are_named() {
    let none = json!({});
    let m = "base_model.model.q_proj.lora_magnitude_vector";
    for (settings, tensors, part) in [
        (&none, &[(A, &[2, 3][..])][..], "module `q_proj`: found A and no B"),
        (&none, &[(B, &[5, 2])], "module `q_proj`: found B and no A"),
        (&none, &[(A, &[3, 3]), (B, &[5, 3])], "expected the rank 2"),
        (&none, &[(A, &[2, 3]), (B, &[5, 1])], "A is [2, 3] and B is [5, 1]"),
        (&none, &[("q_proj.lora_A.weight", &[2, 3])], "begins with `base_model.model.`"),
        (
            &none,
            &[(A, &[2, 3]), (B, &[5, 2]), (m, &[5])],
            "a magnitude, but `use_dora` is not true",
        ),
        (
            &json!({"use_dora": true}),
            &[(A, &[2, 3]), (B, &[5, 2])],
            "no magnitude, but `use_dora` is true",
        ),
        (
            &json!({"use_dora": true}),
            &[(A, &[2, 3]), (B, &[5, 2]), (m, &[4])],
            "has 4 numbers, expected 5",
        ),
        (
            &json!({"lora_bias": true}),
            &[(A, &[2, 3]), (B, &[5, 2])],
            "no bias of B, but `lora_bias`",
        ),
        (
            &none,
            &[("base_model.model.q_proj.lora_C.weight", &[2, 3])],
            "tensor `base_model.model.q_proj.lora_C.weight`: expected lora_A.weight",
        ),
        (&none, &[("base_model.model.norm.weight", &[3])], "nor in `modules_to_save` []"),
        (&none, &[("base_model.model.q_proj.bias", &[3])], "nor in `modules_to_save`"),
        (&none, &[], "no tensors"),
    ] {
        let error = error_of(settings, tensors);
        assert!(error.contains(part), "{error}");
    }
    let bias = [("base_model.model.q_proj.bias", &[3][..])];
    assert_eq!(error_of(&json!({"bias": "all"}), &bias), "none");
    let inside = [("base_model.model.classifier.dense.weight", &[3][..])];
    assert_eq!(error_of(&json!({"modules_to_save": ["classifier"]}), &inside), "none");
}

#[test]
fn a_pickle_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("adapter_config.json"), r#"{"peft_type": "LORA"}"#).unwrap();
    std::fs::write(folder.path().join("adapter_model.bin"), "x").unwrap();
    let error = Adapter::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("pickle"), "{error}");
}
