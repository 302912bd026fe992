//! The laws of preference alignment: what a resumed run is, what prompts that are shared change, where the
//! reference stays, what evaluations say, and that every loss learns.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod evaluation;
mod kit;
mod losses;
mod own;
mod passes;
mod reference;
mod resume;
mod rows;
mod shared;
mod stored;
