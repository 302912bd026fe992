#![doc = include_str!("../README.md")]

mod bad_batch;
pub mod checkpoint;
pub mod config;
pub mod data;
mod error;
mod found;
pub mod memory;
pub mod optim;
pub mod preference;
mod recipe;
mod resume;
pub mod reward;
mod run;
pub mod schedule;
mod sft;
pub mod watch;
mod weights;

pub use error::Error;
pub use found::Found;
pub use preference::preference;
pub use recipe::{Recipe, train};
pub use run::{Go, Learner, Run};
pub use sft::{evaluate, sft};
pub use weights::Weights;
