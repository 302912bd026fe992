//! One tensor of all inputs, read block by block.
//!
//! The blocks of a tensor depend on nothing but its shape and the method, and what is summed over them
//! is summed in their order: a merge has the same bits for any number of threads.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use safetensors::Dtype;

use crate::dtype;
use crate::philox::Stream;
use crate::source::Source;

/// Elements of a block: small enough that a few of them stay in the second cache.
pub const BLOCK: usize = 16_384;

/// One tensor of all inputs.
#[derive(Debug)]
pub struct Group<'a> {
    /// The tensor's name in the output.
    pub name: &'a str,
    /// Its dimensions; those of every source.
    pub shape: &'a [usize],
    /// The base model's tensor, for methods that tell it from the inputs.
    pub base: Option<&'a Source>,
    /// The inputs' tensors, in the order of the configuration.
    pub inputs: &'a [Source],
    /// What random numbers depend on, with the tensor's name, the input and the place.
    pub seed: u64,
    /// `F32`, or the type that every intermediate result is rounded to, as torch does when it computes
    /// in the type of the inputs.
    pub arithmetic: Dtype,
    /// Elements of a block.
    pub block: usize,
}

/// A stretch of a tensor: all inputs in f32, to be used and overwritten at will.
#[derive(Debug)]
pub struct Block {
    /// The place of the first element.
    pub start: usize,
    /// The base's values; empty without a base.
    pub base: Vec<f32>,
    /// Each input's values.
    pub inputs: Vec<Vec<f32>>,
}

impl Group<'_> {
    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements of the last dimension; all of a vector, and one of a scalar.
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of blocks.
    pub fn blocks(&self) -> usize {
        self.numel().div_ceil(self.block)
    }

    /// Random numbers in `[0, 1)` for the `input`-th input.
    pub fn random(&self, input: usize) -> Stream {
        Stream::new(self.seed, self.name, input)
    }

    /// Rounds to the type of the arithmetic; nothing in f32.
    pub fn round(&self, values: &mut [f32]) {
        dtype::round(self.arithmetic, values);
    }

    /// A number rounded to the type of the arithmetic.
    pub fn rounded(&self, value: f32) -> f32 {
        let mut one = [value];
        self.round(&mut one);
        one[0]
    }

    /// Buffers for blocks.
    pub fn buffers(&self) -> Block {
        Block {
            start: 0,
            base: Vec::with_capacity(if self.base.is_some() { self.block } else { 0 }),
            inputs: self.inputs.iter().map(|_| Vec::with_capacity(self.block)).collect(),
        }
    }

    /// Reads the block `index` into the buffers.
    pub fn read(&self, index: usize, block: &mut Block) {
        let start = index * self.block;
        self.read_at(start, self.block.min(self.numel() - start), block);
    }

    /// Reads `length` elements from `start` on into the buffers.
    pub fn read_at(&self, start: usize, length: usize, block: &mut Block) {
        block.start = start;
        if let Some(base) = self.base {
            block.base.resize(length, 0.0);
            base.read(start, &mut block.base);
        }
        for (source, values) in self.inputs.iter().zip(&mut block.inputs) {
            values.resize(length, 0.0);
            source.read(start, values);
        }
    }

    /// What `of` makes of each block, in the order of the blocks.
    pub fn map<T: Send>(&self, of: impl Fn(&mut Block) -> T + Sync) -> Vec<T> {
        (0..self.blocks())
            .into_par_iter()
            .map_init(
                || self.buffers(),
                |block, index| {
                    self.read(index, block);
                    of(block)
                },
            )
            .collect()
    }

    /// The sums over all blocks of the numbers that `of` makes of each.
    pub fn sum<const N: usize>(&self, of: impl Fn(&mut Block) -> [f64; N] + Sync) -> [f64; N] {
        let mut sums = [0.0; N];
        for part in self.map(of) {
            for (sum, part) in sums.iter_mut().zip(part) {
                *sum += part;
            }
        }
        sums
    }

    /// As [`sum`](Self::sum), for a number of sums that is known at run time only.
    pub fn sums(&self, n: usize, of: impl Fn(&mut Block) -> Vec<f64> + Sync) -> Vec<f64> {
        let mut sums = vec![0.0; n];
        for part in self.map(of) {
            for (sum, part) in sums.iter_mut().zip(part) {
                *sum += part;
            }
        }
        sums
    }

    /// Counts over all blocks: `add` adds a block to a table of `n` counts. Each thread has a table, and tables are
    /// added, which has no order to depend on.
    pub fn count(&self, n: usize, add: impl Fn(&mut Block, &mut [u64]) + Sync) -> Vec<u64> {
        let tables: Mutex<Vec<(Block, Vec<u64>)>> = Mutex::default();
        let tables = || tables.lock().unwrap_or_else(PoisonError::into_inner);
        // A new table costs as much as counting so many elements.
        let worth = n.div_ceil(self.block);
        let pieces = self.blocks().div_ceil(4 * rayon::current_num_threads()).max(worth).max(1);
        (0..self.blocks())
            .into_par_iter()
            .with_min_len(pieces)
            .fold(
                || {
                    let spare = tables().pop();
                    spare.unwrap_or_else(|| (self.buffers(), vec![0; n]))
                },
                |(mut block, mut counts), index| {
                    self.read(index, &mut block);
                    add(&mut block, &mut counts);
                    (block, counts)
                },
            )
            .for_each(|table| tables().push(table));
        let mut sums = vec![0; n];
        for (_, counts) in tables().drain(..) {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }
}
