//! What happened to the rows, counted.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::RowId;

/// Why a row is not trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No token behind the first is trained.
    NoTrainedToken,
    /// Truncation took all trained tokens.
    TruncatedAway,
    /// It is longer than `max_length`, and nothing may be cut.
    TooLong,
    /// Two tokens of beginning.
    DoubleBos,
    /// The template or the tokenizer refused the row.
    Encoding,
    /// Answers that should differ are the same tokens.
    SameAnswers,
    /// The same text is in the validation set.
    InValidation,
}

impl Reason {
    /// Its name in `data_report.json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoTrainedToken => "no_trained_token",
            Self::TruncatedAway => "truncated_away",
            Self::TooLong => "too_long",
            Self::DoubleBos => "double_bos",
            Self::Encoding => "encoding",
            Self::SameAnswers => "same_answers",
            Self::InValidation => "in_validation",
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTrainedToken => "no trained token",
            Self::TruncatedAway => "no trained token left by truncation",
            Self::TooLong => "longer than max_length",
            Self::DoubleBos => "two tokens of beginning",
            Self::Encoding => "refused by the template or the tokenizer",
            Self::SameAnswers => "answers of the same tokens",
            Self::InValidation => "also in the validation set",
        })
    }
}

/// A number of rows, with the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// How many.
    pub rows: u64,
    /// The first few.
    pub examples: Vec<Example>,
}

/// One of the rows counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// Which row.
    pub row: RowId,
    /// What is with it.
    pub detail: String,
}

impl Counted {
    pub(super) const EXAMPLES: usize = 3;

    pub(super) fn add(&mut self, row: &RowId, detail: impl FnOnce() -> String) {
        self.rows += 1;
        if self.examples.len() < Self::EXAMPLES {
            self.examples.push(Example { row: row.clone(), detail: detail() });
        }
    }
}

/// What truncation took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Truncated {
    /// Rows that were longer than `max_length`.
    pub rows: u64,
    /// Tokens taken.
    pub tokens: u64,
    /// Trained tokens taken.
    pub trained_tokens: u64,
    /// Rows that lost the end of a trained part and keep its start: the model sees no end there.
    pub ends_lost: u64,
    /// The first few.
    pub examples: Vec<RowId>,
}

/// What happened to the rows while they were encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RowCounts {
    /// Rows that came.
    pub read: u64,
    /// What truncation took.
    pub truncated: Truncated,
    /// Rows that are not trained on, by the reason.
    pub dropped: BTreeMap<Reason, Counted>,
    /// What deserves attention, by its kind: `stop_not_trained` (turns that end without a stop
    /// token), `prompt_not_prefix` (a prompt that is rendered otherwise alone), `prompt_in_validation`
    /// (a prompt that is answered in the validation set, too).
    pub warnings: BTreeMap<&'static str, Counted>,
    /// Rows in which a stop token is trained.
    pub stop_trained: u64,
}
