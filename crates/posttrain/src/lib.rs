#![doc = include_str!("../../../README.md")]

#[cfg(feature = "chat")]
pub use posttrain_chat as chat;
#[cfg(feature = "core")]
pub use posttrain_core as core;
