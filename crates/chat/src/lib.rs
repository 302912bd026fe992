//! Conversations to text to tokens, and back.

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
