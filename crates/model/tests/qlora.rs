//! Models in four and eight bits: loaded tensor by tensor, with adapters, against transformers, PEFT
//! and bitsandbytes, and against their own dequantised weights.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};

use posttrain_model::adapter::{Init, LoraConfig, Merge};
use posttrain_model::checkpoint::SaveOptions;
use posttrain_model::quant::{Quantization, QuantizationKind};
use posttrain_model::{
    Activations, Batch, Decoder, Gradients, LoadOptions, Objective, Targets, Weight,
};
use support::adapted::Case;
use support::{device, distance, models, numbers};

const KINDS: [QuantizationKind; 4] = [
    QuantizationKind::Nf4 { double: true },
    QuantizationKind::Nf4 { double: false },
    QuantizationKind::Fp4 { double: true },
    QuantizationKind::Int8,
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn options(kind: QuantizationKind, skipped: &[&str]) -> LoadOptions {
    let llm_int8_skip_modules = skipped.iter().map(|&name| name.into()).collect();
    let quantization = Some(Quantization { kind, llm_int8_skip_modules });
    LoadOptions { quantization, ..LoadOptions::default() }
}

fn batch() -> Batch {
    Batch::padded(&[&[5, 6, 7, 8, 9, 10, 11], &[12, 13, 14]], 0).unwrap()
}

fn logits(model: &Decoder) -> Vec<f32> {
    let logits = model.logits(model.forward(&batch()));
    let vocab = model.config().vocab_size;
    // Without the padding of the second row.
    numbers(logits)[..10 * vocab].to_vec()
}

#[test]
fn lora_on_four_bits_is_that_of_peft_and_bitsandbytes() {
    for (name, kind, skipped) in [
        ("nf4", QuantizationKind::Nf4 { double: true }, &[][..]),
        ("fp4_dora", QuantizationKind::Fp4 { double: false }, &["down_proj"][..]),
    ] {
        let folder = fixtures().join("quant").join(name);
        let case = Case::open(&folder, &options(kind, skipped));
        let mut quantized = case.base.quantized_modules();
        quantized.sort();
        let known = std::fs::read_to_string(folder.join("quantized.txt")).unwrap();
        assert_eq!(quantized, known.lines().collect::<Vec<_>>(), "{name}");
        case.assert_gradients(&case.adapted(), None);
    }
}

#[test]
fn a_quantised_model_computes_with_what_its_codes_stand_for() {
    for name in ["llama_gqa", "phi3", "gemma3_text", "olmo2"] {
        let folder = models().join(name);
        let dense = Decoder::load(&folder, &device()).unwrap();
        for kind in KINDS {
            let model = Decoder::load_with(&folder, &device(), &options(kind, &[])).unwrap();
            assert!(model.lm_head.iter().all(|head| head.weight.dense().is_some()));
            assert!(model.quantized_modules().iter().all(|path| path.contains("layers.")));
            assert!(!model.parameters().iter().any(|p| p.name.ends_with("proj.weight")));
            let (found, exact) = (logits(&model), logits(&model.clone().dequantized()));
            assert!(distance(&found, &exact) < 2e-5, "{name} {kind:?}");
            // And that is not the model itself.
            assert!(distance(&found, &logits(&dense)) > 1e-3, "{name} {kind:?}");
        }
    }
}

#[test]
fn adapters_train_on_codes_as_on_the_dequantised_weights() {
    let folder = models().join("llama_gqa");
    for kind in KINDS {
        let base = Decoder::load_with(&folder, &device(), &options(kind, &[])).unwrap();
        for config in [
            LoraConfig { use_dora: true, init_lora_weights: Init::Random, ..LoraConfig::default() },
            LoraConfig { r: 2, init_lora_weights: Init::Pissa, ..LoraConfig::default() },
        ] {
            let config = LoraConfig { target_modules: Some("all-linear".into()), ..config };
            let gradients = |mut model: Decoder| {
                model.add_adapter("a", &config, 5).unwrap();
                let targets = Targets::all(&batch());
                let weights = vec![1.0; targets.len()];
                let mut found = Gradients::default();
                model.backward(&batch(), None, Activations::Keep, &mut found, |h, gradients| {
                    let nll = Objective::Nll;
                    let found = model.cross_entropy(h, &targets, &weights, nll, Some(gradients));
                    found.by_hidden.unwrap()
                });
                found
            };
            let (found, known) = (gradients(base.clone()), gradients(base.clone().dequantized()));
            assert!(found.iter().count() > 30);
            for (name, known) in known.iter() {
                let (found, known) =
                    (numbers(found.get(name).unwrap().clone()), numbers(known.clone()));
                let largest = known.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                let off = distance(&found, &known);
                assert!(off < 1e-4 * largest, "{kind:?} {name}: {off} of {largest}");
            }
        }
    }
}

#[test]
fn values_are_rounded_to_the_type_of_the_checkpoint() {
    let folder = fixtures().join("checkpoints/sharded_bf16");
    let kind = QuantizationKind::Nf4 { double: false };
    let model = Decoder::load_with(&folder, &device(), &options(kind, &[])).unwrap();
    let Weight::Quantized(codes) = &model.model.layers[0].mlp.down_proj.weight else {
        panic!("not quantised")
    };
    let values = numbers(codes.dequantize());
    assert!(values.iter().all(|value| half::bf16::from_f32(*value).to_f32() == *value));
    // As f32 they are not.
    let dtype = Some(posttrain_model::checkpoint::Dtype::F32);
    let wide = LoadOptions { dtype, ..options(kind, &[]) };
    let model = Decoder::load_with(&folder, &device(), &wide).unwrap();
    let Weight::Quantized(codes) = &model.model.layers[0].mlp.down_proj.weight else {
        panic!("not quantised")
    };
    let values = numbers(codes.dequantize());
    assert!(!values.iter().all(|value| half::bf16::from_f32(*value).to_f32() == *value));
}

#[test]
fn what_quantised_weights_cannot_hold_is_refused() {
    let folder = models().join("llama_gqa");
    let kind = QuantizationKind::Nf4 { double: true };
    let error = Decoder::load_with(&folder, &device(), &options(kind, &["w1"])).unwrap_err();
    assert!(error.to_string().contains("`w1`, which names no matrix"), "{error}");
    let mut model = Decoder::load_with(&folder, &device(), &options(kind, &[])).unwrap();
    let saved = tempfile::tempdir().unwrap();
    let error = model.save(saved.path(), &SaveOptions::default()).unwrap_err().to_string();
    assert!(error.contains("quantised in `model.layers.0.self_attn.q_proj`"), "{error}");
    let config = LoraConfig { init_lora_weights: Init::Random, ..LoraConfig::default() };
    model.add_adapter("a", &config, 1).unwrap();
    let error = model.clone().merge_and_unload(&Merge::default()).unwrap_err().to_string();
    assert!(error.contains("q_proj` is quantised") && error.contains("`dequantized`"), "{error}");
    // Dequantised, it can be merged and saved.
    let before = logits(&model);
    let merged = model.dequantized().merge_and_unload(&Merge::default()).unwrap();
    assert!(distance(&logits(&merged), &before) < 1e-4);
    merged.save(saved.path(), &SaveOptions::default()).unwrap();
    let again = Decoder::load(saved.path(), &device()).unwrap();
    assert_eq!(logits(&again), logits(&merged));
}
