//! What a merge writes, tensor by tensor.

use safetensors::Dtype;

use crate::checkpoint::Tensor;
use crate::dtype;
use crate::methods::{Merge, Resolved};
use crate::source::Source;

/// A tensor of the merged checkpoint.
#[derive(Debug)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The type it is stored in.
    pub dtype: Dtype,
    /// Where its values come from.
    pub origin: Origin,
}

/// Where the values of a tensor come from.
#[derive(Debug)]
pub enum Origin {
    /// The bytes of a tensor of one input, unchanged.
    Copy {
        /// The input, by its place in the plan.
        input: usize,
        /// The tensor.
        tensor: Tensor,
    },
    /// Computed.
    Merge {
        /// The method with its parameters for this tensor.
        method: Box<dyn Merge>,
        /// Those parameters.
        parameters: Resolved,
        /// The base's tensor, where the method tells it apart.
        base: Option<(usize, Source)>,
        /// The inputs' tensors.
        inputs: Vec<(usize, Source)>,
        /// The type that intermediate results are rounded to; `F32` for none.
        arithmetic: Dtype,
    },
}

impl Output {
    /// Its number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        (self.numel() * dtype::size_of(self.dtype)) as u64
    }

    /// The inputs it comes from, by their places in the plan, each once.
    pub fn inputs(&self) -> Vec<usize> {
        let mut places = match &self.origin {
            Origin::Copy { input, .. } => vec![*input],
            Origin::Merge { base, inputs, .. } => {
                base.iter().chain(inputs).map(|(place, _)| *place).collect()
            }
        };
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The stored tensors it is read from.
    pub fn stored(&self) -> Vec<(usize, &Tensor)> {
        match &self.origin {
            Origin::Copy { input, tensor } => vec![(*input, tensor)],
            Origin::Merge { base, inputs, .. } => base
                .iter()
                .chain(inputs)
                .flat_map(|(place, source)| {
                    source.stored().into_iter().map(|tensor| (*place, tensor))
                })
                .collect(),
        }
    }
}
