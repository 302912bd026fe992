//! The plan against what is really held: weights, gradients and states to the byte.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::needless_update, reason = "the options of loading grow")]

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use posttrain_model::adapter::{Init, LoraConfig, Names};
use posttrain_model::checkpoint::Dtype;
use posttrain_model::config::Config;
use posttrain_model::quant::{Quantization, QuantizationKind};
use posttrain_model::{Activations, Batch, Decoder, Gradients, LoadOptions, Parameter, device};
use posttrain_train::memory::{MemorySettings, Plan, Reference, Trial, all_parameters};
use posttrain_train::optim::{Optimizer, OptimizerConfig, OptimizerName};
use safetensors::SafeTensors;
use serde_json::json;

const OPTIMIZERS: [OptimizerName; 6] = [
    OptimizerName::AdamW,
    OptimizerName::AdamW8Bit,
    OptimizerName::Adafactor,
    OptimizerName::Lion,
    OptimizerName::Muon,
    OptimizerName::Sgd,
];

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models")
}

fn cases() -> Vec<String> {
    let folders = std::fs::read_dir(models()).unwrap().map(|entry| entry.unwrap().path());
    let folders = folders.filter(|path| path.join("model.safetensors").exists());
    let mut names: Vec<String> =
        folders.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    assert!(names.len() >= 21, "{names:?}");
    names
}

fn settings(parameters: Vec<Parameter>) -> MemorySettings {
    MemorySettings {
        dtype: Dtype::F32,
        compute: Dtype::F32,
        quantization: None,
        parameters,
        optimizer: OptimizerConfig::default(),
        ema: false,
        reference: Reference::Shared,
        per_device_train_batch_size: 1,
        gradient_accumulation_steps: 1,
        max_length: 16,
        activations: Activations::Keep,
    }
}

/// Bytes of the parameters as they lie on the device.
fn held(model: &Decoder) -> u64 {
    let mut bytes = 0;
    let _ = model.clone().with_trainable(|_| true).map_trainable(&mut |_, weight| {
        bytes += (weight.shape().num_elements() * weight.dtype().size()) as u64;
        weight
    });
    bytes
}

#[test]
fn weights_are_counted_to_the_byte() {
    let device = device::open("flex").unwrap();
    for case in cases() {
        for dtype in [Dtype::F32, Dtype::BF16] {
            let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
            let model = Decoder::load_with(models().join(&case), &device, &options).unwrap();
            let settings = MemorySettings { dtype, ..settings(all_parameters(model.config())) };
            let plan = Plan::new(model.config(), &settings).unwrap();
            assert_eq!(plan.weights, held(&model), "{case} {dtype:?}");
        }
    }
}

#[test]
fn gradients_and_states_are_counted_to_the_byte() {
    let device = device::open("flex").unwrap();
    let batch = Batch::padded(&[&[5, 6, 7, 8], &[9, 10]], 0).unwrap();
    for (part, dtype) in [("", Dtype::F32), ("layers.1.", Dtype::F32), ("", Dtype::BF16)] {
        let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
        let model = Decoder::load_with(models().join("qwen3"), &device, &options).unwrap();
        let model = model.with_trainable(|name| name.contains(part));
        let mut gradients = Gradients::default();
        model.backward(&batch, None, Activations::Keep, &mut gradients, |hidden, gradients| {
            if let Some(head) = model.lm_head.as_ref().filter(|_| part.is_empty()) {
                gradients.add("lm_head.weight", Tensor::zeros(head.weight.dims(), &device));
            }
            hidden.ones_like()
        });
        let found: usize = gradients.iter().map(|(_, g)| 4 * g.shape().num_elements()).sum();

        for optim in OPTIMIZERS {
            let config = OptimizerConfig { optim, ..OptimizerConfig::default() };
            let settings =
                MemorySettings { dtype, optimizer: config.clone(), ..settings(model.parameters()) };
            let plan = Plan::new(model.config(), &settings).unwrap();
            assert_eq!(plan.gradients, found as u64, "{part} {dtype:?}");

            let optimizer = Optimizer::new(&config, 1e-3, &model).unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            optimizer.save(file.path()).unwrap();
            let bytes = std::fs::read(file.path()).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let names =
                tensors.names().into_iter().filter(|name| name.rsplit('.').next() != Some("step"));
            let states: usize = names.map(|name| tensors.tensor(name).unwrap().data().len()).sum();
            assert_eq!(plan.optimizer, states as u64, "{optim:?} {part} {dtype:?}");
        }
    }
}

fn lora(config: &Config, r: usize, targets: Names) -> Vec<Parameter> {
    let target_modules = Some(targets);
    LoraConfig { r, target_modules, ..LoraConfig::default() }.parameters(config).unwrap()
}

/// Adapters of every kind, on a dense base and on quantised ones.
#[test]
fn adapters_are_counted_to_the_byte() {
    let device = device::open("flex").unwrap();
    let all =
        || LoraConfig { r: 3, target_modules: Some("all-linear".into()), ..LoraConfig::default() };
    let mut skipping = Quantization::new(QuantizationKind::Nf4 { double: true });
    skipping.llm_int8_skip_modules = vec!["down_proj".into()];
    let bases = [
        None,
        Some(Quantization::new(QuantizationKind::Fp4 { double: false })),
        Some(Quantization::new(QuantizationKind::Int8)),
        Some(skipping),
    ];
    for case in ["llama3", "qwen2", "qwen3", "phi3", "gemma3_text"] {
        let mut rank_pattern = all();
        rank_pattern.rank_pattern = vec![("o_proj".into(), 7)];
        for lora in [
            all(),
            LoraConfig { use_dora: true, ..all() },
            LoraConfig {
                layers_to_transform: Some(vec![1]),
                target_modules: Some(["o_proj", "down_proj"].into()),
                ..rank_pattern
            },
            LoraConfig { modules_to_save: vec!["model.norm".into(), "lm_head".into()], ..all() },
            LoraConfig { target_modules: Some(["embed_tokens", "o_proj"].into()), ..all() },
            LoraConfig { init_lora_weights: Init::Olora, ..all() },
        ] {
            for quantization in &bases {
                let what = format!("{case} {quantization:?} {lora:?}");
                let options =
                    LoadOptions { quantization: quantization.clone(), ..LoadOptions::default() };
                let mut model = Decoder::load_with(models().join(case), &device, &options).unwrap();
                let quantized: u64 = quantization.as_ref().map_or(0, |quantization| {
                    let tensors = model.config().tensors();
                    let names = quantization.matrices(&tensors).unwrap();
                    assert_eq!(names.len(), model.quantized_modules().len(), "{what}");
                    let chosen = tensors.iter().filter(|t| names.contains(t.name.as_str()));
                    let bytes = chosen.map(|t| quantization.kind.bytes([t.shape[0], t.shape[1]]));
                    bytes.sum::<usize>() as u64
                });
                let base = held(&model) + quantized;
                model.add_adapter("default", &lora, 0).unwrap();
                let found = lora.parameters(model.config()).unwrap();
                let mut trained: Vec<Parameter> =
                    model.parameters().into_iter().filter(|p| p.trainable).collect();
                let mut expected: Vec<Parameter> =
                    found.iter().filter(|p| p.trainable).cloned().collect();
                trained.sort_by(|a, b| a.name.cmp(&b.name));
                expected.sort_by(|a, b| a.name.cmp(&b.name));
                assert_eq!(expected, trained, "{what}");

                let settings =
                    MemorySettings { quantization: quantization.clone(), ..settings(found) };
                let plan = Plan::new(model.config(), &settings).unwrap();
                let numbers: usize = trained.iter().map(Parameter::count).sum();
                assert_eq!(plan.gradients, 4 * numbers as u64, "{what}");
                // OLoRA keeps the factors that it starts from.
                let copies = if lora.init_lora_weights == Init::Olora { 2 } else { 1 };
                assert_eq!(plan.weights, base + copies * plan.gradients, "{what}");
            }
        }
    }
}

fn config(json: &serde_json::Value) -> Config {
    Config::from_json(Path::new("config.json"), json).unwrap()
}

fn small() -> Config {
    config(&json!({
        "model_type": "llama", "vocab_size": 100, "hidden_size": 16, "intermediate_size": 40,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "tie_word_embeddings": false
    }))
}

#[test]
fn activations_by_hand() {
    let config = small();
    let all = || settings(all_parameters(&config));
    let plan = |settings: MemorySettings| Plan::new(&config, &settings).unwrap();
    // H 16, Q 16, K 8, I 40, 4 heads. A layer keeps H before the norm and H behind it, 2 Q + 2 K of
    // the attention, H and H again, 2 I, I, and 8 numbers for the heads: 64 + 48 + 120 + 8 = 240.
    // Beside the layers: input of the last norm, its output and the gradient by it, 3 H = 48.
    // In f32, for 16 tokens.
    let full = plan(all());
    assert_eq!(full.activations, 4 * 16 * (3 * 240 + 48));
    // Computed anew: H for each layer, and one layer.
    let again = MemorySettings { activations: Activations::Recompute, ..all() };
    assert_eq!(plan(again).activations, 4 * 16 * (3 * 16 + 240 + 48));
    // 3 H + 3 I of gradients, all logits, no gradients beside their sums.
    assert_eq!((full.working, full.logits, full.pass_gradients), (4 * 16 * 168, 4 * 16 * 100, 0));
    assert_eq!(
        full.total(),
        full.weights + full.gradients + full.optimizer + full.activations + full.working
    );
    // A second pass of a window has its gradients beside the sums.
    let window = plan(MemorySettings { gradient_accumulation_steps: 2, ..all() });
    assert_eq!(window.pass_gradients, window.gradients);
    assert_eq!((window.weights, window.optimizer), (full.weights, 2 * full.weights));

    // Rank 2 on q and down: no input of gate and up is kept, 2 numbers for each of both.
    let adapter = plan(settings(lora(&config, 2, ["q_proj", "mlp.down_proj"].into())));
    assert_eq!(adapter.activations, 4 * 16 * (3 * (240 - 16 + 4) + 48));
    // A: 2 x 16 and 2 x 40, B: 16 x 2 and 16 x 2; in each of 3 layers.
    assert_eq!(adapter.gradients, 4 * 3 * (32 + 80 + 32 + 32));
    assert_eq!(adapter.weights, full.weights + adapter.gradients);
    assert_eq!(adapter.optimizer, 2 * adapter.gradients);

    // The last layer alone: nothing is kept of those below.
    let mut last = all_parameters(&config);
    for parameter in &mut last {
        parameter.trainable = parameter.name.contains("layers.2.");
    }
    assert_eq!(plan(settings(last)).activations, 4 * 16 * (240 + 48));

    // In bf16 with f32 for the heads; masters and sums of gradients are in f32.
    let narrow = plan(MemorySettings { dtype: Dtype::BF16, compute: Dtype::BF16, ..all() });
    assert_eq!(narrow.activations, 16 * (3 * (2 * 232 + 32) + 2 * 48));
    assert_eq!(
        (narrow.weights, narrow.gradients, narrow.optimizer),
        (full.weights / 2, full.gradients, 3 * full.weights)
    );
    let average = plan(MemorySettings { ema: true, ..all() });
    assert_eq!(average.total(), full.total() + full.gradients);
    // A frozen copy of all weights, in their type; a following reference has its averages, too.
    let of = |reference| plan(MemorySettings { reference, ..all() }).total() - full.total();
    assert_eq!(
        (of(Reference::Copies(1)), of(Reference::Copies(2))),
        (full.weights, 2 * full.weights)
    );
    assert_eq!(of(Reference::Model), full.weights);
}

fn llama_8b() -> Config {
    config(&json!({
        "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096,
        "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "tie_word_embeddings": false, "max_position_embeddings": 8192
    }))
}

#[test]
fn known_numbers_of_llama_3_8b() {
    let config = llama_8b();
    let half = |trained| MemorySettings {
        dtype: Dtype::BF16,
        compute: Dtype::BF16,
        max_length: 4096,
        ..settings(trained)
    };
    let full = Plan::new(&config, &half(all_parameters(&config))).unwrap();
    assert_eq!(full.weights, 2 * 8_030_261_248);
    // PEFT prints 41,943,040 trainable parameters for r 16 on all linear layers.
    let adapter = lora(&config, 16, "all-linear".into());
    let lora = Plan::new(&config, &half(adapter.clone())).unwrap();
    assert_eq!(lora.gradients, 4 * 41_943_040);
    // In 4 bits: 4.5 bits a number, or 4.127 where the scales have 8 bits (Dettmers et al. 2023).
    let linear = 8_030_261_248_u64 - 2 * 128_256 * 4096 - 65 * 4096;
    for (quantization, bits) in [
        (QuantizationKind::Nf4 { double: false }, 4.5),
        (QuantizationKind::Nf4 { double: true }, 4.127),
        (QuantizationKind::Int8, 8.0),
    ] {
        let settings = MemorySettings {
            quantization: Some(Quantization::new(quantization)),
            ..half(adapter.clone())
        };
        let plan = Plan::new(&config, &settings).unwrap();
        let codes = plan.weights - 4 * 41_943_040 - 2 * (8_030_261_248 - linear);
        let found = 8.0 * codes as f64 / linear as f64;
        assert!((found - bits).abs() < 0.02, "{quantization:?}: {found} bits");
    }
}

#[test]
fn a_run_that_does_not_fit_is_told_what_would() {
    let config = llama_8b();
    let settings = MemorySettings {
        dtype: Dtype::BF16,
        compute: Dtype::BF16,
        per_device_train_batch_size: 6,
        gradient_accumulation_steps: 2,
        max_length: 4096,
        ..settings(all_parameters(&config))
    };
    let gib = |gib: u64| gib << 30;
    let advice = |limit| Plan::advice(&config, &settings, limit).unwrap();
    assert_eq!(advice(gib(10_000)), []);
    let changes = |trials: &[Trial]| -> Vec<String> {
        assert!(trials.iter().rev().skip(1).all(|trial| !trial.fits));
        assert!(trials.windows(2).all(|two| two[1].total < two[0].total), "{trials:?}");
        trials.iter().map(|trial| trial.change.clone()).collect()
    };
    // Masters, sums and AdamW take 16 bytes a weight, and 2 the weight itself: 135 GiB.
    let all = advice(gib(1));
    assert_eq!(
        changes(&all),
        [
            "gradient_checkpointing: true",
            "per_device_train_batch_size: 1 with gradient_accumulation_steps: 12",
            "optim: adamw_8bit",
            "LoRA with r: 16, target_modules: all-linear",
            "load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_use_double_quant: true"
        ]
    );
    assert!(!all[4].fits);
    // It stops at what fits, and takes the largest batch that does.
    assert_eq!(changes(&advice(gib(145))).len(), 2);
    let between = all[1].total.midpoint(all[0].total);
    // Of 6 to 1 sequences, 3 are two fifths of the way.
    assert_eq!(
        changes(&advice(between))[1],
        "per_device_train_batch_size: 3 with gradient_accumulation_steps: 4"
    );
    assert_eq!(changes(&advice(gib(24))).len(), 4);
    assert_eq!(changes(&advice(gib(12))).len(), 5);

    let text = Plan::text(&config, &settings, Some(gib(24))).unwrap();
    assert!(text.contains("weights       14.96 GiB\n"), "{text}");
    assert!(text.contains("there is      24.00 GiB  not enough\n"), "{text}");
    assert!(text.contains("\nwith gradient_checkpointing: true: "), "{text}");
    assert!(text.trim_end().ends_with("which fits"), "{text}");
    let text = Plan::text(&config, &settings, Some(gib(1))).unwrap();
    assert!(text.trim_end().ends_with("take a smaller model or a shorter max_length"), "{text}");
    let text = Plan::text(&config, &settings, Some(gib(10_000))).unwrap();
    assert!(text.trim_end().ends_with("enough") && !text.contains("not enough"), "{text}");
}
