//! Llama (Touvron et al. 2023, arXiv:2302.13971 and arXiv:2307.09288; Grattafiori et al. 2024,
//! arXiv:2407.21783), the base of the other families.
//!
//! A pre-norm decoder with RMS norms, rotary positions on whole heads, grouped-query attention and
//! a gated feed-forward network `down(act(gate(x)) * up(x))`.

use crate::arch::Architecture;
use crate::config::{
    Activation, AttentionBias, Config, Head, Layer, NormPlacement, QkNorm, Reader, RopeRules,
    TokenId, TokenIds, flat_rope,
};
use crate::error::Error;

pub(crate) fn config(r: &mut Reader<'_>) -> Result<Config, Error> {
    let mut config = base(r, Architecture::Llama, &DEFAULTS)?;
    config.attention_bias = AttentionBias::all(r.or("attention_bias", false)?);
    config.mlp_bias = r.or("mlp_bias", false)?;
    flat_rope(r, &mut config, RopeRules::USUAL)?;
    Ok(config)
}

/// What a family's configuration class in transformers sets where the file is silent.
pub(crate) struct Defaults {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    /// `None`: as many as query heads, which is also what an explicit `null` means.
    pub(crate) num_key_value_heads: Option<usize>,
    /// `None`: `hidden_size / num_attention_heads`.
    pub(crate) head_dim: Option<usize>,
    pub(crate) max_position_embeddings: usize,
    pub(crate) rms_norm_eps: f32,
    pub(crate) hidden_act: Activation,
    /// `hidden_act`, but `hidden_activation` in Gemma.
    pub(crate) hidden_act_key: &'static str,
    pub(crate) tie_word_embeddings: bool,
    pub(crate) eos_token_id: Option<u32>,
    pub(crate) bos_token_id: Option<u32>,
    pub(crate) pad_token_id: Option<u32>,
}

/// Those of `LlamaConfig`.
pub(crate) const DEFAULTS: Defaults = Defaults {
    vocab_size: 32_000,
    hidden_size: 4096,
    intermediate_size: 11_008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: None,
    head_dim: None,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-6,
    hidden_act: Activation::Silu,
    hidden_act_key: "hidden_act",
    tie_word_embeddings: false,
    eos_token_id: Some(2),
    bos_token_id: Some(1),
    pad_token_id: None,
};

/// The fields that all families share, and Llama's values of the others; `ropes` and `head` are left
/// to read.
pub(crate) fn base(
    r: &mut Reader<'_>,
    architecture: Architecture,
    defaults: &Defaults,
) -> Result<Config, Error> {
    let hidden_size = r.or("hidden_size", defaults.hidden_size)?;
    let num_hidden_layers = r.or("num_hidden_layers", defaults.num_hidden_layers)?;
    if num_hidden_layers > 4096 {
        // A list of this length is made below.
        return Err(r.error("num_hidden_layers", num_hidden_layers.to_string(), "at most 4096"));
    }
    let num_attention_heads = r.or("num_attention_heads", defaults.num_attention_heads)?;
    let head_dim = match r.nullable("head_dim", defaults.head_dim)? {
        Some(head_dim) => head_dim,
        None if num_attention_heads > 0 && hidden_size.is_multiple_of(num_attention_heads) => {
            hidden_size / num_attention_heads
        }
        None => {
            let expected = format!("a multiple of num_attention_heads, {num_attention_heads}");
            return Err(r.error("hidden_size", hidden_size.to_string(), expected));
        }
    };
    let newer: Option<String> = r.get("dtype")?;
    let older = r.get("torch_dtype")?;
    let id = |default: Option<u32>| default.map(|id| TokenId(Some(id)));
    let eos = TokenIds(defaults.eos_token_id.into_iter().collect());
    Ok(Config {
        architecture,
        vocab_size: r.or("vocab_size", defaults.vocab_size)?,
        hidden_size,
        intermediate_size: r.or("intermediate_size", defaults.intermediate_size)?,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads: r
            .nullable("num_key_value_heads", defaults.num_key_value_heads)?
            .unwrap_or(num_attention_heads),
        head_dim,
        max_position_embeddings: r
            .or("max_position_embeddings", defaults.max_position_embeddings)?,
        hidden_act: r.or(defaults.hidden_act_key, defaults.hidden_act)?,
        rms_norm_eps: r.or("rms_norm_eps", defaults.rms_norm_eps)?,
        norm_unit_offset: false,
        norms: NormPlacement::Pre,
        qk_norm: QkNorm::None,
        attention_bias: AttentionBias::all(false),
        mlp_bias: false,
        fused_projections: false,
        head: Head::Language,
        tie_word_embeddings: r.or("tie_word_embeddings", defaults.tie_word_embeddings)?,
        embedding_multiplier: 1.0,
        attention_multiplier: (head_dim as f64).powf(-0.5) as f32,
        residual_multiplier: 1.0,
        logits_scaling: 1.0,
        attn_logit_softcapping: None,
        final_logit_softcapping: None,
        attention_dropout: r.get("attention_dropout")?.unwrap_or(0.0),
        layers: vec![Layer { sliding_window: None, rope: Some(0) }; num_hidden_layers],
        ropes: Vec::new(),
        eos_token_ids: r.nullable("eos_token_id", Some(eos))?.map_or_else(Vec::new, |ids| ids.0),
        bos_token_id: r.nullable("bos_token_id", id(defaults.bos_token_id))?.and_then(|id| id.0),
        pad_token_id: r.nullable("pad_token_id", id(defaults.pad_token_id))?.and_then(|id| id.0),
        dtype: newer.or(older),
        json: r.json(),
    })
}
