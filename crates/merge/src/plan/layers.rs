//! `config.json` after layers were chosen: their number, and the lists with an entry for each.

use serde_json::{Map, Value};

use super::input::Input;
use super::layout::LAYER_KEYS;
use super::pieces::Taken;

/// Keys that speak of layers by their numbers, which may mean others now.
const BY_NUMBER: [&str; 7] = [
    "max_window_layers",
    "mlp_only_layers",
    "first_k_dense_replace",
    "sliding_window_pattern",
    "no_rope_layer_interval",
    "decoder_sparse_step",
    "moe_layer_freq",
];

/// Brings the configuration of the donor in line with the layers that were taken.
pub(super) fn renumber(
    config: &mut Map<String, Value>,
    taken: &Taken,
    inputs: &[Input],
    donor: usize,
    warnings: &mut Vec<String>,
) {
    let Some(before) = inputs[donor].stack(taken.module).map(|stack| stack.layers) else { return };
    let whole = taken.layers.iter().copied().eq((0..before).map(|layer| (donor, layer)));
    if whole {
        return;
    }
    let part = part(inputs[donor].config(), taken.module, before);
    let Some(map) = at_mut(config, part.as_deref()) else { return };
    for (key, value) in map.iter_mut() {
        match value {
            Value::Number(number)
                if LAYER_KEYS.contains(&key.as_str()) && number.as_u64() == Some(before as u64) =>
            {
                *value = Value::from(taken.layers.len());
            }
            Value::Array(of_layers) if of_layers.len() == before => {
                let own = of_layers.clone();
                *of_layers = taken
                    .layers
                    .iter()
                    .filter_map(|(input, layer)| {
                        let there = at(inputs[*input].config(), part.as_deref())
                            .and_then(|config| config.get(key)?.get(*layer));
                        there.or_else(|| own.get(*layer)).cloned()
                    })
                    .collect();
            }
            value if BY_NUMBER.contains(&key.as_str()) && !is_empty(value) => {
                warnings.push(format!(
                    "config.json: `{key}` is {value} and speaks of layers by their numbers, which have changed"
                ));
            }
            _ => {}
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// The part of a configuration that says how many layers a module has; `None` for the top.
fn part(config: &Map<String, Value>, module: usize, layers: usize) -> Option<String> {
    let says = |map: &Map<String, Value>| {
        LAYER_KEYS.iter().any(|key| map.get(*key).and_then(Value::as_u64) == Some(layers as u64))
    };
    let mut nested = config.iter().filter_map(|(key, value)| Some((key, value.as_object()?)));
    let is_text = |key: &str| ["text", "llm", "language"].iter().any(|word| key.contains(word));
    let found = nested.find(|(key, map)| says(map) && is_text(key) == (module == 0));
    found.map(|(key, _)| key.clone())
}

fn at<'a>(config: &'a Map<String, Value>, part: Option<&str>) -> Option<&'a Map<String, Value>> {
    match part {
        None => Some(config),
        Some(part) => config.get(part)?.as_object(),
    }
}

fn at_mut<'a>(
    config: &'a mut Map<String, Value>,
    part: Option<&str>,
) -> Option<&'a mut Map<String, Value>> {
    match part {
        None => Some(config),
        Some(part) => config.get_mut(part)?.as_object_mut(),
    }
}
