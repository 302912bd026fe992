//! From rows to the batches of a training run.
//!
//!     rows -> encode -> Samples (ids, masks) -> split -> Batches: order, packing -> Window -> MicroBatch
//!                   \-> DataReport
//!
//! Nothing here knows tensors, and nothing reads files: rows come from an iterator.

mod batches;
mod bits;
mod hash;
mod order;
mod pack;
mod position;
mod sample;

pub use batches::{BatchOptions, Batches, MicroBatch, Window};
pub use order::SamplingStrategy;
pub use pack::Packing;
pub use position::Position;
pub use sample::{RowId, Sample, Samples};
