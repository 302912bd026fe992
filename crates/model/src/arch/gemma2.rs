//! Gemma 2 (Gemma Team 2024, arXiv:2408.00118).
//!
//! Differences from Llama: embeddings times `sqrt(hidden_size)`; norms that scale by `1 + weight`,
//! before and after attention and feed-forward network; scores scaled by
//! `query_pre_attn_scalar^-0.5`; soft caps on scores and logits; a window on every other layer,
//! the first included; GELU; tied embeddings.

use crate::arch::Architecture;
use crate::arch::llama::{self, Defaults};
use crate::config::{
    Activation, AttentionBias, Config, LayerType, NormPlacement, Reader, RopeRules, flat_rope,
    layer_types, windowed,
};
use crate::error::Error;

pub(crate) const DEFAULTS: Defaults = Defaults {
    vocab_size: 256_000,
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 26,
    num_attention_heads: 8,
    num_key_value_heads: Some(4),
    head_dim: Some(256),
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-6,
    hidden_act: Activation::GeluTanh,
    hidden_act_key: "hidden_activation",
    tie_word_embeddings: true,
    eos_token_id: Some(1),
    bos_token_id: Some(2),
    pad_token_id: Some(0),
};

pub(crate) fn config(r: &mut Reader<'_>) -> Result<Config, Error> {
    let mut config = base(r, Architecture::Gemma2, &DEFAULTS)?;
    config.attn_logit_softcapping = r.nullable("attn_logit_softcapping", Some(50.0))?;
    config.final_logit_softcapping = r.nullable("final_logit_softcapping", Some(30.0))?;
    flat_rope(r, &mut config, RopeRules::USUAL)?;
    let window = r.nullable("sliding_window", Some(4096usize))?;
    // The first checkpoints repeat the window under this name.
    if let Some(repeated) = r.get::<usize>("sliding_window_size")?
        && Some(repeated) != window
    {
        let expected = format!("that of sliding_window, {window:?}");
        return Err(r.error("sliding_window_size", repeated.to_string(), expected));
    }
    let types = layer_types(r, config.num_hidden_layers, |i| match i % 2 {
        0 => LayerType::Sliding,
        _ => LayerType::Full,
    })?;
    windowed(r, &mut config, &types, window)?;
    Ok(config)
}

/// What Gemma 2 and Gemma 3 share.
pub(crate) fn base(
    r: &mut Reader<'_>,
    architecture: Architecture,
    defaults: &Defaults,
) -> Result<Config, Error> {
    let mut config = llama::base(r, architecture, defaults)?;
    // transformers reads `hidden_activation` and ignores this; a difference is a mistake.
    if let Some(ignored) = r.get::<Activation>("hidden_act")?
        && ignored != config.hidden_act
    {
        let expected = format!("that of hidden_activation, {:?}", config.hidden_act);
        return Err(r.error("hidden_act", format!("{ignored:?}"), expected));
    }
    let scalar: f64 = r.or("query_pre_attn_scalar", 256.0)?;
    config.attention_multiplier = scalar.powf(-0.5) as f32;
    config.attention_bias = AttentionBias::all(r.or("attention_bias", false)?);
    config.embedding_multiplier = (config.hidden_size as f64).sqrt() as f32;
    config.norm_unit_offset = true;
    config.norms = NormPlacement::Sandwich;
    Ok(config)
}
