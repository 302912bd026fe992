#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod error;
mod fault;
mod format;
mod json;
mod read;
mod row;
mod write;

pub use error::Error;
pub use fault::Fault;
pub use format::Format;
pub use read::{FileReport, ReadOptions, ReadReport, Rows};
pub use row::{Body, Context, Example, Place, RawMessage, Row, Sequence};
pub use write::RowWriter;
