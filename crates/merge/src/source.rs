//! What a method reads: one tensor of one input, in f32, wherever it comes from.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use safetensors::Dtype;

use crate::adapter::Folded;
use crate::checkpoint::Tensor;
use crate::{dtype, ops};

/// One tensor of one input.
#[derive(Clone, Debug)]
pub enum Source {
    /// As a file has it.
    Stored(Tensor),
    /// Numbers in memory, with their dimensions.
    Memory(Arc<[f32]>, Vec<usize>),
    /// Numbers that were computed of stored tensors.
    Made {
        /// Them.
        values: Arc<[f32]>,
        /// Their dimensions.
        shape: Vec<usize>,
        /// What they were computed of.
        from: Vec<Tensor>,
    },
    /// fp8 with scales.
    Scaled(Arc<Scaled>),
    /// Rows of several sources in another order: a merged vocabulary.
    Rows(Arc<Rows>),
    /// Another source, as if its values had been stored in this type first (mergekit's `dtype`).
    Cast(Box<Source>, Dtype),
    /// A weight with an adapter folded in.
    Folded(Arc<Folded>),
    /// Nothing but zeros, in f32.
    Zeros(Vec<usize>),
}

/// An fp8 matrix whose blocks have a factor each.
#[derive(Debug)]
pub struct Scaled {
    pub(crate) values: Tensor,
    pub(crate) scale: Tensor,
    /// Row by row of blocks.
    pub(crate) scales: Vec<f32>,
    /// Rows and columns of a block.
    pub(crate) block: [usize; 2],
}

impl Scaled {
    fn read(&self, start: usize, out: &mut [f32]) {
        Source::Stored(self.values.clone()).read(start, out);
        let columns = self.values.shape()[1];
        let blocks_of_row = columns.div_ceil(self.block[1]);
        let mut at = 0;
        while at < out.len() {
            // The stretch that lies in one row of one block.
            let (row, column) = ((start + at) / columns, (start + at) % columns);
            let length =
                (self.block[1] - column % self.block[1]).min(columns - column).min(out.len() - at);
            let factor = row / self.block[0] * blocks_of_row + column / self.block[1];
            ops::scale(&mut out[at..at + length], self.scales[factor]);
            at += length;
        }
    }
}

/// A matrix (or vector) whose rows come from several sources.
#[derive(Debug)]
pub struct Rows {
    pub(crate) sources: Vec<Source>,
    pub(crate) order: Vec<Row>,
    /// `order.len()` and the dimensions of a row.
    pub(crate) shape: Vec<usize>,
    /// What [`Row::Average`] is, once it has been asked for.
    pub(crate) average: OnceLock<Vec<f32>>,
}

/// Where a row comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// A row of a source.
    Of {
        /// The source, by its place.
        source: u32,
        /// The row.
        row: u32,
    },
    /// The mean of several rows: sources and rows.
    Mean(Vec<(u32, u32)>),
    /// Zeros.
    Zero,
    /// The mean of all rows that are not this themselves: padding of a vocabulary.
    Average,
}

impl Rows {
    /// # Panics
    /// When a row is in none of the sources.
    fn read(&self, start: usize, out: &mut [f32]) {
        let length = self.row_len();
        let mut at = 0;
        while at < out.len() {
            let (row, column) = ((start + at) / length, (start + at) % length);
            let count = (length - column).min(out.len() - at);
            self.read_row(&self.order[row], column, &mut out[at..at + count]);
            at += count;
        }
    }

    fn row_len(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// The elements of a row from `column` on.
    fn read_row(&self, row: &Row, column: usize, out: &mut [f32]) {
        let read = |source: u32, row: u32, out: &mut [f32]| {
            self.sources[source as usize].read(row as usize * self.row_len() + column, out);
        };
        match row {
            Row::Of { source, row } => read(*source, *row, out),
            Row::Zero => out.fill(0.0),
            Row::Average => out.copy_from_slice(&self.average()[column..column + out.len()]),
            Row::Mean(rows) => {
                out.fill(0.0);
                let mut one = vec![0.0; out.len()];
                for (source, row) in rows {
                    read(*source, *row, &mut one);
                    ops::add_to(out, &one);
                }
                ops::divide(out, rows.len() as f32);
            }
        }
    }

    fn average(&self) -> &[f32] {
        self.average.get_or_init(|| {
            let mut sum = vec![0.0f64; self.row_len()];
            let mut one = vec![0.0f32; self.row_len()];
            let rows = self.order.iter().filter(|row| **row != Row::Average);
            let mut count = 0.0;
            for row in rows {
                self.read_row(row, 0, &mut one);
                sum.iter_mut().zip(&one).for_each(|(sum, one)| *sum += f64::from(*one));
                count += 1.0;
            }
            sum.iter().map(|sum| (sum / f64::max(count, 1.0)) as f32).collect()
        })
    }
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

    /// The stored tensors that it is read from.
    pub fn stored(&self) -> Vec<&Tensor> {
        match self {
            Self::Stored(tensor) => vec![tensor],
            Self::Memory(..) | Self::Zeros(_) => Vec::new(),
            Self::Made { from, .. } => from.iter().collect(),
            Self::Folded(folded) => folded.stored(),
            Self::Scaled(scaled) => vec![&scaled.values, &scaled.scale],
            Self::Rows(rows) => rows.sources.iter().flat_map(Self::stored).collect(),
            Self::Cast(source, _) => source.stored(),
        }
    }

    /// Its dimensions.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Stored(tensor) => tensor.shape(),
            Self::Memory(_, shape) | Self::Made { shape, .. } | Self::Zeros(shape) => shape,
            Self::Scaled(scaled) => scaled.values.shape(),
            Self::Rows(rows) => &rows.shape,
            Self::Cast(source, _) => source.shape(),
            Self::Folded(folded) => folded.shape(),
        }
    }

    /// The type that its values have.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::Stored(tensor) => tensor.dtype(),
            Self::Memory(..) | Self::Made { .. } | Self::Zeros(_) => Dtype::F32,
            Self::Scaled(_) => Dtype::BF16,
            // Each row has the type of its source; the first is the model's own.
            Self::Rows(rows) => rows.sources.first().map_or(Dtype::F32, Self::dtype),
            Self::Cast(_, dtype) => *dtype,
            Self::Folded(folded) => folded.dtype(),
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
            Self::Scaled(scaled) => scaled.read(start, out),
            Self::Rows(rows) => rows.read(start, out),
            Self::Memory(values, _) | Self::Made { values, .. } => {
                out.copy_from_slice(&values[start..start + out.len()]);
            }
            Self::Cast(source, dtype) => {
                source.read(start, out);
                dtype::round(*dtype, out);
            }
            Self::Folded(folded) => folded.read(start, out),
            Self::Zeros(_) => out.fill(0.0),
        }
    }
}
