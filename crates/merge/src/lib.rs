#![doc = include_str!("../README.md")]

pub mod dtype;
mod error;

pub use error::Error;
