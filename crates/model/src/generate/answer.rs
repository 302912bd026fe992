//! The text of one answer while it is written.

use tokenizers::Tokenizer;

use super::stop::StopStrings;
use super::text::TextStream;
use crate::error::Error;

/// Turns tokens into text, up to a stop string.
pub(super) struct Answer<'t> {
    stream: TextStream<'t>,
    stop: StopStrings,
    text: String,
}

impl<'t> Answer<'t> {
    pub(super) fn new<'s>(
        tokenizer: &'t Tokenizer,
        stop: impl Iterator<Item = &'s String>,
    ) -> Self {
        let stop: Vec<&String> = stop.collect();
        let (stream, stop) = (TextStream::new(tokenizer), StopStrings::new(&stop));
        Self { stream, stop, text: String::new() }
    }

    /// The text that the token makes final.
    pub(super) fn push(&mut self, token: u32) -> Result<String, Error> {
        let piece = self.stream.push(token)?;
        let piece = self.stop.push(&piece);
        self.text += &piece;
        Ok(piece)
    }

    /// Whether a stop string is complete.
    pub(super) fn stopped(&self) -> bool {
        self.stop.stopped().is_some()
    }

    /// The rest, after the last token.
    pub(super) fn finish(&mut self) -> Result<String, Error> {
        let mut rest = self.stop.push(&self.stream.finish()?);
        rest += &self.stop.finish();
        self.text += &rest;
        Ok(rest)
    }

    /// Everything.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}
