//! Bytes of the weights, frozen and trained.

use burn::tensor::DType;
use posttrain_model::Parameter;
use posttrain_model::checkpoint::Dtype;
use posttrain_model::config::Config;

use super::{MemorySettings, Quantized};

/// Numbers that share a scale in 4 bits, and scales that share one of theirs.
const BLOCK: u64 = 64;
const NESTED: u64 = 256;

impl Quantized {
    /// Bytes of a matrix `[out, in]`: codes and scales, each list filled up to whole words of 32 bits.
    pub(super) fn bytes(self, shape: &[usize]) -> u64 {
        let count: u64 = shape.iter().map(|&size| size as u64).product();
        let words = |bytes: u64| 4 * bytes.div_ceil(4);
        let blocks = count.div_ceil(BLOCK);
        match self {
            Self::FourBit { double: false } => words(count.div_ceil(2)) + 4 * blocks,
            Self::FourBit { double: true } => {
                words(count.div_ceil(2)) + words(blocks) + 4 * blocks.div_ceil(NESTED)
            }
            Self::Int8 => words(count) + 4 * shape[0] as u64,
        }
    }
}

/// The trained tensors of a LoRA adapter: A `[r, in]` and B `[out, r]` of each linear layer whose
/// path ends with one of `targets`; of all but the head when there are none. With `dora` a
/// magnitude `[out]` as well.
pub fn lora_parameters(config: &Config, r: usize, targets: &[&str], dora: bool) -> Vec<Parameter> {
    let mut found = Vec::new();
    for tensor in config.tensors() {
        let Some(path) = linear(&tensor.name) else { continue };
        let wanted = targets.is_empty() || targets.iter().any(|target| ends_with(path, target));
        if !wanted {
            continue;
        }
        let mut add = |name: String, shape: Vec<usize>| {
            found.push(Parameter { name, shape, trainable: true });
        };
        let [out, inner] = [tensor.shape[0], tensor.shape[1]];
        add(format!("{path}.lora_A.weight"), vec![r, inner]);
        add(format!("{path}.lora_B.weight"), vec![out, r]);
        if dora {
            add(format!("{path}.lora_magnitude_vector"), vec![out]);
        }
    }
    found
}

/// Every tensor of the model itself, trained.
pub fn all_parameters(config: &Config) -> Vec<Parameter> {
    let tensors = config.tensors().into_iter();
    tensors.map(|t| Parameter { name: t.name, shape: t.shape, trainable: true }).collect()
}

/// Whole parts of a path.
fn ends_with(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The path of a linear layer but the head, from the name of its matrix.
fn linear(name: &str) -> Option<&str> {
    name.strip_suffix(".weight").filter(|path| path.ends_with("_proj"))
}

/// Bytes of the weights on the device: the model's and those of an adapter.
pub(super) fn bytes(config: &Config, settings: &MemorySettings) -> u64 {
    let base: u64 = config
        .tensors()
        .iter()
        .map(|tensor| match settings.quantization {
            Some(kind) if linear(&tensor.name).is_some() => kind.bytes(&tensor.shape),
            _ => dense(settings, &tensor.name, &tensor.shape),
        })
        .sum();
    base + adapter(settings).map(|p| dense(settings, &p.name, &p.shape)).sum::<u64>()
}

/// Trained tensors that the model itself does not have.
fn adapter(settings: &MemorySettings) -> impl Iterator<Item = &Parameter> {
    settings.trained.iter().filter(|parameter| is_adapter(&parameter.name))
}

fn is_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

fn dense(settings: &MemorySettings, name: &str, shape: &[usize]) -> u64 {
    let count: u64 = shape.iter().map(|&size| size as u64).product();
    count * size_of(type_of(settings, name, shape)) as u64
}

/// The type of a tensor: adapters are in f32 as with PEFT, vectors in the type of hidden states.
pub(super) fn type_of(settings: &MemorySettings, name: &str, shape: &[usize]) -> Dtype {
    match shape.len() {
        _ if is_adapter(name) => Dtype::F32,
        1 => settings.compute,
        _ => settings.dtype,
    }
}

/// Bytes of a number of the types that weights have.
pub(super) const fn size_of(dtype: Dtype) -> usize {
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
