//! Relations between the fields of a [`Config`].

use std::path::Path;

use super::Config;
use crate::error::Error;
use crate::rope::RopeScaling;

impl Config {
    /// Checks what no single field can say; the path is for errors only.
    pub(crate) fn validate(&self, path: &Path) -> Result<(), Error> {
        let check = |holds: bool, field: &str, found: String, expected: &str| {
            if holds {
                return Ok(());
            }
            let (field, expected) = (field.to_owned(), expected.to_owned());
            Err(Error::ConfigField { path: path.to_owned(), field, found, expected })
        };
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (field, size) in sizes {
            check(size > 0, field, size.to_string(), "at least 1")?;
        }
        let (heads, shared) = (self.num_attention_heads, self.num_key_value_heads);
        check(
            heads.is_multiple_of(shared),
            "num_key_value_heads",
            shared.to_string(),
            &format!("a divisor of num_attention_heads, {heads}"),
        )?;
        check(
            self.rms_norm_eps >= 0.0,
            "rms_norm_eps",
            self.rms_norm_eps.to_string(),
            "at least 0",
        )?;
        let dropout = self.attention_dropout;
        let range = "at least 0 and below 1";
        check((0.0..1.0).contains(&dropout), "attention_dropout", dropout.to_string(), range)?;
        let positive = [
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
            ("logits_scaling", Some(self.logits_scaling)),
            ("attention_multiplier", Some(self.attention_multiplier)),
        ];
        for (field, value) in positive {
            let value = value.unwrap_or(1.0);
            check(value > 0.0, field, value.to_string(), "above 0")?;
        }
        for layer in &self.layers {
            check(layer.sliding_window != Some(0), "sliding_window", "0".into(), "at least 1")?;
        }
        for rope in &self.ropes {
            let (dim, head_dim) = (rope.dim, self.head_dim);
            check(
                dim > 0 && dim.is_multiple_of(2) && dim <= head_dim,
                "head_dim",
                format!("{head_dim}, of which {dim} are rotated"),
                "an even number of rotated components, from 2 to head_dim",
            )?;
            check(rope.theta > 1.0, "rope_theta", rope.theta.to_string(), "above 1")?;
            let Some(factor) = scaling_factor(&rope.scaling) else { continue };
            check(factor > 0.0, "rope_scaling.factor", factor.to_string(), "above 0")?;
            match rope.scaling {
                RopeScaling::Dynamic { .. } => {
                    let expected = "at least 4 rotated components for dynamic scaling";
                    check(dim > 2, "head_dim", dim.to_string(), expected)?;
                }
                RopeScaling::Llama3 { low_freq_factor, high_freq_factor, .. } => check(
                    0.0 < low_freq_factor && low_freq_factor < high_freq_factor,
                    "rope_scaling.high_freq_factor",
                    high_freq_factor.to_string(),
                    &format!("above low_freq_factor, {low_freq_factor}, which is above 0"),
                )?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn scaling_factor(scaling: &RopeScaling) -> Option<f64> {
    match scaling {
        RopeScaling::Default => None,
        RopeScaling::Linear { factor }
        | RopeScaling::Dynamic { factor, .. }
        | RopeScaling::Llama3 { factor, .. }
        | RopeScaling::Yarn { factor, .. } => Some(*factor),
    }
}
