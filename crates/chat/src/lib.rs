//! Conversations to text to tokens, and back.
//!
//! - [`ChatTemplate`] renders a conversation exactly as transformers 5.23 does, from a checkpoint
//!   folder, a Jinja source or one of the [`Builtin`] templates, and tells which of the text is
//!   trained.
//! - [`ChatTokenizer`] encodes conversations: ids, mask and warnings, never a second BOS, and control
//!   tokens of untrusted text as plain text.
//! - [`ChatTemplate::diagnose`] and [`ChatTokenizer::diagnose`] say what is wrong before a training
//!   run shows it.
//! - [`response`] reads what a model answers: reasoning, tool calls, content.
//!
//! ```
//! use posttrain_chat::{Builtin, ChatTemplate, RenderOptions, TrainedTurns};
//! use posttrain_core::{Conversation, Message};
//!
//! let template = ChatTemplate::builtin(Builtin::Llama3);
//! let chat = Conversation::new([Message::user("2+2?"), Message::assistant("4")]);
//! let (text, trained) =
//!     template.trained_spans(&chat, &RenderOptions::default(), TrainedTurns::All)?;
//! assert_eq!(&text[trained[0].clone()], "4<|eot_id|>");
//! # Ok::<(), posttrain_chat::Error>(())
//! ```
//!
//! What differs from Jinja2 and transformers, and why:
#![doc = include_str!("../COMPATIBILITY.md")]

mod arena;
mod builtin;
mod chat;
mod continue_final;
mod doctor;
mod error;
mod jinja;
mod mask;
mod probe;
pub mod response;
mod sanitize;
mod source;
mod template;
mod tokenize;

pub use builtin::Builtin;
pub use chat::{Chat, JsonChat};
pub use doctor::{Diagnosis, Finding, Level};
pub use error::Error;
pub use jinja::{Error as TemplateError, ErrorKind as TemplateErrorKind};
pub use mask::TrainedTurns;
pub use sanitize::Sanitize;
pub use template::{ChatTemplate, ContinueFinal, RenderOptions, ToolArguments};
pub use tokenize::{ChatTokenizer, EncodeOptions, Encoded, Truncation, Warning};
