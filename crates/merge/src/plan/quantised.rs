//! Checkpoints in fp8 with scales, as logical tensors.
//!
//! DeepSeek's and Qwen's form: `w = q * s` with `X_scale_inv` for blocks (`quantization_config.weight_block_size`,
//! 128 by 128) or the whole tensor. The form of fbgemm and compressed-tensors: `X_scale` for each row or the
//! whole tensor. Activation scales (`input_scale`) belong to the quantised run and are left behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::Dtype;
use serde_json::{Map, Value};

use crate::checkpoint::Tensor;
use crate::source::{Scaled, Source};
use crate::{Checkpoint, Error};

/// Endings of the names of scales.
const SCALES: [&str; 2] = ["_scale_inv", "_scale"];
/// Endings of names that only a quantised run needs.
const OF_ACTIVATIONS: [&str; 4] = ["input_scale", "activation_scale", ".k_scale", ".v_scale"];
/// Endings of names that packed weights and what belongs to them have.
const PACKED: [&str; 6] = [".qweight", ".weight_packed", ".absmax", ".SCB", ".qzeros", ".g_idx"];

/// Why a stored tensor is no tensor of the model; `None` for one that is.
pub(crate) fn role(name: &str, checkpoint: &Checkpoint) -> Option<&'static str> {
    if !has_fp8(checkpoint) {
        return None;
    }
    if OF_ACTIVATIONS.iter().any(|ending| name.ends_with(ending)) {
        return Some("scales activations of the quantised model");
    }
    let of = |ending: &str| {
        name.strip_suffix(ending).is_some_and(|of| is_fp8(checkpoint.tensors().get(of)))
    };
    SCALES.into_iter().any(of).then_some("scales an fp8 tensor, which is read with it")
}

/// The tensors of the model.
pub(crate) fn sources(checkpoint: &Checkpoint) -> Result<BTreeMap<String, Source>, Error> {
    check_method(checkpoint)?;
    let mut sources = BTreeMap::new();
    for (name, tensor) in checkpoint.tensors() {
        if role(name, checkpoint).is_some() {
            continue;
        }
        let scale = SCALES
            .iter()
            .filter(|_| is_fp8(Some(tensor)))
            .find_map(|ending| checkpoint.tensors().get(&format!("{name}{ending}")));
        let source = match scale {
            Some(scale) => scaled(name, tensor, scale, checkpoint)?,
            None => Source::Stored(tensor.clone()),
        };
        sources.insert(name.clone(), source);
    }
    Ok(sources)
}

fn is_fp8(tensor: Option<&Tensor>) -> bool {
    tensor.is_some_and(|tensor| matches!(tensor.dtype(), Dtype::F8_E4M3 | Dtype::F8_E5M2))
}

fn has_fp8(checkpoint: &Checkpoint) -> bool {
    checkpoint.tensors().values().any(|tensor| is_fp8(Some(tensor)))
}

/// Where `config.json` speaks of the quantisation.
const KEYS: [&str; 2] = ["quantization_config", "compression_config"];

/// What `config.json` says of the quantisation, at the top or of a part of the model.
fn settings(config: &Map<String, Value>) -> Option<&Value> {
    let own = |map| KEYS.iter().find_map(|key| Map::get(map, *key)).filter(|own| !own.is_null());
    own(config).or_else(|| config.values().filter_map(Value::as_object).find_map(own))
}

/// Removes it: what is merged is quantised no more.
pub(super) fn forget(config: &mut Map<String, Value>) {
    config.retain(|key, _| !KEYS.contains(&key.as_str()));
    for part in config.values_mut().filter_map(Value::as_object_mut) {
        part.retain(|key, _| !KEYS.contains(&key.as_str()));
    }
}

/// Refuses what is quantised in any other way.
fn check_method(checkpoint: &Checkpoint) -> Result<(), Error> {
    let settings = settings(checkpoint.config());
    let packed = checkpoint.tensors().iter().find(|(name, tensor)| {
        let integers = matches!(tensor.dtype(), Dtype::I8 | Dtype::U8) && name.ends_with(".weight");
        // Without settings only what can be nothing else.
        let blocks = settings.is_some() && name.ends_with("_blocks");
        blocks || integers || PACKED.iter().any(|ending| name.ends_with(ending))
    });
    if settings.is_none() && packed.is_none() {
        return Ok(());
    }
    let method = settings.and_then(|settings| settings.get("quant_method"));
    let method = method.and_then(Value::as_str).unwrap_or("an unknown method");
    let known = matches!(method, "fp8" | "fbgemm_fp8" | "compressed-tensors");
    if known && packed.is_none() {
        return Ok(());
    }
    let example = packed.map_or(String::new(), |(name, _)| format!(" (tensor `{name}`)"));
    let reason = format!(
        "quantised with {method}{example}, expected f32, f16, bf16 or fp8 weights; merge the model it was made from"
    );
    Err(Error::checkpoint(checkpoint.path(), reason))
}

/// An fp8 tensor with its scales.
fn scaled(
    name: &str,
    tensor: &Tensor,
    scale: &Tensor,
    checkpoint: &Checkpoint,
) -> Result<Source, Error> {
    let fail =
        |reason: String| Error::checkpoint(tensor.file(), format!("tensor `{name}`: {reason}"));
    let &[rows, columns] = tensor.shape() else {
        return Err(fail(format!(
            "fp8 with scales of shape {:?}, expected a matrix",
            tensor.shape()
        )));
    };
    if !crate::dtype::is_float(scale.dtype()) {
        return Err(fail(format!("its scales are {:?}, expected floating-point", scale.dtype())));
    }
    let mut scales = vec![0.0; scale.numel()];
    crate::dtype::decode(scale.dtype(), scale.bytes(), &mut scales);
    let config = settings(checkpoint.config());
    let block = config.and_then(|config| config.get("weight_block_size")).and_then(Value::as_array);
    let size = |at: usize| {
        block.and_then(|block| block.get(at)?.as_u64()).map_or(128, |size| size.max(1) as usize)
    };
    let block = match *scale.shape() {
        _ if scale.numel() == 1 => [rows.max(1), columns.max(1)],
        [n] | [n, 1] if n == rows => [1, columns.max(1)],
        [r, c] if r == rows.div_ceil(size(0)) && c == columns.div_ceil(size(1)) => {
            [size(0), size(1)]
        }
        ref other => {
            let reason = format!(
                "{rows} x {columns} with scales of shape {other:?}, expected one, one for each row, or one for each block of {} x {}",
                size(0),
                size(1)
            );
            return Err(fail(reason));
        }
    };
    Ok(Source::Scaled(Arc::new(Scaled {
        values: tensor.clone(),
        scale: scale.clone(),
        scales,
        block,
    })))
}
