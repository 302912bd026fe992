//! One JSON list of objects, read element by element.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use super::open::Input;
use super::source::{Bad, Raw, Record, Step, broken, damaged};
use crate::error::Result;
use crate::fault::Fault;
use crate::json::parse_object;
use crate::row::Place;

/// How much of an element beyond the limit is kept.
const KEPT: u64 = 4096;

pub(crate) struct Array {
    file: Arc<Path>,
    input: Input,
    limit: u64,
    line: u64,
    row: u64,
    state: State,
}

#[derive(PartialEq)]
enum State {
    /// Before the list.
    Start,
    /// Behind `[`.
    Open,
    /// Behind a comma.
    Comma,
    /// Behind an element.
    Element,
    /// Behind `]`.
    End,
}

impl Array {
    pub(crate) fn new(file: Arc<Path>, input: Input, limit: u64) -> Self {
        Self { file, input, limit, line: 1, row: 0, state: State::Start }
    }

    fn place(&self) -> Place {
        Place { file: self.file.clone(), row: self.row + 1, line: Some(self.line) }
    }

    pub(crate) fn next(&mut self) -> Option<Step> {
        loop {
            let byte = match self.skip_space() {
                Ok(byte) => byte,
                Err(error) => return Some(Err(error)),
            };
            self.state = match (byte, &self.state) {
                (None, State::End) => return None,
                (None, _) => {
                    return Some(Err(broken(self.place(), "the list breaks off".into())));
                }
                (Some(b'['), State::Start) => State::Open,
                (Some(b']'), State::Open | State::Element) => State::End,
                (Some(b','), State::Element) => State::Comma,
                (Some(_), State::Open | State::Comma) => {
                    self.state = State::Element;
                    return Some(self.element());
                }
                (Some(byte), _) => {
                    let reason = format!("{:?} stands behind the list", char::from(byte));
                    return Some(Err(broken(self.place(), reason)));
                }
            };
            self.input.consume(1);
        }
    }

    /// The next byte that is no white space, which stays in the input.
    fn skip_space(&mut self) -> Result<Option<u8>> {
        loop {
            let place = self.place();
            let bytes = self.input.fill_buf().map_err(|error| damaged(place, &error))?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let blank = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.line += newlines(&bytes[..blank]);
            let next = bytes.get(blank).copied();
            self.input.consume(blank);
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    /// An element up to the comma or bracket behind it, which stays in the input.
    fn element(&mut self) -> Step {
        let place = self.place();
        self.row += 1;
        let mut text = Vec::new();
        let mut bytes = 0;
        let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
        loop {
            let more = match self.input.fill_buf() {
                Ok([]) => return Err(broken(place, "the list breaks off".into())),
                Ok(more) => more,
                Err(error) => return Err(damaged(place, &error)),
            };
            let ends = |&byte: &u8| {
                if quoted {
                    quoted = escaped || byte != b'"';
                    escaped = !escaped && byte == b'\\';
                    return false;
                }
                match byte {
                    b'"' => quoted = true,
                    b'{' | b'[' => depth += 1,
                    b',' | b']' if depth == 0 => return true,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                false
            };
            let end = more.iter().position(ends);
            let count = end.unwrap_or(more.len());
            bytes += count as u64;
            self.line += newlines(&more[..count]);
            if bytes <= self.limit {
                text.extend_from_slice(&more[..count]);
            } else {
                let start = self.limit.min(KEPT) as usize;
                text.extend_from_slice(&more[..count.min(start.saturating_sub(text.len()))]);
                text.truncate(start);
            }
            self.input.consume(count);
            if end.is_some() {
                break;
            }
        }
        if bytes > self.limit {
            let fault = Fault::TooLong { bytes, limit: self.limit };
            return Ok(Err(Bad { place, fault, raw: Raw::Text(text) }));
        }
        Ok(match parse_object(&text) {
            Ok(object) => Ok(Record { place, object, raw: Raw::Text(text) }),
            Err(fault) => Err(Bad { place, fault, raw: Raw::Text(text) }),
        })
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}
