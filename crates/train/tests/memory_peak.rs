//! The plan against the memory that a pass takes at its peak, counted by the allocator of this binary.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../model/tests/support/allocator.rs"]
mod allocator;

use std::path::Path;

use allocator::peak_of;
use posttrain_model::adapter::LoraConfig;
use posttrain_model::checkpoint::Dtype;
use posttrain_model::config::Config;
use posttrain_model::{Activations, Batch, Decoder, Gradients, Objective, Targets, device};
use posttrain_train::memory::{MemorySettings, Plan, Reference};
use posttrain_train::optim::OptimizerConfig;
use serde_json::json;

const ROWS: usize = 4;
const TIME: usize = 320;

fn config() -> Config {
    let json = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 2048,
        "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
    });
    Config::from_json(Path::new("config.json"), &json).unwrap()
}

/// Two passes of a window, with gradients of all weights or of an adapter, activations kept or computed
/// anew, take no more than planned, and not much less (in a layer that is computed anew gradients take the
/// place of what they are made from, which the plan leaves aside).
#[test]
fn a_window_takes_what_the_plan_says() {
    let config = config();
    let whole = Decoder::random(&config, 0.02, 1, &device::open("flex").unwrap()).unwrap();
    let mut adapted = whole.clone();
    let lora = LoraConfig { target_modules: Some("all-linear".into()), ..LoraConfig::default() };
    adapted.add_adapter("a", &lora, 1).unwrap();
    let rows: Vec<Vec<u32>> = (0..ROWS)
        .map(|row| (0..TIME).map(|i| ((row + i) * 7919 % 2048) as u32).collect())
        .collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let batch = Batch::padded(&rows, 0).unwrap();
    let targets = Targets::all(&batch);
    let weights = vec![1.0; targets.len()];

    for (name, model) in [("all weights", &whole), ("an adapter", &adapted)] {
        for activations in [Activations::Keep, Activations::Recompute] {
            let mut gradients = Gradients::default();
            let ((), peak) = peak_of(&format!("{name}, {activations:?}"), || {
                for _ in 0..2 {
                    model.backward(&batch, None, activations, &mut gradients, |h, gradients| {
                        let nll = Objective::Nll;
                        let found =
                            model.cross_entropy(h, &targets, &weights, nll, Some(gradients));
                        found.by_hidden.unwrap()
                    });
                }
            });
            let settings = MemorySettings {
                dtype: Dtype::F32,
                compute: Dtype::F32,
                quantization: None,
                parameters: model.parameters(),
                optimizer: OptimizerConfig::default(),
                ema: false,
                reference: Reference::Shared,
                per_device_train_batch_size: ROWS,
                gradient_accumulation_steps: 2,
                max_length: TIME,
                activations,
            };
            let plan = Plan::new(&config, &settings).unwrap();
            let planned = plan.total() - plan.weights - plan.optimizer;
            let ratio = peak as f64 / planned as f64;
            assert!(
                (0.75..1.0).contains(&ratio),
                "{name}, {activations:?}: {peak} of {planned}, {ratio:.2}"
            );
        }
    }
}
