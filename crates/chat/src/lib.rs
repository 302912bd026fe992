//! Conversations to text to tokens, and back.
mod jinja;
