#![doc = include_str!("../README.md")]

#[cfg(feature = "chat")]
pub use posttrain_chat as chat;
#[cfg(feature = "core")]
pub use posttrain_core as core;
#[cfg(feature = "model")]
pub use posttrain_model as model;

// The examples of the repository's README compile and hold.
#[cfg(all(doctest, feature = "chat", feature = "model"))]
#[doc = include_str!("../../../README.md")]
struct RepositoryReadme;
