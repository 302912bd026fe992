//! The example programs, run as a user runs them.

mod render_template;
