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
pub(crate) mod elementwise;
mod lanes;
pub(crate) mod linear;
pub(crate) mod logprobs;
pub(crate) mod lora;
pub(crate) mod quantized;
mod simd;
mod tile;
mod unpack;

pub(crate) use attention::{Attention, attention};
pub(crate) use linear::{Weight, linear};

/// A vector of `n` numbers that the caller writes before it reads them.
pub(crate) fn buffer(n: usize) -> Vec<f32> {
    // A zeroed allocation of this size comes from fresh pages: nothing is written here.
    vec![0.0; n]
}

/// Rows per task: about four tasks for each thread.
fn grain(rows: usize) -> usize {
    rows.div_ceil(rayon::current_num_threads() * 4).max(1)
}

/// A pointer into an output of which several threads write disjoint parts.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: the pointer is only written through `tile` functions, and each task is given a part of
// the output that no other task touches.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// The pointer; a method, so that closures capture the whole struct.
    fn get(self) -> *mut f32 {
        self.0
    }
}
