#![doc = include_str!("../README.md")]

pub mod data;
mod error;
pub mod optim;
pub mod schedule;
pub mod watch;

pub use error::Error;
