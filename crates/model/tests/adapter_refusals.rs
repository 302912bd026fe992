//! Adapters: what PEFT would let pass and is refused here, folders in odd states.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use posttrain_model::adapter::{AdapterSave, LoraConfig, Merge};
use posttrain_model::{Decoder, LoadOptions};
use support::adapted::{Case, folder, json};
use support::{device, models};

fn open(name: &str) -> Case {
    Case::open(&folder(name), &LoadOptions::default())
}

/// A copy of an adapter folder with some text of the configuration replaced.
fn altered(case: &str, from: &str, to: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read(folder(case).join(name)).unwrap();
    let text = String::from_utf8(read("adapter_config.json")).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(copy.path().join("adapter_config.json"), text.replace(from, to)).unwrap();
    let weights = read("adapter_model.safetensors");
    std::fs::write(copy.path().join("adapter_model.safetensors"), weights).unwrap();
    copy
}

#[test]
fn every_wrong_key_of_a_folder_is_listed() {
    let refused = |case: &str, from: &str, to: &str| {
        let copy = altered(case, from, to);
        let mut model = open(case).base;
        let error = model.load_adapter(copy.path(), "a").unwrap_err().to_string();
        assert_eq!(model.adapters().count(), 0);
        error
    };
    let layer = "base_model.model.model.layers.0.self_attn";
    let error = refused("default", "\"v_proj\"", "\"k_proj\"");
    for line in [
        format!("missing: {layer}.k_proj.lora_A.weight"),
        format!("missing: {layer}.k_proj.lora_B.weight"),
        format!("unexpected: {layer}.v_proj.lora_A.weight"),
        format!("unexpected: {layer}.v_proj.lora_B.weight"),
    ] {
        assert!(error.contains(&line), "{error}");
    }
    let error = refused("default", "\"r\": 4", "\"r\": 5");
    let line = format!("shape of {layer}.q_proj.lora_A.weight: found [4, 32], expected [5, 32]");
    assert!(error.contains(&line), "{error}");
    let error = refused("default", "\"use_dora\": false", "\"use_dora\": true");
    assert!(error.contains(&format!("missing: {layer}.q_proj.lora_magnitude_vector")), "{error}");
    let error = refused("default", "\"use_dora\": false", "\"use_dora_2\": true");
    assert!(error.contains("`use_dora_2` = true (did you mean `use_dora`?)"), "{error}");
    let error = refused("default", "\"lora_bias\": false", "\"lora_bias\": true");
    assert!(error.contains("`lora_bias` is true"), "{error}");
    let error = refused("pissa", "\"pissa\"", "\"pissa_niter_4\"");
    assert!(error.contains("path_initial_model_for_weight_conversion"), "{error}");
    let missing = tempfile::tempdir().unwrap();
    let error = open("default").base.load_adapter(missing.path(), "a").unwrap_err();
    assert!(error.to_string().contains("adapter_config.json"), "{error}");
}

#[test]
fn the_matrix_beside_an_embedding_has_to_be_the_base() {
    let copy = altered("embeddings", "\"r\": 4", "\"r\": 4");
    let path = copy.path().join("adapter_model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let name = "base_model.model.model.embed_tokens.base_layer.weight";
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let place = file.tensor(name).unwrap().data().as_ptr().addr() - bytes.as_ptr().addr();
    bytes[place + 3] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = open("embeddings").base.load_adapter(copy.path(), "a").unwrap_err();
    assert!(error.to_string().contains("`model.embed_tokens`"), "{error}");
}

#[test]
fn what_cannot_be_is_refused() {
    let case = open("tied_head");
    let refused = |config: LoraConfig| {
        case.base.clone().add_adapter("a", &config, 0).unwrap_err().to_string()
    };
    let head =
        |config: LoraConfig| LoraConfig { target_modules: Some(["lm_head"].into()), ..config };
    let tied = LoraConfig { ensure_weight_tying: true, ..LoraConfig::default() };
    assert!(refused(head(tied)).contains("`ensure_weight_tying` is true"));
    let dropped = LoraConfig { lora_dropout: 0.1, ..LoraConfig::default() };
    assert!(refused(head(dropped)).contains("`lora_dropout` is 0.1"));
    assert!(refused(LoraConfig { r: 0, ..LoraConfig::default() }).contains("`r` is 0"));
    let pissa = LoraConfig {
        r: 40,
        init_lora_weights: posttrain_model::adapter::Init::Pissa,
        ..LoraConfig::default()
    };
    assert!(refused(pissa).contains("at most its smaller side"));
    // PEFT has no choice for this family.
    let phi = Decoder::load(models().join("phi3"), &device()).unwrap();
    let error = phi.clone().add_adapter("a", &LoraConfig::default(), 0).unwrap_err().to_string();
    assert!(error.contains("PEFT has none for phi3") && error.contains("qkv_proj"), "{error}");
    // Nothing to merge, and an adapter in a model to be saved.
    let error = phi.merge_and_unload(&Merge::default()).unwrap_err().to_string();
    assert!(error.contains("the active adapter is none"), "{error}");
    let saved = tempfile::tempdir().unwrap();
    let options = posttrain_model::checkpoint::SaveOptions::default();
    let error = case.adapted().save(saved.path(), &options).unwrap_err().to_string();
    assert!(error.contains("`merge_and_unload`"), "{error}");
}

#[test]
fn a_merge_that_changes_the_model_is_refused() {
    let case = open("all_linear");
    let merge = Merge { tolerance: Some(0.0), ..Merge::default() };
    let error = case.adapted().merge_and_unload(&merge).unwrap_err();
    let posttrain_model::Error::MergeMismatch { distance, tolerance } = error else {
        panic!("{error}")
    };
    assert!(distance > 0.0 && distance < 1e-5 && tolerance == 0.0);
    let probe = Some(case.batch.clone());
    case.adapted().merge_and_unload(&Merge { probe, tolerance: None }).unwrap();
    // NaN is as far away as anything.
    let spoilt = case.adapted().map_trainable(&mut |_, tensor| tensor.mul_scalar(f32::NAN));
    let error = spoilt.merge_and_unload(&Merge::default()).unwrap_err().to_string();
    assert!(error.contains("differ from those of the adapted one by NaN"), "{error}");
}

/// A killed save leaves the folder readable or says so, and an adapter beside a checkpoint leaves it
/// alone.
#[test]
fn an_adapter_may_lie_beside_its_base() {
    let case = open("default");
    let folder = tempfile::tempdir().unwrap();
    let options = posttrain_model::checkpoint::SaveOptions::default();
    case.base.save(folder.path(), &options).unwrap();
    let save = AdapterSave {
        base_model_name_or_path: Some("here".into()),
        companions: vec![("tokenizer/readme.txt".into(), b"x".to_vec())],
    };
    let model = case.adapted();
    let written = model.save_adapter("default", folder.path(), &save).unwrap();
    assert!(written.iter().all(|path| path.exists()));
    assert!(folder.path().join("tokenizer/readme.txt").exists());
    assert_eq!(json(&written[0])["base_model_name_or_path"], "here");
    let mut base = Decoder::load(folder.path(), &device()).unwrap();
    base.load_adapter(folder.path(), "a").unwrap();
    assert_eq!(case.logits(&base), case.logits(&model));
    let stage = folder.path().join(".posttrain-saving");
    std::fs::create_dir(&stage).unwrap();
    std::fs::write(stage.join(".ready.json"), r#"["adapter_model.safetensors"]"#).unwrap();
    std::fs::rename(&written[1], stage.join("adapter_model.safetensors")).unwrap();
    let error = base.load_adapter(folder.path(), "b").unwrap_err().to_string();
    assert!(error.contains("`recover` finishes it"), "{error}");
    assert!(posttrain_model::checkpoint::recover(folder.path()).unwrap());
    base.load_adapter(folder.path(), "b").unwrap();
    assert!(folder.path().join("model.safetensors").exists());
}
