//! Conversations to text to tokens, and back.

mod arena;
mod builtin;
mod chat;
mod continue_final;
mod error;
mod jinja;
mod probe;
pub mod response;
mod source;
mod template;

pub use builtin::Builtin;
pub use chat::{Chat, JsonChat};
pub use error::Error;
pub use jinja::{Error as TemplateError, ErrorKind as TemplateErrorKind};
pub use template::{ChatTemplate, ContinueFinal, RenderOptions, ToolArguments};
