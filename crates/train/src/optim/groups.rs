//! Which parameters decay, and how fast each learns.

use std::sync::LazyLock;

use posttrain_model::Parameter;
use regex::Regex;

use super::config::OptimizerConfig;
use crate::Error;

/// The names without weight decay: `Trainer.get_decay_parameter_names` of transformers 5.23.
static UNDECAYED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)").expect("a pattern")
});

/// How a parameter is treated beside its rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Treatment {
    /// Factor of the learning rate.
    pub(super) factor: f64,
    /// λ
    pub(super) decay: f64,
}

/// The patterns of the configuration with their factors.
pub(super) fn patterns(config: &OptimizerConfig) -> Result<Vec<(Regex, f64)>, Error> {
    let compile = |(index, group): (usize, &super::RateGroup)| {
        let key = |field: &str| format!("learning_rate_groups[{index}].{field}");
        super::config::at_least_zero(&key("factor"), group.factor)?;
        let pattern = Regex::new(&group.pattern).map_err(|error| {
            let found = format!("`{}` ({error})", group.pattern);
            Error::config(key("pattern"), found, "a regular expression")
        })?;
        Ok((pattern, group.factor))
    };
    config.learning_rate_groups.iter().enumerate().map(compile).collect()
}

/// The treatment of each parameter.
pub(super) fn treatments(
    config: &OptimizerConfig,
    learning_rate: f64,
    parameters: &[Parameter],
) -> Result<Vec<Treatment>, Error> {
    let patterns = patterns(config)?;
    let mut matched = vec![false; patterns.len()];
    let mut treatments = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        let name = &parameter.name;
        // A pattern counts as used also where an earlier one wins.
        let of_group: Vec<usize> =
            (0..patterns.len()).filter(|&index| patterns[index].0.is_match(name)).collect();
        for &index in &of_group {
            matched[index] = true;
        }
        let group = of_group.first().map_or(1.0, |&index| patterns[index].1);
        let decay =
            if UNDECAYED.is_match(&name.to_lowercase()) { 0.0 } else { config.weight_decay };
        let factor = group * lora_plus(config, learning_rate, parameter)?;
        treatments.push(Treatment { factor, decay });
    }
    if let Some(ratio) = config.loraplus_lr_ratio
        && !parameters.iter().any(|parameter| is_lora_b(&parameter.name))
    {
        let expected = "none where no lora_B is trained";
        return Err(Error::config("loraplus_lr_ratio", ratio, expected));
    }
    if let Some(index) = matched.iter().position(|matched| !matched) {
        let key = format!("learning_rate_groups[{index}].pattern");
        let found = format!("`{}`", patterns[index].0);
        return Err(Error::config(key, found, "one that matches a trained parameter"));
    }
    Ok(treatments)
}

/// As PEFT 0.21 groups parameters: adapters of embeddings, then B and vectors, then the rest.
fn lora_plus(
    config: &OptimizerConfig,
    learning_rate: f64,
    parameter: &Parameter,
) -> Result<f64, Error> {
    let Some(ratio) = config.loraplus_lr_ratio else { return Ok(1.0) };
    let name = parameter.name.to_lowercase();
    if name.contains("embed_tokens") && name.contains("lora_") {
        super::config::above_zero("learning_rate", learning_rate)?;
        return Ok(config.loraplus_lr_embedding / learning_rate);
    }
    let faster = is_lora_b(&name) || parameter.shape.len() == 1;
    Ok(if faster { ratio } else { 1.0 })
}

fn is_lora_b(name: &str) -> bool {
    name.to_lowercase().contains("lora_b")
}

#[cfg(test)]
mod tests {
    use super::super::RateGroup;
    use super::*;

    fn parameter(name: &str, shape: &[usize]) -> Parameter {
        Parameter { name: name.into(), shape: shape.to_vec(), trainable: true }
    }

    #[test]
    fn norms_and_biases_do_not_decay() {
        let config = OptimizerConfig { weight_decay: 0.1, ..OptimizerConfig::default() };
        let decays = |name: &str| {
            let parameters = [parameter(name, &[4])];
            treatments(&config, 1e-3, &parameters).unwrap()[0].decay > 0.0
        };
        for name in [
            "model.norm.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.self_attn.q_norm.weight",
            "model.layers.0.self_attn.q_proj.bias",
        ] {
            assert!(!decays(name), "{name}");
        }
        for name in ["model.embed_tokens.weight", "lm_head.weight", "model.normal.weight"] {
            assert!(decays(name), "{name}");
        }
    }

    #[test]
    fn lora_plus_has_three_rates() {
        let config =
            OptimizerConfig { loraplus_lr_ratio: Some(16.0), ..OptimizerConfig::default() };
        let parameters = [
            parameter("model.layers.0.q_proj.lora_A.weight", &[2, 4]),
            parameter("model.layers.0.q_proj.lora_B.weight", &[4, 2]),
            parameter("model.layers.0.q_proj.lora_magnitude_vector", &[4]),
            parameter("model.embed_tokens.lora_embedding_B", &[4, 2]),
        ];
        let found = treatments(&config, 1e-3, &parameters).unwrap();
        let factors: Vec<f64> = found.iter().map(|found| found.factor).collect();
        assert_eq!(factors, [1.0, 16.0, 16.0, 1e-6 / 1e-3]);
        let error = treatments(&config, 1e-3, &parameters[2..]).unwrap_err().to_string();
        let expected = "`loraplus_lr_ratio` is 16, expected none where no lora_B is trained";
        assert_eq!(error, expected);
    }

    #[test]
    fn the_first_pattern_counts_and_each_has_to_match() {
        let group = |pattern: &str, factor| RateGroup { pattern: pattern.into(), factor };
        let mut config = OptimizerConfig {
            learning_rate_groups: vec![group(r"layers\.[01]\.", 0.1), group("layers", 0.5)],
            ..OptimizerConfig::default()
        };
        let names = ["model.layers.1.x", "model.layers.2.x", "lm_head.weight"];
        let parameters = names.map(|name| parameter(name, &[2, 2]));
        let found = treatments(&config, 1e-3, &parameters).unwrap();
        let factors: Vec<f64> = found.iter().map(|found| found.factor).collect();
        assert_eq!(factors, [0.1, 0.5, 1.0]);
        config.learning_rate_groups.push(group("layer_", 2.0));
        assert_eq!(
            treatments(&config, 1e-3, &parameters).unwrap_err().to_string(),
            "`learning_rate_groups[2].pattern` is `layer_`, expected one that matches a trained \
             parameter"
        );
        config.learning_rate_groups[2].pattern = "(".into();
        let error = treatments(&config, 1e-3, &parameters).unwrap_err().to_string();
        assert!(error.ends_with("expected a regular expression"), "{error}");
    }
}
