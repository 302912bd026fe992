//! The example programs, run as a user runs them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod chat;
mod init_model;
mod merge;
mod preference;
mod render_template;
mod reward;
mod runs;
mod score;
mod score_reward;
mod sft;
mod support;
