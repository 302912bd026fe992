//! The example programs, run as a user runs them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod render_template;
