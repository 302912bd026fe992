//! Tool calls that could not be read.

use std::ops::Range;

/// A part of the text that stands where a tool call should stand and holds none that can be read.
///
/// The part is not lost: it stays in the content of the message, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedCall {
    /// Where it stands, as byte offsets into the parsed text.
    pub span: Range<usize>,
    /// Why it is no call.
    pub reason: MalformedReason,
}

/// Why a tool call could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedReason {
    /// There is nothing between the markers.
    #[error("the tool call is empty")]
    Empty,
    /// The call is whole, but says no name, or one that cannot be a name.
    #[error("the tool call has no name")]
    NoName,
    /// The text is not written as the format asks.
    #[error("the tool call is not written as the format asks")]
    Syntax,
    /// The text ends before the call says its name.
    #[error("the text ends inside the tool call")]
    CutOff,
}

impl MalformedReason {
    /// The reason for something that could not be read, `cut` when the text ended there.
    pub(super) const fn unreadable(cut: bool) -> Self {
        if cut { Self::CutOff } else { Self::Syntax }
    }
}
