//! The merge methods, one file each.
//!
//! A method first looks at a whole tensor, block by block ([`Merge::prepare`]: norms, angles, thresholds),
//! and is then a function from a block of the inputs to a block of the output. Neither half needs more
//! memory than a few blocks, whatever the size of the tensor.

mod arcee_fusion;
mod bracket;
mod breadcrumbs;
mod columns;
mod dare;
mod della;
mod election;
mod gram;
mod karcher;
mod karcher_rounded;
mod linear;
mod model_stock;
mod multislerp;
mod multislerp_rounded;
mod nearswap;
mod nuslerp;
mod parameter;
#[cfg(test)]
mod parity;
mod passthrough;
mod ram;
mod registry;
mod rescale;
mod sce;
mod select;
mod slerp;
mod task_arithmetic;
mod task_vectors;
mod ties;
mod whole;

use std::fmt::Debug;

pub use arcee_fusion::ArceeFusion;
pub use breadcrumbs::Breadcrumbs;
pub use dare::Dare;
pub use della::Della;
pub use election::Election;
pub use karcher::Karcher;
pub use linear::Linear;
pub use model_stock::ModelStock;
pub use multislerp::MultiSlerp;
pub use nearswap::NearSwap;
pub use nuslerp::NuSlerp;
pub use parameter::{FINITE, Kind, Parameter, Resolved, Scope, Value};
pub use passthrough::Passthrough;
pub use ram::{Ram, RamPlus};
pub use registry::{Base, Method, Registry};
pub use rescale::Rescale;
pub use sce::Sce;
pub use select::{Edge, First, edges};
pub use slerp::Slerp;
pub use task_arithmetic::TaskArithmetic;
pub use task_vectors::TaskVectors;
pub use ties::Ties;
pub use whole::{WholeTensor, WholeTensors};

use crate::Error;
use crate::group::{BLOCK, Block, Group};
use crate::source::Source;
use safetensors::Dtype;

/// A block of the output from a block of the inputs, whose buffers it may overwrite.
pub type Apply<'a> = Box<dyn Fn(&mut Block, &mut [f32]) + Send + Sync + 'a>;

/// A method with its parameters for one tensor.
pub trait Merge: Send + Sync + Debug {
    /// Whether blocks consist of whole rows (of the last dimension).
    fn by_rows(&self) -> bool {
        false
    }

    /// The input that the output equals bit by bit, whatever its values: its bytes can be copied.
    fn copies(&self) -> Option<usize> {
        None
    }

    /// The elements of what a block may not part: of a row, or one.
    fn unit(&self, shape: &[usize]) -> usize {
        if self.by_rows() { shape.last().copied().unwrap_or(1) } else { 1 }
    }

    /// Looks at the whole tensor and says how blocks are merged.
    ///
    /// # Errors
    /// [`Error::Tensor`] where the method is not defined for these values.
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error>;
}

/// The length of the blocks of a tensor under a method.
pub fn block_len(method: &dyn Merge, shape: &[usize]) -> usize {
    if shape.contains(&0) {
        // The other dimensions may be as large as they like.
        return BLOCK;
    }
    let unit = method.unit(shape).max(1);
    unit * (BLOCK / unit).max(1)
}

/// Merges tensors in memory, in f32.
///
/// ```
/// use posttrain_merge::methods::{Linear, merge};
///
/// let mean = Linear { weight: vec![1.0, 1.0], normalize: true };
/// let merged = merge(&mean, &[2], None, &[&[1.0, 2.0], &[3.0, 6.0]], 0)?;
/// assert_eq!(merged, [2.0, 4.0]);
/// # Ok::<(), posttrain_merge::Error>(())
/// ```
///
/// # Errors
/// What the method says.
///
/// # Panics
/// When a slice has not as many values as `shape`.
pub fn merge(
    method: &dyn Merge,
    shape: &[usize],
    base: Option<&[f32]>,
    inputs: &[&[f32]],
    seed: u64,
) -> Result<Vec<f32>, Error> {
    let base = base.map(|values| Source::memory(values, shape));
    let inputs: Vec<Source> = inputs.iter().map(|values| Source::memory(*values, shape)).collect();
    let group = Group {
        name: "",
        shape,
        base: base.as_ref(),
        inputs: &inputs,
        seed,
        arithmetic: Dtype::F32,
        block: block_len(method, shape),
    };
    let apply = method.prepare(&group)?;
    let mut out = vec![0.0; group.numel()];
    let mut block = group.buffers();
    for (index, out) in out.chunks_mut(group.block).enumerate() {
        group.read(index, &mut block);
        apply(&mut block, out);
    }
    drop(apply);
    Ok(out)
}
