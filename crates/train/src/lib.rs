#![doc = include_str!("../README.md")]

mod error;
pub mod watch;

pub use error::Error;
