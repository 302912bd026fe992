//! JSON lines: one object a line.

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use super::open::Input;
use super::source::{Bad, Raw, Record, Step, damaged};
use crate::fault::Fault;
use crate::json::parse_object;
use crate::row::Place;

/// How much of a line beyond the limit is kept.
const KEPT: usize = 4096;

pub(crate) struct Lines {
    file: Arc<Path>,
    input: Input,
    limit: u64,
    line: u64,
    row: u64,
    /// Lines of nothing but white space.
    pub(crate) blank: u64,
}

impl Lines {
    pub(crate) fn new(file: Arc<Path>, input: Input, limit: u64) -> Self {
        Self { file, input, limit, line: 0, row: 0, blank: 0 }
    }

    fn place(&self) -> Place {
        Place { file: self.file.clone(), row: self.row, line: Some(self.line) }
    }

    pub(crate) fn next(&mut self) -> Option<Step> {
        loop {
            self.line += 1;
            let mut text = Vec::new();
            let read = (&mut self.input).take(self.limit + 1).read_until(b'\n', &mut text);
            match read {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => {
                    self.row += 1;
                    return Some(Err(damaged(self.place(), &error)));
                }
            }
            if text.last() == Some(&b'\n') {
                text.pop();
            } else if text.len() as u64 > self.limit {
                self.row += 1;
                return Some(self.too_long(text));
            }
            if text.trim_ascii().is_empty() {
                self.blank += 1;
                continue;
            }
            self.row += 1;
            let place = self.place();
            return Some(Ok(match parse_object(&text) {
                Ok(object) => Ok(Record { place, object, raw: Raw::Text(text) }),
                Err(fault) => Err(Bad { place, fault, raw: Raw::Text(text) }),
            }));
        }
    }

    fn too_long(&mut self, mut text: Vec<u8>) -> Step {
        let place = self.place();
        let mut bytes = text.len() as u64;
        text.truncate(KEPT);
        text.shrink_to_fit();
        loop {
            let more = match self.input.fill_buf() {
                Ok(more) => more,
                Err(error) => return Err(damaged(place, &error)),
            };
            let end = more.iter().position(|&byte| byte == b'\n');
            let count = end.unwrap_or(more.len());
            let done = end.is_some() || more.is_empty();
            bytes += count as u64;
            self.input.consume(count + usize::from(end.is_some()));
            if done {
                let fault = Fault::TooLong { bytes, limit: self.limit };
                return Ok(Err(Bad { place, fault, raw: Raw::Text(text) }));
            }
        }
    }
}
