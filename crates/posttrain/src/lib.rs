#![doc = include_str!("../README.md")]

#[cfg(feature = "chat")]
pub use posttrain_chat as chat;
#[cfg(feature = "core")]
pub use posttrain_core as core;
#[cfg(feature = "data")]
pub use posttrain_data as data;
#[cfg(feature = "merge")]
pub use posttrain_merge as merge;
#[cfg(feature = "model")]
pub use posttrain_model as model;
#[cfg(feature = "train")]
pub use posttrain_train as train;

// The examples of the repository's README compile and hold.
#[cfg(all(doctest, feature = "chat", feature = "model"))]
#[doc = include_str!("../../../README.md")]
struct RepositoryReadme;
