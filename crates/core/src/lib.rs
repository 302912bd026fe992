//! The words that every crate of posttrain speaks.
//!
//! Plain data ([`Message`], [`Conversation`], [`Prompt`], [`Sampling`], [`Completion`]) and five
//! object-safe traits ([`Generate`], [`LogLikelihood`], [`Embed`], [`Reward`], [`StepReward`]).
//! There is no IO, no tensor library and no async here, so a crate that depends on this one alone
//! builds in seconds.
//!
//! The serde forms are the `OpenAI` chat forms, so a row of a data set or the body of a chat
//! completion request reads straight into these types:
//!
//! ```
//! use posttrain_core::{Conversation, Role};
//!
//! let row = r#"{"messages": [
//!     {"role": "user", "content": "What is 6 times 7?"},
//!     {"role": "assistant", "content": "42"}
//! ]}"#;
//! let conversation: Conversation = serde_json::from_str(row)?;
//! assert_eq!(conversation.messages[1].role, Role::Assistant);
//! assert_eq!(conversation.messages[1].text(), "42");
//! # Ok::<(), serde_json::Error>(())
//! ```

mod completion;
mod conversation;
mod error;
mod message;
mod sampling;
mod tool;
mod traits;

pub use completion::{Completion, FinishReason};
pub use conversation::{Conversation, Document, Prompt};
pub use error::Error;
pub use message::{Content, Message, Part, Role, training_flag};
pub use sampling::Sampling;
pub use tool::{Arguments, FunctionCall, Tool, ToolCall};
pub use traits::{
    Continuation, Embed, Generate, Likelihood, LogLikelihood, Request, Reward, Sample, StepReward,
    StepSample,
};
