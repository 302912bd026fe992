//! Qwen2 (Yang et al. 2024, arXiv:2407.10671) and Qwen2.5 (arXiv:2412.15115).
//!
//! Differences from Llama: biases on q, k and v, not on o; with `use_sliding_window`, a window on
//! the layers from `max_window_layers` on, or on those that `layer_types` names.

use crate::arch::Architecture;
use crate::arch::llama::{self, Defaults};
use crate::config::{
    AttentionBias, Config, LayerType, Reader, RopeRules, flat_rope, layer_types, windowed,
};
use crate::error::Error;

pub(crate) const DEFAULTS: Defaults = Defaults {
    vocab_size: 151_936,
    intermediate_size: 22_016,
    num_key_value_heads: Some(32),
    max_position_embeddings: 32_768,
    eos_token_id: None,
    bos_token_id: None,
    ..llama::DEFAULTS
};

pub(crate) fn config(r: &mut Reader<'_>) -> Result<Config, Error> {
    let mut config = llama::base(r, Architecture::Qwen2, &DEFAULTS)?;
    config.attention_bias = AttentionBias { qkv: true, o: false };
    flat_rope(r, &mut config, RopeRules::USUAL)?;
    upper_windows(r, &mut config)?;
    Ok(config)
}

/// The sliding windows of Qwen2 and Qwen3.
pub(crate) fn upper_windows(r: &mut Reader<'_>, config: &mut Config) -> Result<(), Error> {
    let used = r.or("use_sliding_window", false)?;
    let window = r.nullable("sliding_window", Some(4096usize))?.filter(|_| used);
    let full_layers = r.or("max_window_layers", 28usize)?;
    let types = layer_types(r, config.num_hidden_layers, |i| match window {
        Some(_) if i >= full_layers => LayerType::Sliding,
        _ => LayerType::Full,
    })?;
    windowed(r, config, &types, window)
}
