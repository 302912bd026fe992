#![doc = include_str!("../README.md")]

mod checkpoint;
pub mod dtype;
mod error;
pub mod group;
pub mod methods;
pub mod ops;
pub mod philox;
mod source;

pub use checkpoint::{Checkpoint, Tensor};
pub use error::Error;
pub use source::Source;
