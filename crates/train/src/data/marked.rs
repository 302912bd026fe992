//! A row as text, with what is trained marked.

use std::fmt::Write as _;

use posttrain_chat::ChatTokenizer;
use serde::Serialize;

use super::{RowId, Samples};
use crate::watch::html::escape;

/// A row in pieces, each trained or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MarkedSample {
    /// Which row.
    pub row: RowId,
    /// Number of its tokens.
    pub tokens: usize,
    /// The pieces, in order.
    pub pieces: Vec<MarkedPiece>,
}

/// A piece of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MarkedPiece {
    /// Its text, special tokens included.
    pub text: String,
    /// Whether it is trained.
    pub trained: bool,
}

/// How trained pieces are marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// Between `⟦` and `⟧`.
    Plain,
    /// Green in a terminal, the rest dim.
    Ansi,
}

impl MarkedSample {
    /// The row with the given index.
    pub(super) fn new(samples: &Samples, index: usize, tokenizer: &ChatTokenizer) -> Self {
        let decode = |ids: &[u32]| {
            tokenizer.tokenizer().decode(ids, false).unwrap_or_else(|_| format!("{ids:?}"))
        };
        let ids = samples.ids(index);
        let mut trained: Vec<bool> = samples.trained(index).collect();
        // Nothing predicts the first token.
        if let Some(first) = trained.first_mut() {
            *first = false;
        }
        let (mut pieces, mut start, mut before) = (Vec::new(), 0, String::new());
        for run in trained.chunk_by(|a, b| a == b) {
            let end = start + run.len();
            // Some tokenizers decode a piece otherwise alone than behind what it follows.
            let until = decode(&ids[..end]);
            let text = match until.strip_prefix(&before) {
                Some(text) => text.to_owned(),
                None => decode(&ids[start..end]),
            };
            pieces.push(MarkedPiece { text, trained: run[0] });
            (start, before) = (end, until);
        }
        Self { row: samples.row(index), tokens: ids.len(), pieces }
    }

    /// The text with marks. Characters that would steer a terminal are written as escapes.
    pub fn marked(&self, marks: Marks) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            let text = visible(&piece.text);
            let (before, after) = match (marks, piece.trained) {
                (Marks::Plain, true) => ("⟦", "⟧"),
                (Marks::Plain, false) => ("", ""),
                (Marks::Ansi, true) => ("\x1b[32m", "\x1b[0m"),
                (Marks::Ansi, false) => ("\x1b[2m", "\x1b[0m"),
            };
            let _ = write!(out, "{before}{text}{after}");
        }
        out
    }

    /// The text as HTML, trained pieces in `<mark>`.
    pub fn html(&self) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            let text = escape(&visible(&piece.text));
            let tag = if piece.trained { "mark" } else { "span" };
            let _ = write!(out, "<{tag}>{text}</{tag}>");
        }
        out
    }
}

/// Control characters but line breaks and tabs as escapes.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_around_what_is_trained() {
        let piece = |text: &str, trained| MarkedPiece { text: text.into(), trained };
        let pieces = vec![piece("<s>2+2?\n", false), piece("4\x1b[31m</s>", true)];
        let sample = MarkedSample { row: RowId::index(0), tokens: 7, pieces };
        assert_eq!(sample.marked(Marks::Plain), "<s>2+2?\n⟦4\\u{1b}[31m</s>⟧");
        let ansi = "\x1b[2m<s>2+2?\n\x1b[0m\x1b[32m4\\u{1b}[31m</s>\x1b[0m";
        assert_eq!(sample.marked(Marks::Ansi), ansi);
        let html = "<span>&lt;s&gt;2+2?\n</span><mark>4\\u{1b}[31m&lt;/s&gt;</mark>";
        assert_eq!(sample.html(), html);
    }
}
