//! From rows to the batches of a training run.
//!
//! ```text
//! rows -> encode -> Samples (ids, masks) -> split -> Batches: order, packing -> Window -> MicroBatch
//!               \-> DataReport
//! ```
//!
//! Nothing here knows tensors, and nothing reads files: rows come from an iterator.

mod answers;
mod answers_report;
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
mod source;
mod split;
mod tokenize;

pub use answers::{Answers, RowKind};
pub use answers_report::AnswersReport;
pub use batches::{BatchOptions, Batches, MicroBatch, Window};
pub use counts::{Counted, Example, Reason, RowCounts, Truncated};
pub(crate) use encode::{each_row, nothing_left};
pub use encode::{encode, encode_answers};

pub(crate) use hash::fold;
pub use lengths::{Bar, Lengths};
pub use marked::{MarkedPiece, MarkedSample, Marks};
pub use order::SamplingStrategy;
pub use pack::Packing;
pub use position::Position;
pub use report::{DataReport, PackingReport, SetSize};
pub use row::{AnswerRow, BadRows, Row, RowOptions};
pub use sample::{RowId, Sample, Samples};
pub use split::{Split, answers_without_validation, split, split_answers, without_validation};
pub(crate) use tokenize::Refused;
