//! Reads rotary embeddings, as `rope_theta` with `rope_scaling` (transformers 4) or as
//! `rope_parameters` (transformers 5).

use super::{Config, Reader};
use crate::error::Error;
use crate::rope::{Rope, RopeScaling};

/// What differs between families.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeRules {
    /// `rope_theta` where the file has none.
    pub(crate) theta: f64,
    /// Whether `partial_rotary_factor` is known (Phi-3); the others rotate whole heads.
    pub(crate) partial: bool,
    /// The scalings that transformers has for the family and this crate too.
    pub(crate) types: &'static [&'static str],
}

impl RopeRules {
    /// Base 10000, whole heads, every scaling.
    pub(crate) const USUAL: Self = Self {
        theta: 10_000.0,
        partial: false,
        types: &["default", "linear", "dynamic", "llama3", "yarn"],
    };
}

/// Reads the one rotary embedding of a model and makes every layer use it.
pub(crate) fn flat_rope(
    r: &mut Reader<'_>,
    config: &mut Config,
    rules: RopeRules,
) -> Result<(), Error> {
    let theta = r.get::<f64>("rope_theta")?;
    let partial = if rules.partial { r.get::<f64>("partial_rotary_factor")? } else { None };
    let (old, new) = (r.child("rope_scaling")?, r.child("rope_parameters")?);
    if old.is_some() && new.is_some() {
        return Err(r.error("rope_scaling", "next to rope_parameters", "one of the two"));
    }
    let rope = rope_from(r, old.or(new), config, RopeFields { theta, partial, rules })?;
    config.ropes = vec![rope];
    Ok(())
}

/// What is known about a rotary embedding outside its own object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeFields {
    /// `rope_theta` at the top level.
    pub(crate) theta: Option<f64>,
    /// `partial_rotary_factor` at the top level.
    pub(crate) partial: Option<f64>,
    /// The family's rules.
    pub(crate) rules: RopeRules,
}

/// Reads one rotary embedding from its object, if there is one.
pub(crate) fn rope_from<'a>(
    r: &mut Reader<'a>,
    object: Option<Reader<'a>>,
    config: &Config,
    fields: RopeFields,
) -> Result<Rope, Error> {
    let RopeFields { mut theta, mut partial, rules } = fields;
    let mut scaling = RopeScaling::Default;
    if let Some(mut object) = object {
        let inner = object.get::<f64>("rope_theta")?;
        if let (Some(inner), Some(outer)) = (inner, theta)
            && inner != outer
        {
            let expected = format!("the {inner} of the nested rope_theta, or absent");
            return Err(r.error("rope_theta", outer.to_string(), expected));
        }
        theta = inner.or(theta);
        if rules.partial {
            partial = object.get("partial_rotary_factor")?.or(partial);
        }
        scaling = read_scaling(&mut object, config.max_position_embeddings, rules.types)?;
        r.absorb(object);
    }
    // Python's int() rounds down here.
    let dim = (config.head_dim as f64 * partial.unwrap_or(1.0)) as usize;
    Ok(Rope { theta: theta.unwrap_or(rules.theta), dim, scaling })
}

fn read_scaling(
    r: &mut Reader<'_>,
    max_position_embeddings: usize,
    types: &[&str],
) -> Result<RopeScaling, Error> {
    // Both may be there; the newer name wins.
    let older: Option<String> = r.get("type")?;
    let name = r.get("rope_type")?.or(older).unwrap_or_else(|| "default".into());
    if !types.contains(&name.as_str()) {
        return Err(r.error("rope_type", name, format!("one of {}", types.join(", "))));
    }
    r.raw("finetuned"); // a remark in the first YaRN checkpoints
    Ok(match name.as_str() {
        "linear" => RopeScaling::Linear { factor: r.required("factor")? },
        "dynamic" => {
            RopeScaling::Dynamic { factor: r.required("factor")?, max_position_embeddings }
        }
        "llama3" => RopeScaling::Llama3 {
            factor: r.required("factor")?,
            low_freq_factor: r.required("low_freq_factor")?,
            high_freq_factor: r.required("high_freq_factor")?,
            original_max_position_embeddings: original_context(r, max_position_embeddings)?,
        },
        "yarn" => {
            let original_max_position_embeddings = original_context(r, max_position_embeddings)?;
            let ratio = max_position_embeddings as f64 / original_max_position_embeddings as f64;
            // transformers takes 0 for "not given" here.
            let given = |turns: &f64| *turns != 0.0;
            RopeScaling::Yarn {
                beta_fast: r.get("beta_fast")?.filter(given).unwrap_or(32.0),
                beta_slow: r.get("beta_slow")?.filter(given).unwrap_or(1.0),
                factor: r.nullable("factor", None)?.unwrap_or(ratio),
                attention_factor: r.get("attention_factor")?,
                mscale: r.get("mscale")?,
                mscale_all_dim: r.get("mscale_all_dim")?,
                truncate: r.or("truncate", true)?,
                original_max_position_embeddings,
            }
        }
        _ => RopeScaling::Default,
    })
}

fn original_context(r: &mut Reader<'_>, max_position_embeddings: usize) -> Result<usize, Error> {
    let key = "original_max_position_embeddings";
    match r.get(key)?.unwrap_or(max_position_embeddings) {
        0 => Err(r.error(key, "0", "at least 1")),
        length => Ok(length),
    }
}
