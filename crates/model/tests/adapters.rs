//! Adapters against PEFT 0.21: folders that it wrote, logits, losses, gradients, delta weights,
//! merges.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::path::Path;

use burn::tensor::Tensor;
use posttrain_model::adapter::{AdapterSave, LoraConfig, Merge};
use posttrain_model::{Decoder, LoadOptions, Noise};
use support::adapted::{Case, folder, json};
use support::{Expected, device, distance, numbers};

fn all_cases() -> Vec<String> {
    let mut cases: Vec<String> = std::fs::read_dir(folder(""))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    cases.sort();
    assert_eq!(cases.len(), 20, "{cases:?}");
    cases
}

fn open(name: &str) -> Case {
    Case::open(&folder(name), &LoadOptions::default())
}

#[test]
fn logits_are_those_of_peft() {
    for name in all_cases() {
        let case = open(&name);
        case.assert_logits(&case.logits(&case.adapted()), "eval_logits");
    }
}

#[test]
fn the_model_without_its_adapter_is_the_base_bit_for_bit() {
    for name in all_cases() {
        let case = open(&name);
        let (base, mut model) = (case.logits(&case.base), case.adapted());
        assert_ne!(case.logits(&model), base, "{name}");
        let off = model.without_adapter();
        assert_eq!(case.logits(&off), base, "{name}");
        assert!(off.parameters().iter().all(|parameter| !parameter.trainable), "{name}");
        assert_eq!(off.adapters().count(), 0);
        let adapted = case.logits(&model);
        model.delete_adapter("default").unwrap();
        assert_eq!(case.logits(&model), base, "{name}");
        assert_eq!(model.config(), case.base.config());
        assert_ne!(adapted, base, "{name}");
    }
}

#[test]
fn delta_weights_are_those_of_peft() {
    for name in all_cases() {
        let case = open(&name);
        let model = case.adapted();
        let mut compared = 0;
        for key in case.expected.names() {
            let Some(path) = key.strip_prefix("delta.") else { continue };
            let (known, shape) = case.expected.floats(&key);
            let found = model.delta_weight(path).unwrap_or_else(|| panic!("{name}: {path}"));
            assert_eq!(found.dims().to_vec(), shape, "{name}: {path}");
            assert!(distance(&numbers(found), &known) < 1e-5, "{name}: {path}");
            compared += 1;
        }
        assert!(compared > 1, "{name}");
        assert!(model.delta_weight("model.norm").is_none());
    }
}

#[test]
fn losses_and_gradients_are_those_of_peft() {
    for name in all_cases() {
        let case = open(&name);
        // The seed under which the fixtures drop numbers.
        let dropped = case.config().lora_dropout > 0.0;
        let noise = dropped.then_some(Noise { seed: 7, neftune_alpha: None });
        case.assert_gradients(&case.adapted(), noise);
    }
}

#[test]
fn starts_that_take_from_the_base_are_those_of_peft() {
    for name in ["pissa", "pissa_dora", "olora", "dropout_pissa"] {
        let case = open(name);
        let mut model = case.base.clone();
        model.add_adapter("a", &case.config(), 3).unwrap();
        // Nothing has been trained: the model is the base, but for rounding.
        case.assert_logits(&case.logits(&model), "start_logits");
        let largest = |x: &[f32]| x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        for key in case.expected.names() {
            let Some(path) = key.strip_prefix("start.") else { continue };
            let known = case.expected.floats(&key).0;
            let found = numbers(model.delta_weight(path).unwrap());
            let off = distance(&found, &known) / largest(&known);
            assert!(off < 1e-5, "{name}: {path} starts off by {off:e}");
        }
        assert_eq!(case.logits(&model.without_adapter()), case.logits(&case.base));
        // What PEFT converted to a plain adapter says the same; it forgets magnitudes.
        if name == "pissa_dora" {
            continue;
        }
        let mut converted = case.base.clone();
        converted.load_adapter(folder(name).join("converted"), "b").unwrap();
        let off = case.distance(&case.logits(&converted), "eval_logits");
        assert!(off < 1e-5, "{name}: converted, off by {off:e}");
    }
}

#[test]
fn merged_models_say_the_same() {
    for name in all_cases() {
        let case = open(&name);
        let model = case.adapted();
        let merged = model.merge_and_unload(&Merge::default()).unwrap();
        case.assert_logits(&case.logits(&merged), "eval_logits");
        assert_eq!((merged.adapters().count(), merged.active_adapter()), (0, None));
        // Saved and loaded, also where embeddings and head are no longer one.
        let saved = tempfile::tempdir().unwrap();
        merged.save(saved.path(), &posttrain_model::checkpoint::SaveOptions::default()).unwrap();
        let again = Decoder::load(saved.path(), &device()).unwrap();
        assert_eq!(case.logits(&again), case.logits(&merged), "{name}");
        let tied = case.base.config().tie_word_embeddings;
        let parted = ["embeddings", "tied_head", "tied_whole", "tied_whole_head"];
        assert_eq!(
            again.config().tie_word_embeddings,
            tied && !parted.contains(&name.as_str()),
            "{name}"
        );
    }
}

#[test]
fn folders_are_written_as_peft_writes_them() {
    for name in all_cases() {
        let case = open(&name);
        let (model, saved) = (case.adapted(), tempfile::tempdir().unwrap());
        model.save_adapter("default", saved.path(), &AdapterSave::default()).unwrap();
        let taken_out = case.config().init_lora_weights.changes_base();
        // PEFT's, converted where the base was changed.
        let original = if taken_out { folder(&name).join("converted") } else { folder(&name) };
        let (mut found, mut known) = (
            json(&saved.path().join("adapter_config.json")),
            json(&original.join("adapter_config.json")),
        );
        for config in [&mut found, &mut known] {
            // In PEFT the order of a set; and `all-linear` is spelt out in whole paths here, in names
            // there.
            let targets = config["target_modules"].take();
            if let Some(targets) = targets.as_array() {
                let last = |name: &serde_json::Value| {
                    name.as_str().unwrap().rsplit('.').next().unwrap().to_owned()
                };
                let names: std::collections::BTreeSet<String> = targets.iter().map(last).collect();
                config["target_modules"] = names.into_iter().collect::<Vec<_>>().into();
            } else {
                config["target_modules"] = targets;
            }
        }
        // One pattern may stand without a list.
        if let Some(pattern) = known["layers_pattern"].as_str().map(str::to_owned) {
            known["layers_pattern"] = vec![pattern].into();
        }
        // PEFT rounds α √2 of rsLoRA otherwise.
        if name == "olora" {
            let alpha = |config: &mut serde_json::Value| config["lora_alpha"].take().as_f64();
            let (a, b) = (alpha(&mut found).unwrap(), alpha(&mut known).unwrap());
            assert!((a - b).abs() < 1e-9);
        }
        assert_eq!(found, known, "{name}");
        let read = |folder: &Path| Expected::read(&folder.join("adapter_model.safetensors"));
        let (found, known) = (read(saved.path()), read(&original));
        let mut names = known.names();
        // The base's matrix beside the update of an embedding is not the adapter's.
        names.retain(|name| !name.ends_with("base_layer.weight"));
        // PEFT forgets the magnitudes of what it converts.
        let with_magnitudes = name == "pissa_dora";
        let mut found_names = found.names();
        if with_magnitudes {
            found_names.retain(|name| !name.ends_with("lora_magnitude_vector"));
        }
        names.sort();
        found_names.sort();
        assert_eq!(found_names, names, "{name}");
        if !taken_out {
            for key in &names {
                assert_eq!(found.floats(key), known.floats(key), "{name}: {key}");
            }
            if !known.names().iter().any(|key| key.ends_with("base_layer.weight")) {
                let bytes = |folder: &Path| {
                    std::fs::read(folder.join("adapter_model.safetensors")).unwrap()
                };
                assert_eq!(bytes(saved.path()), bytes(&original), "{name}");
            }
        }
        // And read again; inactive adapters are written as well.
        let mut again = case.base.clone();
        again.load_adapter(saved.path(), "again").unwrap();
        case.assert_logits(&case.logits(&again), "eval_logits");
        again.add_adapter("other", &LoraConfig { r: 1, ..plain(&case) }, 0).unwrap();
        let twice = tempfile::tempdir().unwrap();
        again.save_adapter("again", twice.path(), &AdapterSave::default()).unwrap();
        let bytes =
            |folder: &Path| std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
        assert_eq!(bytes(saved.path()), bytes(twice.path()), "{name}");
    }
}

/// A configuration that fits the base of a case.
fn plain(case: &Case) -> LoraConfig {
    let fused = case.base.config().fused_projections;
    let target = if fused { "qkv_proj" } else { "q_proj" };
    LoraConfig { target_modules: Some([target].into()), ..LoraConfig::default() }
}

#[test]
fn several_adapters_on_one_base() {
    let case = open("dora");
    let mut model = case.adapted();
    let first = case.logits(&model);
    let config = LoraConfig { r: 2, modules_to_save: vec!["norm".into()], ..plain(&case) };
    model.add_adapter("second", &config, 1).unwrap();
    assert_eq!(model.adapters().collect::<Vec<_>>(), ["default", "second"]);
    assert_eq!(model.active_adapter(), Some("second"));
    // B is zero: the second one is still the base.
    assert_eq!(case.logits(&model), case.logits(&case.base));
    let trained: Vec<String> =
        model.parameters().into_iter().filter(|p| p.trainable).map(|p| p.name).collect();
    assert!(trained.contains(&"model.layers.2.self_attn.q_proj.lora_A.weight".into()));
    assert!(trained.contains(&"model.norm.weight".into()));
    assert_eq!(trained.len(), 3 * 2 + 7, "{trained:?}");
    // Trained a little, put away and taken up again.
    let half = |_: &_, tensor: Tensor<2>| tensor.add_scalar(0.5);
    model = model.map_trainable(&mut { half });
    let second = case.logits(&model);
    assert_ne!(second, case.logits(&case.base));
    for _ in 0..2 {
        model.set_adapter("default").unwrap();
        assert_eq!(case.logits(&model), first);
        model.set_adapter("second").unwrap();
        assert_eq!(case.logits(&model), second);
    }
    assert_eq!(model.adapter_config("second").unwrap().r, 2);
    model.delete_adapter("second").unwrap();
    assert_eq!((model.active_adapter(), case.logits(&model)), (None, case.logits(&case.base)));
    model.set_adapter("default").unwrap();
    assert_eq!(case.logits(&model), first);
    let error = model.set_adapter("second").unwrap_err().to_string();
    assert!(error.contains("`second`, expected one of [default]"), "{error}");
    let error = model.add_adapter("default", &config, 0).unwrap_err().to_string();
    assert!(error.contains("not among [default]"), "{error}");
    assert_eq!(case.logits(&model.unload()), case.logits(&case.base));
}

/// An optimizer changes the numbers where they are, also while a reference model without the adapter
/// is held.
#[test]
fn a_reference_model_does_not_hold_the_adapter() {
    let case = open("whole");
    let model = case.adapted();
    let reference = model.without_adapter();
    let before = case.logits(&reference);
    let place = |tensor: &Tensor<2>| {
        let data = tensor.clone().try_into_primitive::<burn::backend::Flex>().unwrap();
        data.as_slice::<f32>().unwrap().as_ptr().addr()
    };
    if device() != burn::tensor::Device::flex() {
        return;
    }
    let mut moved = Vec::new();
    let model = model.map_trainable(&mut |about, tensor| {
        let old = place(&tensor);
        let tensor = tensor.add_scalar(0.125);
        if old != place(&tensor) {
            moved.push(about.name.clone());
        }
        tensor
    });
    assert_eq!(moved, Vec::<String>::new());
    assert_eq!(case.logits(&reference), before);
    assert_ne!(case.logits(&model), before);
}

#[test]
fn starts_are_those_of_the_definition() {
    let case = open("default");
    let config = LoraConfig {
        r: 4,
        target_modules: Some(["q_proj", "down_proj", "embed_tokens"].into()),
        ..LoraConfig::default()
    };
    let start = |init: &str, seed| {
        let init =
            serde_json::from_str::<LoraConfig>(&format!(r#"{{"init_lora_weights": {init}}}"#));
        let init_lora_weights = init.unwrap().init_lora_weights;
        let mut model = case.base.clone();
        model.add_adapter("a", &LoraConfig { init_lora_weights, ..config.clone() }, seed).unwrap();
        let mut tensors = Vec::new();
        let _ = model.clone().map_trainable(&mut |about, tensor| {
            tensors.push((about.name.clone(), numbers(tensor.clone())));
            tensor
        });
        tensors
    };
    let of = |tensors: &[(String, Vec<f32>)], name: &str| {
        tensors.iter().find(|(found, _)| found == name).unwrap().1.clone()
    };
    let a = "model.layers.0.mlp.down_proj.lora_A.weight";
    let b = "model.layers.0.mlp.down_proj.lora_B.weight";
    let spread = |x: &[f32]| (x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32).sqrt();
    let largest = |x: &[f32]| x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let default = start("true", 1);
    // Uniform within 1 / √56.
    let bound = 1.0 / 56.0_f32.sqrt();
    assert!(largest(&of(&default, a)) <= bound);
    assert!((spread(&of(&default, a)) / (bound / 3.0_f32.sqrt()) - 1.0).abs() < 0.1);
    assert_eq!(largest(&of(&default, b)), 0.0);
    let embedding = "model.embed_tokens.lora_embedding_";
    assert_eq!(largest(&of(&default, &format!("{embedding}A"))), 0.0);
    assert!((spread(&of(&default, &format!("{embedding}B"))) - 1.0).abs() < 0.2);
    assert_eq!(default, start("true", 1));
    assert_ne!(default, start("true", 2));
    // Normal with deviation 1/4.
    let gaussian = start("\"gaussian\"", 1);
    assert!((spread(&of(&gaussian, a)) / 0.25 - 1.0).abs() < 0.15);
    assert_eq!(largest(&of(&gaussian, b)), 0.0);
    let random = start("false", 1);
    assert!(largest(&of(&random, b)) > 0.1 && largest(&of(&random, b)) <= 0.5);
    // The approximation of PiSSA tends to it.
    let (exact, near) = (start("\"pissa\"", 1), start("\"pissa_niter_50\"", 1));
    assert!((spread(&of(&exact, a)) / spread(&of(&near, a)) - 1.0).abs() < 1e-3);
}
