#![doc = include_str!("../README.md")]

pub mod adapter;
pub mod card;
mod checkpoint;
pub mod config;
pub mod dtype;
mod error;
pub mod execute;
pub mod family;
pub mod group;
pub mod manifest;
mod markup;
pub mod methods;
pub mod ops;
pub mod philox;
pub mod plan;
pub mod search;
pub mod sensitivity;
mod source;
pub mod tokenizer;

pub use checkpoint::{Checkpoint, Tensor};
pub use error::Error;
pub use execute::{Execution, Progress, Report, execute, execute_in_memory, replay, verify};
pub use plan::{Arithmetic, Missing, Plan, PlanOptions, Problem, ProblemKind};
pub use source::Source;
