//! The laws of reward models: what a resumed run is, whose head is trained and kept, that what is trained is
//! what is scored.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod conventions;
mod evaluation;
mod heads;
mod kit;
mod outcome;
mod resume;
