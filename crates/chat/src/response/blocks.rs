//! The walk through a text from one tool call block to the next.

use std::iter::once;
use std::ops::Range;

use posttrain_core::ToolCall;

use super::malformed::{MalformedCall, MalformedReason};

/// A stretch of text that a format's marker opens, and what was read there.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) span: Range<usize>,
    pub(super) calls: Vec<ToolCall>,
    /// The parts of the block that could not be read.
    pub(super) unread: Vec<MalformedCall>,
    /// The text ends before the block does.
    pub(super) cut: bool,
}

impl Block {
    /// A block whose end is still to be found.
    pub(super) const fn opening_at(start: usize) -> Self {
        Self { span: start..start, calls: Vec::new(), unread: Vec::new(), cut: false }
    }

    /// Notes that `span` could not be read, without the whitespace at its end.
    pub(super) fn leave_unread(&mut self, text: &str, span: Range<usize>, reason: MalformedReason) {
        let length = text[span.clone()].trim_end().len();
        self.unread.push(MalformedCall { span: span.start..span.start + length, reason });
    }

    /// Ends the block with its closing tag, which should stand at `at`. What stands there instead is
    /// noted as unread, up to the closing tag or the next opening one.
    pub(super) fn close(mut self, text: &str, at: usize, open: &str, close: &str) -> Self {
        let mut end = skip_space(text, at);
        if close.starts_with(&text[end..]) && !text[end..].starts_with(close) {
            self.cut = true;
            end = text.len();
        } else if !text[end..].starts_with(close) && !text[end..].starts_with(open) {
            let stop = first_of(text, end, &[open, close]);
            self.leave_unread(text, end..stop, MalformedReason::Syntax);
            // Prose may name the tag; only where a call was read has the block been opened.
            self.cut |= stop == text.len() && !self.calls.is_empty();
            end = stop;
        }
        if text[end..].starts_with(close) {
            end += close.len();
        }
        self.span.end = end;
        self
    }
}

/// Everything that a format found in a text.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) calls: Vec<ToolCall>,
    pub(super) content: Option<String>,
    pub(super) malformed: Vec<MalformedCall>,
    pub(super) truncated: bool,
}

/// Reads block after block; `next` gives the first one at or after a byte offset. All text that no
/// call was made of is content.
pub(super) fn scan(text: &str, next: impl Fn(usize) -> Option<Block>) -> Found {
    let mut found = Found::default();
    let mut used = Vec::new();
    let mut from = 0;
    while let Some(block) = next(from) {
        debug_assert!(from <= block.span.start && block.span.start < block.span.end);
        from = block.span.end;
        found.truncated |= block.cut;
        if block.calls.is_empty() {
            let empty = if block.cut { MalformedReason::CutOff } else { MalformedReason::Empty };
            let reason = block.unread.first().map_or(empty, |part| part.reason);
            found.malformed.push(MalformedCall { span: block.span, reason });
            continue;
        }
        let mut start = block.span.start;
        for part in &block.unread {
            used.push(start..part.span.start);
            start = part.span.end;
        }
        used.push(start..block.span.end);
        found.calls.extend(block.calls);
        found.malformed.extend(block.unread);
    }
    found.content = outside(text, &used);
    found
}

/// The text outside of `used`: each piece trimmed, the empty ones left out, joined by newlines.
fn outside(text: &str, used: &[Range<usize>]) -> Option<String> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for span in used.iter().cloned().chain(once(text.len()..text.len())) {
        let piece = text[start..span.start].trim();
        if !piece.is_empty() {
            pieces.push(piece);
        }
        start = span.end;
    }
    (!pieces.is_empty()).then(|| pieces.join("\n"))
}

/// The offset of the first character at or after `at` that is not whitespace.
pub(super) fn skip_space(text: &str, at: usize) -> usize {
    text.len() - text[at..].trim_start().len()
}

/// The offset of the first of the markers at or after `at`, else the end of the text. Byte by byte,
/// so that it never reads past the first one: texts may repeat one marker thousands of times.
pub(super) fn first_of(text: &str, at: usize, markers: &[&str]) -> usize {
    let is_marker = |&at: &usize| {
        let rest = &text.as_bytes()[at..];
        markers.iter().any(|marker| rest.starts_with(marker.as_bytes()))
    };
    (at..text.len()).find(is_marker).unwrap_or(text.len())
}

/// Whether this can be the name of a function. Formats without quotes around the name would
/// otherwise take prose for one.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || "<>{}[]()\"'`".contains(c))
}
