//! What can be wrong with a single row.

/// Why a row is bad. Bytes are counted from 1, in the row's own text.
///
/// Bad rows are counted, kept in a side file and tolerated up to
/// [`max_bad_rows`](crate::ReadOptions::max_bad_rows).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The text breaks off or does not follow JSON's grammar.
    #[error("not valid JSON at byte {at}: found {found}, expected {expected}")]
    Json {
        /// Where.
        at: usize,
        /// What stands there.
        found: String,
        /// What could stand there.
        expected: &'static str,
    },
    /// The text is not UTF-8.
    #[error("not valid UTF-8 at byte {at}")]
    Utf8 {
        /// The first byte that is not.
        at: usize,
    },
    /// A NUL byte, as a file holds them that was not written to its end.
    #[error("a NUL byte at byte {at}: the file is no text, or was not written to its end")]
    Nul {
        /// Where.
        at: usize,
    },
    /// One object holds a key twice, so that readers disagree on its value.
    #[error("the key `{key}` stands twice in one object, again at byte {at}")]
    DuplicateKey {
        /// Where it stands again.
        at: usize,
        /// The key.
        key: String,
    },
    /// A number that JSON does not know, or that 64 bits do not hold exactly.
    #[error(
        "{found} at byte {at} is not a number that JSON and 64 bits can hold; write null or a string"
    )]
    Number {
        /// Where.
        at: usize,
        /// The number's text.
        found: String,
    },
    /// Lists and objects are nested too deeply.
    #[error("nested more than {limit} deep at byte {at}")]
    TooDeep {
        /// Where the limit is passed.
        at: usize,
        /// The limit.
        limit: usize,
    },
    /// The row is longer than allowed.
    #[error("the row has {bytes} bytes, max_row_bytes is {limit}")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The row is JSON, but no object.
    #[error("the row is {found}, expected an object with columns")]
    NotAnObject {
        /// What it is.
        found: String,
    },
    /// A column that the format needs is absent.
    #[error("`{column}` is missing; the row has {found}")]
    Missing {
        /// The column.
        column: String,
        /// The columns that the row has.
        found: String,
    },
    /// A value has the wrong type or is out of range.
    #[error("`{field}` is {found}, expected {expected}")]
    Value {
        /// Where in the row: `messages[2].content`.
        field: String,
        /// What stands there.
        found: String,
        /// What could stand there.
        expected: String,
    },
    /// A message's role is none that is known.
    #[error(
        "the role of `{field}` is {found:?}, expected {expected}; name other spellings in `roles`"
    )]
    Role {
        /// The message: `messages[2]`.
        field: String,
        /// Its role.
        found: String,
        /// The roles that are known.
        expected: String,
    },
    /// A message's other keys (tool calls, names, weights) are not as chat templates know them.
    #[error("`{field}`: {reason}")]
    Message {
        /// The message: `messages[2]`.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing is said where something has to be: an answer, a prompt, a list of messages.
    #[error("`{field}` is empty")]
    Empty {
        /// Where.
        field: String,
    },
    /// Both answers of a preference are the same, so nothing is preferred.
    #[error("`{chosen}` and `{rejected}` are the same")]
    SameAnswers {
        /// The column of the better answer.
        chosen: String,
        /// The column of the worse answer.
        rejected: String,
    },
    /// The prompt of a preference without a prompt column cannot be told.
    #[error(
        "no prompt can be taken from the common start of `{chosen}` and `{rejected}`: {reason}"
    )]
    NoPrompt {
        /// The column of the better answer.
        chosen: String,
        /// The column of the worse answer.
        rejected: String,
        /// Why not.
        reason: String,
    },
}

impl Fault {
    /// For a value that is not what it has to be.
    pub(crate) fn value(
        field: impl Into<String>,
        found: &serde_json::Value,
        expected: impl Into<String>,
    ) -> Self {
        Self::Value {
            field: field.into(),
            found: crate::json::kind(found),
            expected: expected.into(),
        }
    }

    pub(crate) fn empty(field: impl Into<String>) -> Self {
        Self::Empty { field: field.into() }
    }
}
