//! Models to disk and back, and checkpoints that are not what they say.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;

use posttrain_model::checkpoint::{Checkpoint, Dtype, SaveOptions, read_companions};
use posttrain_model::{Batch, Decoder, LoadOptions};
use support::{cases, device, models, numbers};

fn options(folder: &Path) -> SaveOptions {
    let mut companions = read_companions(folder).unwrap();
    companions.push(("config.json".into(), std::fs::read(folder.join("config.json")).unwrap()));
    SaveOptions { companions, ..SaveOptions::default() }
}

#[test]
fn what_is_loaded_and_saved_is_the_same_to_the_byte() {
    for case in cases() {
        let (folder, saved) = (models().join(&case), tempfile::tempdir().unwrap());
        let model = Decoder::load(&folder, &device()).unwrap();
        model.save(saved.path(), &options(&folder)).unwrap();
        for file in ["model.safetensors", "config.json", "generation_config.json"] {
            let read = |folder: &Path| std::fs::read(folder.join(file)).ok();
            assert_eq!(read(&folder), read(saved.path()), "{case}/{file}");
        }
    }
}

#[test]
fn shards_and_half_precision_come_back_as_they_were() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/checkpoints");
    for name in ["single_f32", "sharded_bf16", "single_f16"] {
        let (folder, saved) = (fixtures.join(name), tempfile::tempdir().unwrap());
        let model = Decoder::load(&folder, &device()).unwrap();
        let like = SaveOptions::like(&Checkpoint::open(&folder).unwrap());
        let options = SaveOptions { companions: options(&folder).companions, ..like };
        let written = model.save(saved.path(), &options).unwrap();
        for file in written.files {
            let original = folder.join(file.file_name().unwrap());
            assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(original).unwrap(), "{name}");
        }
    }
}

#[test]
fn a_model_in_several_shards_and_another_type_answers_the_same() {
    let folder = models().join("qwen3");
    let model = Decoder::load(&folder, &device()).unwrap();
    let batch = Batch::padded(&[&[5, 6, 7, 8]], 0).unwrap();
    let logits = |model: &Decoder| numbers(model.logits(model.forward(&batch)));
    let saved = tempfile::tempdir().unwrap();
    let small = SaveOptions { max_shard_size: 20_000, ..options(&folder) };
    assert!(model.save(saved.path(), &small).unwrap().files.len() > 3);
    let again = Decoder::load(saved.path(), &device()).unwrap();
    assert_eq!(logits(&again), logits(&model));
    // Saved over itself while it is mapped, now in bf16 and one file.
    again.save_as(saved.path(), Dtype::BF16, &options(&folder)).unwrap();
    assert!(!saved.path().join("model.safetensors.index.json").exists());
    assert_eq!(logits(&again), logits(&model));
    let narrow = Decoder::load(saved.path(), &device()).unwrap();
    let widened = LoadOptions { dtype: Some(Dtype::F32), ..LoadOptions::default() };
    let wide = Decoder::load_with(saved.path(), &device(), &widened).unwrap();
    // On the CPU a bf16 weight is used as the f32 of the same value.
    assert_eq!(logits(&narrow), logits(&wide));
    assert!(support::distance(&logits(&narrow), &logits(&model)) < 0.3);
}

#[test]
fn a_save_alone_makes_a_folder_that_loads() {
    let saved = tempfile::tempdir().unwrap();
    let model = Decoder::load(models().join("gemma2"), &device()).unwrap();
    model.save_as(saved.path(), Dtype::BF16, &SaveOptions::default()).unwrap();
    let again = Decoder::load(saved.path(), &device()).unwrap();
    assert_eq!(again.config().dtype.as_deref(), Some("bfloat16"));
    let named = posttrain_model::config::Config {
        dtype: None,
        json: model.config().json.clone(),
        ..again.config().clone()
    };
    let original = posttrain_model::config::Config { dtype: None, ..model.config().clone() };
    assert_eq!(named, original);
}

/// A checkpoint of the test's own making.
fn written(folder: &Path, config: &str, tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)]) {
    use posttrain_model::checkpoint::{TensorSpec, save};
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|(name, dtype, shape, _)| TensorSpec {
            name: name.clone(),
            dtype: *dtype,
            shape: shape.clone(),
        })
        .collect();
    let bytes = |name: &str| {
        let (.., bytes) = tensors.iter().find(|(known, ..)| known == name).unwrap();
        Ok(bytes.as_slice().into())
    };
    save(folder, &specs, bytes, &SaveOptions::default()).unwrap();
    std::fs::write(folder.join("config.json"), config).unwrap();
}

#[test]
fn each_tensor_is_saved_in_its_own_type() {
    let source = Checkpoint::open(models().join("llama_mha")).unwrap();
    let config = std::fs::read_to_string(models().join("llama_mha/config.json")).unwrap();
    let mixed: Vec<_> = source
        .names()
        .map(|name| {
            let view = source.get(name).unwrap();
            if view.shape.len() == 1 {
                return (name.into(), Dtype::F32, view.shape.to_vec(), view.bytes.to_vec());
            }
            let narrow = view.to_bf16().unwrap();
            let bytes = narrow.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect();
            (name.into(), Dtype::BF16, view.shape.to_vec(), bytes)
        })
        .collect();
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    written(before.path(), &config, &mixed);
    let model = Decoder::load(before.path(), &device()).unwrap();
    model.save(after.path(), &SaveOptions::default()).unwrap();
    let read = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert_eq!(read(before.path()), read(after.path()));
}

#[test]
fn a_head_beside_tied_embeddings_has_to_equal_them() {
    let source = Checkpoint::open(models().join("llama3")).unwrap();
    let config = std::fs::read_to_string(models().join("llama3/config.json")).unwrap();
    let mut tensors: Vec<_> = source
        .names()
        .map(|name| {
            let view = source.get(name).unwrap();
            (name.to_owned(), view.dtype, view.shape.to_vec(), view.bytes.to_vec())
        })
        .collect();
    let embedding = tensors.iter().find(|tensor| tensor.0 == "model.embed_tokens.weight").unwrap();
    let mut head =
        ("lm_head.weight".to_owned(), embedding.1, embedding.2.clone(), embedding.3.clone());
    let folder = tempfile::tempdir().unwrap();
    tensors.push(head.clone());
    written(folder.path(), &config, &tensors);
    Decoder::load(folder.path(), &device()).unwrap();
    tensors.pop();
    head.3[0] ^= 1;
    tensors.push(head);
    written(folder.path(), &config, &tensors);
    let error = Decoder::load(folder.path(), &device()).unwrap_err().to_string();
    assert!(error.contains("`tie_word_embeddings` is true, but lm_head.weight differs"), "{error}");
}

#[test]
fn every_wrong_tensor_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "config.json"] {
        std::fs::copy(models().join("llama_gqa").join(file), folder.path().join(file)).unwrap();
    }
    let config = folder.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let other = text
        .replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4")
        .replace("\"mlp_bias\": true", "\"mlp_bias\": false")
        .replace("\"vocab_size\": 96", "\"vocab_size\": 97");
    assert_ne!(text, other);
    std::fs::write(&config, &other).unwrap();
    let error = Decoder::load(folder.path(), &device()).unwrap_err().to_string();
    for line in [
        "missing: model.layers.3.self_attn.q_proj.weight",
        "missing: model.layers.3.mlp.down_proj.weight",
        "unexpected: model.layers.0.mlp.gate_proj.bias",
        "shape of model.embed_tokens.weight: found [96, 32], expected [97, 32]",
        "shape of lm_head.weight: found [96, 32], expected [97, 32]",
    ] {
        assert!(error.contains(line), "no {line:?} in {error}");
    }
    std::fs::write(&config, text.replace("\"mlp_bias\"", "\"mlp_bais\"")).unwrap();
    let error = Decoder::load(folder.path(), &device()).unwrap_err().to_string();
    assert!(error.contains("mlp_bais") && error.contains("mlp_bias"), "{error}");
}

#[test]
fn random_weights_depend_on_the_seed_alone() {
    let config =
        posttrain_model::config::Config::from_model(&models().join("gemma3_text")).unwrap();
    let logits = |seed| {
        let model = Decoder::random(&config, 0.02, seed, &device()).unwrap();
        numbers(model.logits(model.forward(&Batch::padded(&[&[5, 6, 7]], 0).unwrap())))
    };
    assert_eq!(logits(1), logits(1));
    assert_ne!(logits(1), logits(2));
    let error = Decoder::random(&config, 0.0, 1, &device()).unwrap_err().to_string();
    assert_eq!(error, "initializer_range is 0, expected a positive number");
}

#[test]
fn devices_that_are_not_there_are_errors() {
    let message = |name| posttrain_model::device::open(name).unwrap_err().to_string();
    assert!(message("gpu").contains("no such device; compiled in: flex"));
    assert!(message("flex:1").contains("it has no numbered adapters"));
    if !posttrain_model::device::compiled_in().contains(&"cuda") {
        assert!(message("cuda:0").contains("not compiled in"));
    }
}
