//! What a method reads: one tensor of one input, in f32, wherever it comes from.

use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype;

use crate::checkpoint::Tensor;
use crate::dtype;

/// One tensor of one input.
#[derive(Clone, Debug)]
pub enum Source {
    /// As a file has it.
    Stored(Tensor),
    /// Numbers in memory, with their dimensions.
    Memory(Arc<[f32]>, Vec<usize>),
    /// Another source, as if its values had been stored in this type first (mergekit's `dtype`).
    Cast(Box<Source>, Dtype),
}

impl Source {
    /// Numbers in memory.
    ///
    /// # Panics
    /// When there are not as many as the dimensions say.
    pub fn memory(values: impl Into<Arc<[f32]>>, shape: &[usize]) -> Self {
        let values = values.into();
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values for {shape:?}");
        Self::Memory(values, shape.to_vec())
    }

    /// The same values rounded to `dtype`; itself where that changes nothing.
    #[must_use]
    pub fn cast(self, dtype: Dtype) -> Self {
        if self.dtype() == dtype { self } else { Self::Cast(Box::new(self), dtype) }
    }

    /// Its dimensions.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Stored(tensor) => tensor.shape(),
            Self::Memory(_, shape) => shape,
            Self::Cast(source, _) => source.shape(),
        }
    }

    /// The type that its values have.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::Stored(tensor) => tensor.dtype(),
            Self::Memory(..) => Dtype::F32,
            Self::Cast(_, dtype) => *dtype,
        }
    }

    /// Its number of elements.
    pub fn numel(&self) -> usize {
        self.shape().iter().product()
    }

    /// The elements `start..start + out.len()`, row-major.
    ///
    /// # Panics
    /// When the range lies outside, or the type is no floating-point type.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        match self {
            Self::Stored(tensor) => {
                let size = dtype::size_of(tensor.dtype());
                let Range { start, end } = start * size..(start + out.len()) * size;
                dtype::decode(tensor.dtype(), &tensor.bytes()[start..end], out);
            }
            Self::Memory(values, _) => out.copy_from_slice(&values[start..start + out.len()]),
            Self::Cast(source, dtype) => {
                source.read(start, out);
                dtype::round(*dtype, out);
            }
        }
    }
}
