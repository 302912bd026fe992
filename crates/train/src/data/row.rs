//! What rows are before they are token ids, and how they become them.

use posttrain_chat::EncodeOptions;
use posttrain_core::Conversation;
use serde::{Deserialize, Serialize};

use super::Packing;

/// A row of a data set.
#[derive(Clone, Debug, PartialEq)]
pub enum Row<C = Conversation> {
    /// A conversation: [`EncodeOptions::turns`] says which of it is trained.
    Chat(C),
    /// A conversation of which the messages behind the prompt are trained.
    ChatCompletion {
        /// The messages that are given.
        prompt: C,
        /// The same with those that follow.
        whole: C,
    },
    /// A text and how it goes on.
    Completion {
        /// The text that is given.
        prompt: String,
        /// What follows; it gets the end token where it does not end with it.
        completion: String,
    },
    /// Raw text, all of which is trained. It gets the end token where it does not end with it.
    Text(String),
}

/// A row of answers: for each its text, as [`Row::ChatCompletion`] or [`Row::Completion`] with the same
/// prompt, and what the data says of it, as [`Answers::push`](super::Answers::push) wants it.
pub type AnswerRow<C = Conversation> = Vec<(Row<C>, Vec<f64>)>;

/// How rows become token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOptions {
    /// How conversations are rendered and which of their turns are trained; `max_length` and
    /// `truncation` are for rows of every kind.
    pub chat: EncodeOptions,
    /// Whether only the completion of a prompt is trained, and not the prompt.
    pub completion_only_loss: bool,
    /// The token behind raw texts and completions, where it is not the tokenizer's.
    pub eos_token: Option<String>,
    /// Whether a row that is longer than `max_length` is one that cannot be trained on, and not
    /// truncated.
    pub whole: bool,
    /// What happens to a row that cannot be trained on.
    pub bad_rows: BadRows,
    /// How rows will be packed. Where packing itself cuts them ([`Packing::BfdSplit`],
    /// [`Packing::Wrapped`]) they are not truncated before.
    pub packing: Option<Packing>,
}

impl Default for RowOptions {
    fn default() -> Self {
        Self {
            chat: EncodeOptions { max_length: Some(1024), ..EncodeOptions::default() },
            completion_only_loss: true,
            eos_token: None,
            whole: false,
            bad_rows: BadRows::Error,
            packing: None,
        }
    }
}

/// What happens to a row that cannot be trained on: one without a trained token, with two tokens of
/// beginning, or that the template or the tokenizer refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadRows {
    /// The first such row is an error.
    #[default]
    Error,
    /// It is left out and counted, with the reason.
    Drop,
}
