//! Mistral 7B (Jiang et al. 2023, arXiv:2310.06825).
//!
//! Differences from Llama: a sliding window on every layer. It is 4096 where `sliding_window` is
//! absent; checkpoints without a window write `null`.

use crate::arch::Architecture;
use crate::arch::llama::{self, Defaults};
use crate::config::{Config, Reader, RopeRules, flat_rope};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    intermediate_size: 14_336,
    num_key_value_heads: Some(8),
    max_position_embeddings: 4096 * 32,
    ..llama::DEFAULTS
};

pub(crate) fn config(r: &mut Reader<'_>) -> Result<Config, Error> {
    let mut config = llama::base(r, Architecture::Mistral, &DEFAULTS)?;
    flat_rope(r, &mut config, RopeRules::USUAL)?;
    let window = r.nullable("sliding_window", Some(4096))?;
    config.layers.iter_mut().for_each(|layer| layer.sliding_window = window);
    Ok(config)
}
