//! The example programs, run as a user runs them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod chat;
mod init_model;
mod render_template;
mod score;
mod sft;
mod support;
