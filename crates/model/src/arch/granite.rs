//! Granite 3, the dense models (IBM Granite Team 2024, "Granite 3.0 Language Models").
//!
//! Differences from Llama: four scalars, after Yang et al. 2022 (arXiv:2203.03466): embeddings,
//! attention scores (in place of `head_dim^-0.5`; 1 where absent) and residual branches are
//! multiplied, logits are divided.

use crate::arch::Architecture;
use crate::arch::llama;
use crate::config::{AttentionBias, Config, Reader, RopeRules, flat_rope};
use crate::error::Error;

pub(crate) fn config(r: &mut Reader<'_>) -> Result<Config, Error> {
    let mut config = llama::base(r, Architecture::Granite, &llama::DEFAULTS)?;
    config.attention_bias = AttentionBias::all(r.or("attention_bias", false)?);
    config.mlp_bias = r.or("mlp_bias", false)?;
    config.embedding_multiplier = r.or("embedding_multiplier", 1.0)?;
    config.attention_multiplier = r.or("attention_multiplier", 1.0)?;
    config.residual_multiplier = r.or("residual_multiplier", 1.0)?;
    config.logits_scaling = r.or("logits_scaling", 1.0)?;
    flat_rope(r, &mut config, RopeRules::USUAL)?;
    Ok(config)
}
