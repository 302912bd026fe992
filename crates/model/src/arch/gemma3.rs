//! Gemma 3, the text models (Gemma Team 2025, arXiv:2503.19786).
//!
//! Differences from Gemma 2: each head's queries and keys are normalized instead of a soft cap on
//! the scores; five layers with a window for each without; layers with a window rotate with
//! `rope_local_base_freq` and without scaling, the others with `rope_theta` and `rope_scaling`.

use crate::arch::Architecture;
use crate::arch::gemma2;
use crate::arch::llama::Defaults;
use crate::config::{
    Config, LayerType, QkNorm, Reader, RopeFields, RopeRules, layer_types, rope_from, windowed,
};
use crate::error::Error;

const DEFAULTS: Defaults =
    Defaults { vocab_size: 262_208, max_position_embeddings: 131_072, ..gemma2::DEFAULTS };

/// Indices into [`Config::ropes`].
const GLOBAL: usize = 0;
const LOCAL: usize = 1;

pub(crate) fn config(r: &mut Reader<'_>) -> Result<Config, Error> {
    let mut config = gemma2::base(r, Architecture::Gemma3, &DEFAULTS)?;
    config.qk_norm = QkNorm::PerHead;
    config.final_logit_softcapping = r.nullable("final_logit_softcapping", None)?;
    if let Some(cap) = r.get::<f32>("attn_logit_softcapping")? {
        // transformers reads the field and forgets to use it.
        return Err(r.error("attn_logit_softcapping", cap.to_string(), "null for gemma3_text"));
    }
    ropes(r, &mut config)?;

    let pattern = r.or("sliding_window_pattern", 6usize)?;
    if pattern == 0 {
        return Err(r.error("sliding_window_pattern", "0", "at least 1"));
    }
    let types = layer_types(r, config.num_hidden_layers, |i| match (i + 1) % pattern {
        0 => LayerType::Full,
        _ => LayerType::Sliding,
    })?;
    r.raw("_sliding_window_pattern"); // written next to `layer_types`, read by nobody
    let window = r.nullable("sliding_window", Some(4096))?;
    windowed(r, &mut config, &types, window)?;
    for (layer, layer_type) in config.layers.iter_mut().zip(types) {
        layer.rope = Some(if layer_type == LayerType::Sliding { LOCAL } else { GLOBAL });
    }
    Ok(config)
}

fn ropes(r: &mut Reader<'_>, config: &mut Config) -> Result<(), Error> {
    let global = fields(r.get("rope_theta")?, 1_000_000.0);
    let local = fields(r.get("rope_local_base_freq")?, 10_000.0);
    let (scaling, parameters) = (r.child("rope_scaling")?, r.child("rope_parameters")?);
    config.ropes = match (scaling, parameters) {
        (Some(_), Some(_)) => {
            return Err(r.error("rope_scaling", "next to rope_parameters", "one of the two"));
        }
        (None, Some(mut nested)) => {
            let full = nested.child("full_attention")?;
            let sliding = nested.child("sliding_attention")?;
            let ropes = vec![
                rope_from(&mut nested, full, config, global)?,
                rope_from(&mut nested, sliding, config, local)?,
            ];
            r.absorb(nested);
            ropes
        }
        (Some(mut scaling), None) => {
            if scaling.get::<String>("rope_type")?.is_none() {
                // transformers ignores the scaling when only the old name `type` is there.
                return Err(scaling.error("rope_type", "absent", "a scaling, or \"default\""));
            }
            let full = rope_from(r, Some(scaling), config, global)?;
            vec![full, rope_from(r, None, config, local)?]
        }
        (None, None) => {
            vec![rope_from(r, None, config, global)?, rope_from(r, None, config, local)?]
        }
    };
    Ok(())
}

fn fields(theta: Option<f64>, default: f64) -> RopeFields {
    RopeFields { theta, partial: None, rules: RopeRules { theta: default, ..RopeRules::USUAL } }
}
