//! Bytes that the backward pass keeps of the forward pass.
//!
//! Of each token a layer keeps, in numbers (H `hidden_size`, Q and K the widths of queries and of
//! keys, I `intermediate_size`):
//!
//! | operation | keeps | where |
//! |---|---|---|
//! | norm of the input | H | `Pre`, `Sandwich` |
//! | q, k, v | their input, H | one of them is trained or adapted |
//! | norms of q and k | Q + K | there are such |
//! | attention | q, k, v, its output and two numbers for each head: 2 Q + 2 K + 2 heads | |
//! | o | its input is the attention's output: 0 | |
//! | norm behind the attention | H | `Sandwich`, `Post` |
//! | norm before the feed-forward network | H | `Pre`, `Sandwich` |
//! | gate, up | their input, H | one of them is trained or adapted |
//! | act(gate) · up | gate and up: 2 I | |
//! | down | its input, I | it is trained or adapted |
//! | norm behind the network | H | `Sandwich`, `Post` |
//! | LoRA | x Aᵀ, r for each adapted layer; with `DoRA` x Wᵀ, too | |
//!
//! Rotations, sums and biases keep nothing of their inputs. Below the lowest layer with a trained
//! tensor nothing is kept.

use posttrain_model::Activations;
use posttrain_model::config::{Config, NormPlacement, QkNorm};

use super::MemorySettings;
use super::weights::size_of;

/// What a pass needs beside the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pass {
    /// Kept from the forward pass, with what is computed anew for one layer at a time.
    pub(super) kept: u64,
    /// Gradients of the activations of one layer, while they are made.
    pub(super) working: u64,
}

pub(super) fn of(config: &Config, settings: &MemorySettings) -> Pass {
    let tokens = (settings.per_device_train_batch_size * settings.max_length) as u64;
    let number = size_of(settings.compute);
    let hidden = config.hidden_size as u64;
    let layers = config.num_hidden_layers;
    let trains = |prefix: &str| settings.trained().any(|p| p.name.starts_with(prefix));
    let embedding = trains("model.embed_tokens.");
    let lowest = (0..layers).find(|index| embedding || trains(&format!("model.layers.{index}.")));
    // The final norm keeps its input, and the head has its output and the gradient by it.
    let ends = 3 * hidden * number;
    let Some(lowest) = lowest else {
        return Pass { kept: tokens * ends, working: 0 };
    };
    let kept = lowest..layers;
    let layer = |index| layer(config, settings, index);
    let kept = match settings.activations {
        Activations::Keep => kept.map(layer).sum(),
        Activations::Recompute => {
            layers as u64 * hidden * number + kept.map(layer).max().unwrap_or(0)
        }
    };
    Pass { kept: tokens * (kept + ends), working: tokens * working(config) * number }
}

/// Bytes that a layer keeps of a token.
fn layer(config: &Config, settings: &MemorySettings, index: usize) -> u64 {
    let prefix = format!("model.layers.{index}.");
    let trained: Vec<(&str, &[usize])> = settings
        .trained()
        .filter_map(|p| Some((p.name.strip_prefix(&prefix)?, &p.shape[..])))
        .collect();
    let learns = |modules: &[&str]| {
        trained.iter().any(|(name, _)| modules.iter().any(|module| name.contains(module)))
    };
    let sum = |ending: &str| {
        let found = trained.iter().filter(|(name, _)| name.ends_with(ending));
        found.map(|(_, shape)| shape[0]).sum::<usize>()
    };
    let when = |there: bool, numbers: usize| if there { numbers } else { 0 };

    let hidden = config.hidden_size;
    let q = config.num_attention_heads * config.head_dim;
    let k = config.num_key_value_heads * config.head_dim;
    let before = config.norms != NormPlacement::Post;
    let behind = config.norms != NormPlacement::Pre;
    let numbers = when(before, hidden)
        + when(learns(&[".q_proj.", ".k_proj.", ".v_proj.", ".qkv_proj."]), hidden)
        + when(config.qk_norm != QkNorm::None, q + k)
        + 2 * q
        + 2 * k
        + when(behind, hidden)
        + when(before, hidden)
        + when(learns(&[".gate_proj.", ".up_proj.", ".gate_up_proj."]), hidden)
        + 2 * config.intermediate_size
        + when(learns(&[".down_proj."]), config.intermediate_size)
        + when(behind, hidden)
        + sum(".lora_A.weight")
        + sum(".lora_magnitude_vector");
    // Largest score and sum of each head are in f32 whatever the rest is.
    numbers as u64 * size_of(settings.compute) + 8 * config.num_attention_heads as u64
}

/// Numbers of the gradients of a token that exist at a time: those around the feed-forward network
/// (by its product, gate, up, and three of the width of the stream), or around the attention.
fn working(config: &Config) -> u64 {
    let q = config.num_attention_heads * config.head_dim;
    let k = config.num_key_value_heads * config.head_dim;
    let stream = 3 * config.hidden_size;
    (stream + (3 * config.intermediate_size).max(2 * q + 2 * k)) as u64
}
