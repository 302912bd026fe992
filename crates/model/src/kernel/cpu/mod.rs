//! The kernels on plain slices: no tensor library here.
//!
//! Every element of a result is computed in an order that depends on its own row alone: never on
//! how many rows stand in the batch, nor on the number of threads. A request's answer therefore
//! does not depend on its neighbours.
//!
//! This is the one module of the kernels with `unsafe`: SIMD intrinsics, and disjoint tiles of one
//! output that several threads write.
#![allow(
    unsafe_code,
    reason = "SIMD intrinsics and disjoint writes; each block says why it is sound"
)]
#![allow(
    clippy::inline_always,
    reason = "bodies must be inlined into the functions that are compiled for the machine's vectors"
)]

pub(crate) mod attention;
pub(crate) mod attention_backward;
mod dots;
pub(crate) mod gated;
mod lanes;
pub(crate) mod linear;
pub(crate) mod logprobs;
pub(crate) mod lora;
mod matrix;
pub(crate) mod memory;
pub(crate) mod norm;
pub(crate) mod optimizer;
mod pack;
mod parallel;
mod product;
pub(crate) mod quantized;
pub(crate) mod rotary;
mod simd;
mod unpack;
mod weighted;

pub(crate) use attention::{Attention, attention};
pub(crate) use linear::{Weight, linear};
pub(crate) use memory::zeros;
use memory::{filled, written};

/// Rows per task: about four tasks for each thread.
fn grain(rows: usize) -> usize {
    rows.div_ceil(rayon::current_num_threads() * 4).max(1)
}

/// A pointer into an output of which several threads write disjoint parts.
#[derive(Clone, Copy)]
struct Output<T = f32>(*mut T);

// SAFETY: the pointer is only written by functions of this module, and each task is given a part of
// the output that no other task touches.
unsafe impl<T: Send> Send for Output<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Output<T> {}

impl<T> Output<T> {
    /// The pointer; a method, so that closures capture the whole struct.
    fn get(&self) -> *mut T {
        self.0
    }
}

#[cfg(test)]
mod tests {
    /// Numbers between -1 and 1 without a pattern.
    pub(super) fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
    }

    pub(super) fn naive(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }
}
