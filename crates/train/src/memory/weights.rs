//! Bytes of the weights, frozen and trained.

use burn::tensor::DType;
use posttrain_model::Parameter;
use posttrain_model::checkpoint::Dtype;
use posttrain_model::config::Config;

use super::MemorySettings;
use crate::error::Error;

/// Every tensor of the model itself, trained.
pub fn all_parameters(config: &Config) -> Vec<Parameter> {
    let tensors = config.tensors().into_iter();
    tensors.map(|t| Parameter { name: t.name, shape: t.shape, trainable: true }).collect()
}

/// Whether a tensor is an update of an adapter.
pub(super) fn is_update(name: &str) -> bool {
    name.contains(".lora_")
}

/// Bytes of the weights on the device: the model's and those of an adapter.
pub(super) fn bytes(config: &Config, settings: &MemorySettings) -> Result<u64, Error> {
    let tensors = config.tensors();
    let quantized = settings.quantization.as_ref();
    let quantized =
        quantized.map(|q| Ok::<_, Error>((q.kind, q.matrices(&tensors)?))).transpose()?;
    let base: u64 = tensors
        .iter()
        .map(|tensor| match (&quantized, &tensor.shape[..]) {
            (Some((kind, names)), &[out, inner]) if names.contains(tensor.name.as_str()) => {
                kind.bytes([out, inner]) as u64
            }
            (_, shape) => {
                let count: u64 = shape.iter().map(|&size| size as u64).product();
                let dtype = if shape.len() == 1 { settings.compute } else { settings.dtype };
                count * size_of(dtype)
            }
        })
        .sum();
    let adapter = settings.parameters.iter().filter(|_| settings.is_adapter());
    Ok(base + adapter.map(|p| 4 * p.count() as u64).sum::<u64>())
}

/// The type of a trained tensor: adapters are in f32 as with PEFT, vectors in the type of hidden
/// states.
pub(super) fn type_of(settings: &MemorySettings, parameter: &Parameter) -> Dtype {
    match parameter.shape.len() {
        _ if settings.is_adapter() => Dtype::F32,
        1 => settings.compute,
        _ => settings.dtype,
    }
}

/// Bytes of a number of the types that weights have.
pub(super) const fn size_of(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::BF16 | Dtype::F16 => 2,
        _ => 4,
    }
}

/// The same type, as tensors name it.
pub(super) const fn on_device(dtype: Dtype) -> DType {
    match dtype {
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        _ => DType::F32,
    }
}
