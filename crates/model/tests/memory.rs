//! How much memory the model layer takes at its peak, counted by the allocator of this binary:
//! scoring tokens does not make their logits, loading does not make the model twice.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use allocator::peak_of;
use burn::module::Module as _;
use burn::tensor::Device;
use posttrain_model::adapter::LoraConfig;
use posttrain_model::checkpoint::{Dtype, SaveOptions};
use posttrain_model::config::Config;
use posttrain_model::quant::{Quantization, QuantizationKind};
use posttrain_model::{
    Activations, Batch, Decoder, Gradients, LoadOptions, Objective, Parameter, Targets,
};
use serde_json::json;

#[path = "support/allocator.rs"]
mod allocator;

/// One test at a time: the count is that of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn config(vocabulary: usize, width: usize, layers: usize) -> (Config, Vec<u8>) {
    let value = json!({
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": width / 4,
        "hidden_act": "silu",
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
    });
    let text = value.to_string().into_bytes();
    (Config::from_json(Path::new("config.json"), &value).unwrap(), text)
}

/// Scores rows of 257 tokens and goes back; the gradients of the hidden states and, where it is
/// trained, of the head must exist afterwards, all else is extra.
fn score(rows: usize, head_trained: bool) {
    const LIMIT: usize = 200_000_000;
    let (words, width, time) = (128_000, 16, 257);
    let (config, _) = config(words, width, 1);
    let model = Decoder::random(&config, 0.02, 1, &Device::flex().autodiff()).unwrap();
    let model = if head_trained { model } else { model.no_grad() };
    let ids: Vec<u32> = (0..rows * time).map(|i| (i * 7919 % words) as u32).collect();
    let texts: Vec<&[u32]> = ids.chunks(time).collect();
    let batch = Batch::padded(&texts, 0).unwrap();
    let targets = Targets::all(&batch);
    // A leaf, so that what is measured belongs to `logprobs` alone.
    let hidden = model.forward(&batch).inner().autodiff().require_grad();

    let what = format!("{} tokens, head trained: {head_trained}", targets.len());
    let (loss, peak) = peak_of(&format!("forward, {what}"), || {
        let scored = model.logprobs(hidden.clone(), &targets);
        scored.logprobs.mean() + scored.entropy.mean()
    });
    assert!(peak < LIMIT, "{peak} bytes forward, {what}");

    let (gradients, peak) = peak_of(&format!("backward, {what}"), || loss.backward());
    let head = model.lm_head.as_ref().unwrap().weight.dense().unwrap().val();
    let head = head.grad(&gradients);
    assert_eq!(head.is_some(), head_trained);
    assert_eq!(hidden.grad(&gradients).unwrap().dims(), [rows, time, width]);
    let there = 4 * (rows * time * width + if head_trained { words * width } else { 0 });
    assert!(peak < LIMIT + there, "{peak} bytes backward, {what}");
}

/// The logits of 4,096 tokens by 128,000 words are 2.1 GB, those of 512 tokens 262 MB.
#[test]
fn scoring_tokens_does_not_make_their_logits() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    score(2, false);
    score(16, true);
}

/// Memory for names, shapes and headers.
const SMALL: usize = 500_000;

#[test]
fn loading_takes_the_model_and_one_tensor() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (words, width) = (20_000, 128);
    let (config, text) = config(words, width, 4);
    let model = Decoder::random(&config, 0.02, 1, &Device::flex()).unwrap();
    let (largest, all) = (words * width, model.num_params());
    let options =
        SaveOptions { companions: vec![("config.json".into(), text)], ..SaveOptions::default() };
    // What is stored, what is wanted, bytes of an element in memory; 0 for what stays in the file.
    for (stored, wanted, size) in [
        (Dtype::F32, None, 0),
        (Dtype::BF16, None, 0),
        (Dtype::F16, None, 4),
        (Dtype::BF16, Some(Dtype::F32), 4),
        (Dtype::F16, Some(Dtype::BF16), 2),
        (Dtype::F32, Some(Dtype::BF16), 2),
    ] {
        let folder = tempfile::tempdir().unwrap();
        model.save_as(folder.path(), stored, &options).unwrap();
        let what = format!("loading {stored} as {wanted:?}");
        let load = || {
            let options = LoadOptions { dtype: wanted, ..LoadOptions::default() };
            Decoder::load_with(folder.path(), &Device::flex(), &options).unwrap()
        };
        let (loaded, peak) = peak_of(&what, load);
        let limit = size * (all + largest) + SMALL;
        assert!(peak <= limit, "{what}: {peak} bytes, not {limit}");
        assert_eq!(loaded.num_params(), all);
        // The weights are really there.
        assert!(peak >= size * all, "{what}: {peak} bytes");
    }
}

/// Bits that a weight takes in NF4 with double quantisation.
const NF4_BITS: f64 = 4.0 + 8.0 / 64.0 + 32.0 / (64.0 * 256.0);

/// Loading in four bits takes the codes and one tensor; a training step on them makes no dense copy of
/// any matrix, forward or backward.
#[test]
fn four_bits_stay_four_bits() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Large enough that the panels of a product, which have one size for all matrices, do not count.
    let (words, width) = (1000, 1024);
    let (config, text) = config(words, width, 2);
    let dense = Decoder::random(&config, 0.02, 1, &Device::flex()).unwrap();
    let options =
        SaveOptions { companions: vec![("config.json".into(), text)], ..SaveOptions::default() };
    let folder = tempfile::tempdir().unwrap();
    dense.save_as(folder.path(), Dtype::BF16, &options).unwrap();
    let names = dense.parameters();
    let matrices = names.iter().filter(|p| p.name.contains("layers.") && p.shape.len() == 2);
    let (all, largest) = matrices
        .map(Parameter::count)
        .fold((0, 0), |(all, largest), count| (all + count, largest.max(count)));
    drop(dense);
    let quantization = Some(Quantization::new(QuantizationKind::Nf4 { double: true }));
    let load = || {
        let options = LoadOptions { quantization, ..LoadOptions::default() };
        Decoder::load_with(folder.path(), &Device::flex(), &options).unwrap()
    };
    let (mut model, peak) = peak_of("loading BF16 in four bits", load);
    let codes = (NF4_BITS / 8.0 * all as f64) as usize;
    // The tensor in f32 while it is quantised, and its codes before they are packed.
    let limit = codes + 5 * largest + SMALL;
    assert!((codes..limit).contains(&peak), "{peak} bytes, not {codes} to {limit}");

    let config = LoraConfig {
        r: 4,
        target_modules: Some("all-linear".into()),
        use_dora: false,
        ..LoraConfig::default()
    };
    model.add_adapter("a", &config, 1).unwrap();
    let ids: Vec<u32> = (0..16).collect();
    let batch = Batch::padded(&[&ids], 0).unwrap();
    let targets = Targets::all(&batch);
    let weights = vec![1.0; targets.len()];
    for activations in [Activations::Keep, Activations::Recompute] {
        let mut gradients = Gradients::default();
        let ((), peak) = peak_of(&format!("a step on four bits, {activations:?}"), || {
            model.backward(&batch, None, activations, &mut gradients, |hidden, gradients| {
                let nll = Objective::Nll;
                let found = model.cross_entropy(hidden, &targets, &weights, nll, Some(gradients));
                found.by_hidden.unwrap()
            });
        });
        assert!(gradients.iter().count() == 2 * 7 * 2);
        let dense = 4 * largest;
        assert!(peak < dense, "{peak} bytes, while one dense matrix has {dense}");
    }
}
