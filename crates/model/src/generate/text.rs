//! Token ids to text, one at a time, for streaming and for stop strings.
//!
//! The pieces together are exactly `tokenizer.decode(ids, true)`. Decoding each token alone is not
//! enough: characters are split over tokens, and most decoders treat the first token differently
//! (the leading space). `tokenizers`' own `DecodeStream` (0.23) is not used because it
//! - never hands out what it holds at the end,
//! - fails with "Invalid prefix" when a run of byte tokens that began as valid UTF-8 ends as
//!   invalid (vLLM issue 17448), as models do that are being trained,
//! - decodes a window that grows with every token while the text ends in U+FFFD,
//! - panics with `BPEDecoder` when the first token is a special one.
//!
//! How decoders are followed:
//! - Byte-level: the bytes of the tokens are collected; complete characters are final. At most 3
//!   bytes wait.
//! - Others decode a token with the tokens before it back to the last piece, and the new text is
//!   what is added (as text-generation-inference and vLLM do). Byte tokens (`<0xE2>`) wait for the
//!   end of their run, since `ByteFallback` decodes a run as a whole: one wrong byte makes all of
//!   it U+FFFD.
//! - Decoders that can change what they wrote before (CTC; a replacement over the joined text) wait
//!   for the end of the answer. No language model known to us has one.

use tokenizers::{DecoderWrapper, Tokenizer};

use crate::error::Error;

/// Turns the token ids of one answer into text.
#[derive(Debug)]
pub(crate) struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The bytes of an incomplete character.
    Bytes(Vec<u8>),
    Window(Window),
    /// All ids so far.
    Whole(Vec<u32>),
}

/// The tokens that the text of the next one may depend on.
#[derive(Debug, Default)]
struct Window {
    ids: Vec<u32>,
    /// The text of the tokens that was handed out, decoded without what comes before the window.
    known: String,
    /// Tokens from here on can become the next window.
    fresh: usize,
    /// Whether U+FFFD at the end may be an incomplete character.
    bytes: bool,
}

impl<'t> TextStream<'t> {
    /// A stream for one answer.
    pub(crate) fn new(tokenizer: &'t Tokenizer) -> Self {
        let mut kind = Kind::default();
        if let Some(decoder) = tokenizer.get_decoder() {
            kind.read(decoder);
        }
        let state = match tokenizer.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => State::Bytes(Vec::new()),
            _ if kind.rewrites => State::Whole(Vec::new()),
            _ => State::Window(Window { bytes: kind.bytes, ..Window::default() }),
        };
        Self { tokenizer, state }
    }

    /// Takes the next token and returns the text that is final with it. Special tokens and ids
    /// outside the vocabulary have no text.
    ///
    /// # Errors
    /// When the tokenizer cannot decode.
    pub(crate) fn push(&mut self, id: u32) -> Result<String, Error> {
        // What `decode` would drop never enters the window, so that the first token of a window
        // is never without text for that reason.
        let Some(token) = self.tokenizer.id_to_token(id) else { return Ok(String::new()) };
        if self.tokenizer.get_added_vocabulary().is_special_token(&token) {
            return Ok(String::new());
        }
        match &mut self.state {
            State::Bytes(pending) => {
                push_bytes(&token, pending);
                Ok(complete_characters(pending))
            }
            State::Window(window) => {
                window.ids.push(id);
                if is_byte_token(&token) {
                    return Ok(String::new());
                }
                window.advance(self.tokenizer)
            }
            State::Whole(ids) => {
                ids.push(id);
                Ok(String::new())
            }
        }
    }

    /// The answer ends: the text that was waiting for more.
    ///
    /// # Errors
    /// When the tokenizer cannot decode.
    pub(crate) fn finish(&mut self) -> Result<String, Error> {
        match &mut self.state {
            State::Bytes(pending) => {
                Ok(String::from_utf8_lossy(&std::mem::take(pending)).into_owned())
            }
            State::Window(window) => {
                let window = std::mem::take(window);
                if window.ids.is_empty() {
                    return Ok(String::new());
                }
                let text = decode(self.tokenizer, &window.ids)?;
                Ok(window.added(&text)?.to_owned())
            }
            State::Whole(ids) if ids.is_empty() => Ok(String::new()),
            State::Whole(ids) => decode(self.tokenizer, &std::mem::take(ids)),
        }
    }
}

impl Window {
    /// What is new in the text of the window.
    fn added<'s>(&self, text: &'s str) -> Result<&'s str, Error> {
        // The kinds of decoders that change text they wrote are not decoded with a window.
        text.strip_prefix(self.known.as_str()).ok_or_else(|| Error::Input {
            what: "the text of the answer with one more token".into(),
            found: format!("{text:?}"),
            expected: format!("a text that begins with {:?}, as without that token", self.known),
        })
    }

    fn advance(&mut self, tokenizer: &Tokenizer) -> Result<String, Error> {
        let text = decode(tokenizer, &self.ids)?;
        let added = self.added(&text)?;
        if self.bytes && added.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let added = added.to_owned();
        // The fresh tokens are context enough if they have text of their own: a decoder that
        // strips the start has then stripped, and the next token is not the first one.
        let alone = decode(tokenizer, &self.ids[self.fresh..])?;
        if alone.is_empty() {
            self.known = text;
        } else {
            self.ids.drain(..self.fresh);
            self.known = alone;
            self.fresh = self.ids.len();
        }
        Ok(added)
    }
}

/// What a decoder does to the text of tokens that more tokens follow.
#[derive(Debug, Default)]
struct Kind {
    /// It joins bytes: the text may end within a character.
    bytes: bool,
    /// The tokens are one text from here on.
    joined: bool,
    /// It may change text that it wrote before.
    rewrites: bool,
}

impl Kind {
    fn read(&mut self, decoder: &DecoderWrapper) {
        match decoder {
            DecoderWrapper::Sequence(sequence) => {
                sequence.get_decoders().iter().for_each(|decoder| self.read(decoder));
            }
            DecoderWrapper::ByteLevel(_) => {
                // Bytes of a joined text are not those of its tokens.
                self.rewrites |= self.joined;
                self.bytes = true;
                self.joined = true;
            }
            DecoderWrapper::Fuse(_) => self.joined = true,
            // At the start it strips once and for all. At the end it is not followed token by token:
            // it panics (0.23) on texts that are shorter than what it strips.
            DecoderWrapper::Strip(strip) => {
                self.rewrites |= strip.stop > 0;
            }
            DecoderWrapper::CTC(_) => self.rewrites = true,
            // These see single tokens, or else the whole text at once.
            DecoderWrapper::BPE(_)
            | DecoderWrapper::WordPiece(_)
            | DecoderWrapper::Metaspace(_)
            | DecoderWrapper::Replace(_)
            | DecoderWrapper::ByteFallback(_) => {
                self.rewrites |= self.joined;
            }
        }
    }
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String, Error> {
    tokenizer
        .decode(ids, true)
        .map_err(|error| Error::Chat(posttrain_chat::Error::Tokenizer(error.to_string())))
}

/// Whether `ByteFallback` takes the token as a byte.
fn is_byte_token(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Appends the bytes of a byte-level token. A token with a character outside the alphabet is taken
/// as it stands, as the decoder does.
fn push_bytes(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for character in token.chars() {
        let Some(byte) = byte_of(character) else {
            bytes.truncate(start);
            bytes.extend_from_slice(token.as_bytes());
            return;
        };
        bytes.push(byte);
    }
}

/// The byte that a character of GPT-2's byte alphabet stands for: printable characters of Latin-1
/// stand for themselves, the other bytes are numbered from U+0100 on.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// Takes all but an incomplete character at the end, each broken sequence as U+FFFD.
fn complete_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = bytes.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
                break;
            }
            Err(error) => {
                let (valid, broken) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                rest = broken;
                let Some(length) = error.error_len() else { break };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &rest[length..];
            }
        }
    }
    let kept = rest.len();
    bytes.drain(..bytes.len() - kept);
    text
}

#[cfg(test)]
mod tests;
