//! Which layers have a sliding window.

use super::{Config, Layer, Reader};
use crate::error::Error;

/// An entry of `layer_types`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerType {
    /// Sees every earlier token.
    Full,
    /// Sees a window.
    Sliding,
}

/// Reads `layer_types`, or takes the family's rule for layer `i` where the key is absent.
pub(crate) fn layer_types(
    r: &mut Reader<'_>,
    num_hidden_layers: usize,
    rule: impl Fn(usize) -> LayerType,
) -> Result<Vec<LayerType>, Error> {
    let Some(names) = r.get::<Vec<String>>("layer_types")? else {
        return Ok((0..num_hidden_layers).map(rule).collect());
    };
    if names.len() != num_hidden_layers {
        let expected = format!("as many as num_hidden_layers, {num_hidden_layers}");
        return Err(r.error("layer_types", format!("{} entries", names.len()), expected));
    }
    let layer_type = |name: &String| match name.as_str() {
        // transformers 5 reads the second, older name too.
        "full_attention" | "attention" => Ok(LayerType::Full),
        "sliding_attention" => Ok(LayerType::Sliding),
        _ => Err(r.error("layer_types", name, "full_attention or sliding_attention")),
    };
    names.iter().map(layer_type).collect()
}

/// Gives the window to the sliding layers; they need one.
pub(crate) fn windowed(
    r: &Reader<'_>,
    config: &mut Config,
    types: &[LayerType],
    window: Option<usize>,
) -> Result<(), Error> {
    if window.is_none() && types.contains(&LayerType::Sliding) {
        let expected = "a window for the sliding_attention layers (with use_sliding_window true, \
                        where the family has that key)";
        return Err(r.error("sliding_window", "not set", expected));
    }
    for (layer, layer_type) in config.layers.iter_mut().zip(types) {
        let sliding_window = window.filter(|_| *layer_type == LayerType::Sliding);
        *layer = Layer { sliding_window, ..*layer };
    }
    Ok(())
}
