//! `SmolLM3` (Hugging Face 2025, <https://huggingface.co/blog/smollm3>).
//!
//! Differences from Llama: layers without positions ("`NoPE`", Yang et al. 2025, arXiv:2501.18795),
//! every fourth unless `no_rope_layers` says otherwise, where, against the sound of its name, a 1
//! stands for a layer with rotary positions; tied embeddings. A window is possible on the layers
//! without positions.

use crate::arch::Architecture;
use crate::arch::llama::{self, Defaults};
use crate::config::{
    AttentionBias, Config, LayerType, Reader, RopeRules, flat_rope, layer_types, windowed,
};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    vocab_size: 128_256,
    hidden_size: 2048,
    num_hidden_layers: 36,
    num_attention_heads: 16,
    num_key_value_heads: Some(4),
    max_position_embeddings: 32_768,
    tie_word_embeddings: true,
    eos_token_id: Some(128_001),
    bos_token_id: Some(128_000),
    pad_token_id: Some(128_004),
    ..llama::DEFAULTS
};

pub(crate) fn config(r: &mut Reader<'_>) -> Result<Config, Error> {
    let mut config = llama::base(r, Architecture::SmolLm3, &DEFAULTS)?;
    config.attention_bias = AttentionBias::all(r.or("attention_bias", false)?);
    config.mlp_bias = r.or("mlp_bias", false)?;
    flat_rope(r, &mut config, RopeRules { theta: 2_000_000.0, ..RopeRules::USUAL })?;

    let with_rope = with_rope(r, config.num_hidden_layers)?;
    let used = r.or("use_sliding_window", false)?;
    let window = r.nullable("sliding_window", None::<usize>)?.filter(|_| used);
    r.raw("max_window_layers"); // a remnant of Qwen2 that nothing reads
    let types = layer_types(r, config.num_hidden_layers, |i| match window {
        Some(_) if !with_rope[i] => LayerType::Sliding,
        _ => LayerType::Full,
    })?;
    windowed(r, &mut config, &types, window)?;
    for (layer, with_rope) in config.layers.iter_mut().zip(with_rope) {
        layer.rope = with_rope.then_some(0);
    }
    Ok(config)
}

/// For every layer whether it has rotary positions.
fn with_rope(r: &mut Reader<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    let interval = r.or("no_rope_layer_interval", 4usize)?;
    if interval == 0 {
        return Err(r.error("no_rope_layer_interval", "0", "at least 1"));
    }
    let Some(flags) = r.get::<Vec<usize>>("no_rope_layers")? else {
        return Ok((0..layers).map(|i| (i + 1) % interval != 0).collect());
    };
    // transformers reads the first ones of a list that is too long.
    if flags.len() < layers || flags.iter().any(|&flag| flag > 1) {
        let expected = format!("a 0 or 1 for each of {layers} layers");
        return Err(r.error("no_rope_layers", format!("{flags:?}"), expected));
    }
    Ok(flags.into_iter().take(layers).map(|flag| flag == 1).collect())
}
