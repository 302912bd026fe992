//! From rows to the batches of a training run.
//!
//! ```text
//! rows -> encode -> Samples (ids, masks) -> split -> Batches: order, packing -> Window -> MicroBatch
//!               \-> DataReport
//! ```
//!
//! Nothing here knows tensors, and nothing reads files: rows come from an iterator.

mod batches;
mod bits;
mod counts;
mod encode;
mod hash;
mod lengths;
mod marked;
mod order;
mod pack;
mod position;
mod report;
mod row;
mod sample;
mod split;
mod tokenize;

pub use batches::{BatchOptions, Batches, MicroBatch, Window};
pub use counts::{Counted, Example, Reason, RowCounts, Truncated};
pub use encode::encode;
pub(crate) use hash::fold;
pub use lengths::{Bar, Lengths};
pub use marked::{MarkedPiece, MarkedSample, Marks};
pub use order::SamplingStrategy;
pub use pack::Packing;
pub use position::Position;
pub use report::{DataReport, PackingReport, SetSize};
pub use row::{BadRows, Row, RowOptions};
pub use sample::{RowId, Sample, Samples};
pub use split::{Split, split, without_validation};
