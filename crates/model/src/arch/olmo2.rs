//! `OLMo` 2 (`OLMo` Team 2024, arXiv:2501.00656).
//!
//! Differences from Llama: attention and feed-forward network are normalized after, not before;
//! queries and keys are normalized over all heads at once.

use crate::arch::Architecture;
use crate::arch::llama::{self, Defaults};
use crate::config::{AttentionBias, Config, NormPlacement, QkNorm, Reader, RopeRules, flat_rope};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    vocab_size: 50_304,
    rms_norm_eps: 1e-5,
    eos_token_id: Some(50_279),
    bos_token_id: None,
    pad_token_id: Some(1),
    ..llama::DEFAULTS
};

pub(crate) fn config(r: &mut Reader<'_>) -> Result<Config, Error> {
    let mut config = llama::base(r, Architecture::Olmo2, &DEFAULTS)?;
    config.attention_bias = AttentionBias::all(r.or("attention_bias", false)?);
    config.norms = NormPlacement::Post;
    config.qk_norm = QkNorm::WholeProjection;
    flat_rope(r, &mut config, RopeRules::USUAL)?;
    Ok(config)
}
