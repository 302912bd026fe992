//! Runs a template: statements write to the output, expressions give values.

mod call;
mod eval;
mod exec;

use std::ops::Range;

use jiff::civil::DateTime;

use super::ast::{Entry, Name, Stmt};
use super::error::{Result, runtime};
use super::globals::Function;
use super::value::{Undefined, Value};
use super::{Error, Rendered};

/// Deepest nesting of macro calls and recursive loops.
const MAX_CALLS: usize = 100;

/// Marks a generation block inside captured text (a macro, a `set` block), whose place in the
/// output is not known yet. Both are noncharacters, which no valid interchange of text holds.
const MARK_START: char = '\u{10fffe}';
const MARK_END: char = '\u{10ffff}';

pub(crate) struct Interp<'a> {
    /// The slots of all frames, innermost last.
    slots: Vec<Value<'a>>,
    frames: Vec<Frame>,
    /// Index of the running frame.
    current: usize,
    /// Base of the running frame's slots.
    base: usize,
    /// Number of frames made so far, to tell a finished frame from a new one in its place.
    serial: u64,
    out: String,
    /// How many captures are open; at 0 the output is the template's own.
    captures: usize,
    marks: usize,
    generation: Vec<Range<usize>>,
    /// The captured text that waits for the first filter of a `{% filter %}`.
    captured: Option<Value<'a>>,
    clock: &'a dyn Fn() -> DateTime,
}

/// The slots of the template or of one macro call.
#[derive(Clone, Copy)]
struct Frame {
    base: usize,
    /// The frame in which the macro was defined.
    parent: usize,
    serial: u64,
}

/// How a statement ends.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl<'a> Interp<'a> {
    pub(crate) fn new(
        names: &'a [String],
        variables: &[(&'a str, Value<'a>)],
        clock: &'a dyn Fn() -> DateTime,
    ) -> Self {
        let value = |name: &String| {
            let variable = variables.iter().rev().find(|(key, _)| key == name);
            match variable {
                Some((_, value)) => value.clone(),
                None => Function::find(name).map_or(Value::Unset, Value::Function),
            }
        };
        Self {
            slots: names.iter().map(value).collect(),
            frames: vec![Frame { base: 0, parent: 0, serial: 0 }],
            current: 0,
            base: 0,
            serial: 0,
            out: String::with_capacity(1024),
            captures: 0,
            marks: 0,
            generation: Vec::new(),
            captured: None,
            clock,
        }
    }

    pub(crate) fn run(mut self, body: &'a [Stmt]) -> Result<Rendered, Error> {
        self.body(body)?;
        if self.marks > 0 {
            self.take_marks()?;
        }
        Ok(Rendered { text: self.out, generation: self.generation })
    }

    fn slot(&self, depth: u32, slot: u32) -> usize {
        if depth == 0 {
            return self.base + slot as usize;
        }
        let mut frame = self.current;
        for _ in 0..depth {
            frame = self.frames[frame].parent;
        }
        self.frames[frame].base + slot as usize
    }

    fn variable(&self, name: &'a Name) -> Value<'a> {
        match &self.slots[self.slot(name.depth, name.slot)] {
            Value::Unset => Value::Undefined(Undefined::Name(&name.name)),
            value => value.clone(),
        }
    }

    /// Enters a scope: its own variables start with their outer values.
    fn enter(&mut self, entry: &'a [Entry]) {
        for Entry { slot, outer } in entry {
            let value = self.slots[self.slot(outer.depth, outer.slot)].clone();
            self.slots[self.base + *slot as usize] = value;
        }
    }

    /// Runs `write` and returns what it wrote instead of printing it.
    fn capture(&mut self, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<String> {
        let outer = std::mem::take(&mut self.out);
        self.captures += 1;
        let result = write(self);
        self.captures -= 1;
        let text = std::mem::replace(&mut self.out, outer);
        result.map(|()| text)
    }

    /// Turns the marks of captured generation blocks into byte ranges of the output.
    fn take_marks(&mut self) -> Result<()> {
        let marked = std::mem::take(&mut self.out);
        let mut found = 0;
        let mut start = None;
        let mut ranges = Vec::new();
        let mut plain = self.generation.iter().flat_map(|r| [r.start, r.end]).collect::<Vec<_>>();
        let mut removed_before = Vec::new();
        for (at, c) in marked.char_indices() {
            match c {
                MARK_START => {
                    start = Some(self.out.len());
                    found += 1;
                    removed_before.push(at);
                }
                MARK_END => {
                    ranges.extend(start.take().map(|start| start..self.out.len()));
                    removed_before.push(at);
                }
                c => self.out.push(c),
            }
        }
        if found > self.marks {
            return Err(runtime(
                "the conversation holds U+10FFFE or U+10FFFF, which mark generation blocks here",
            ));
        }
        for at in &mut plain {
            let removed = removed_before.iter().filter(|&&mark| mark < *at).count();
            *at -= removed * MARK_START.len_utf8();
        }
        ranges.extend(plain.chunks(2).map(|pair| pair[0]..pair[1]));
        ranges.sort_by_key(|range| range.start);
        self.generation = ranges;
        Ok(())
    }
}
