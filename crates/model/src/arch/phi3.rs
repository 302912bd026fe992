//! Phi-3 (Abdin et al. 2024, arXiv:2404.14219) and Phi-4 (arXiv:2412.08905).
//!
//! Differences from Llama: q, k and v are one tensor, and so are gate and up; a window on every
//! layer where `sliding_window` is set; `partial_rotary_factor` may leave a part of each head
//! unrotated. The long-context checkpoints scale with `LongRoPE` (arXiv:2402.13753), which is not
//! supported; transformers takes the types `su` and `yarn` for it in this family.

use crate::arch::Architecture;
use crate::arch::llama::{self, Defaults};
use crate::config::{Config, Reader, RopeRules, flat_rope};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    vocab_size: 32_064,
    hidden_size: 3072,
    intermediate_size: 8192,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    eos_token_id: Some(32_000),
    pad_token_id: Some(32_000),
    ..llama::DEFAULTS
};

pub(crate) fn config(r: &mut Reader<'_>) -> Result<Config, Error> {
    let mut config = llama::base(r, Architecture::Phi3, &DEFAULTS)?;
    config.fused_projections = true;
    let rules = RopeRules { partial: true, types: &["default"], ..RopeRules::USUAL };
    flat_rope(r, &mut config, rules)?;
    r.raw("original_max_position_embeddings"); // matters to LongRoPE alone
    let window = r.nullable("sliding_window", None)?;
    config.layers.iter_mut().for_each(|layer| layer.sliding_window = window);
    Ok(config)
}
