//! Qwen3, the dense models (Yang et al. 2025, arXiv:2505.09388).
//!
//! Differences from Llama: each head's queries and keys are normalized before the rotation;
//! `head_dim` is a field of its own (128). Windows as in Qwen2, biases only with `attention_bias`.

use crate::arch::Architecture;
use crate::arch::llama::Defaults;
use crate::arch::{llama, qwen2};
use crate::config::{AttentionBias, Config, QkNorm, Reader, RopeRules, flat_rope};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults { head_dim: Some(128), ..qwen2::DEFAULTS };

pub(crate) fn config(r: &mut Reader<'_>) -> Result<Config, Error> {
    let mut config = llama::base(r, Architecture::Qwen3, &DEFAULTS)?;
    config.attention_bias = AttentionBias::all(r.or("attention_bias", false)?);
    config.qk_norm = QkNorm::PerHead;
    flat_rope(r, &mut config, RopeRules::USUAL)?;
    qwen2::upper_windows(r, &mut config)?;
    Ok(config)
}
