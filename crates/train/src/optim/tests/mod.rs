//! Tests of the optimizers: one table of laws for all, numbers by hand, numbers of the references.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod by_hand;
mod laws;
mod parity;
mod store;
mod whole;

use burn::tensor::{DType, Device, Tensor, TensorData};
use posttrain_model::Parameter;

use super::slices::test::TENSORS;
use super::{Optimizer, OptimizerConfig};

/// A parameter with its weight.
fn weight(name: &str, shape: &[usize], numbers: Vec<f32>) -> (Parameter, Tensor<2>) {
    let parameter = Parameter { name: name.into(), shape: shape.to_vec(), trainable: true };
    (parameter, tensor(super::rule::matrix(shape), numbers))
}

fn tensor(shape: [usize; 2], numbers: Vec<f32>) -> Tensor<2> {
    Tensor::from_data(TensorData::new(numbers, shape), (&Device::flex(), DType::F32))
}

fn numbers(tensor: &Tensor<2>) -> Vec<f32> {
    tensor.clone().cast(DType::F32).into_data().try_into_vec().unwrap()
}

fn optimizer(config: &OptimizerConfig, weights: &[(Parameter, Tensor<2>)]) -> Optimizer {
    Optimizer::of(config, 1e-3, weights.to_vec(), &Device::flex()).unwrap()
}

/// A configuration in YAML, as users write it.
fn config(yaml: &str) -> OptimizerConfig {
    serde_saphyr::from_str(yaml).unwrap()
}

/// Runs `work` on tensor operations where there are loops for the CPU.
fn on_tensors<R>(work: impl FnOnce() -> R) -> R {
    TENSORS.set(true);
    let result = work();
    TENSORS.set(false);
    result
}

/// Numbers between −1 and 1 that look random; the same for the same seed.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
