#![doc = include_str!("../README.md")]

#[cfg(feature = "chat")]
pub use posttrain_chat as chat;
#[cfg(feature = "core")]
pub use posttrain_core as core;

// The example of the repository's README compiles and holds.
#[cfg(all(doctest, feature = "chat"))]
#[doc = include_str!("../../../README.md")]
struct RepositoryReadme;
