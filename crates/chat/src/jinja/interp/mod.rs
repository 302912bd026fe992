//! Runs a template: statements write to the output, expressions give values.

mod call;
mod eval;
mod exec;

use std::ops::Range;

use bumpalo::Bump;
use jiff::civil::DateTime;

use super::ast::{Entry, Name, Stmt};
use super::error::{Result, runtime};
use super::value::{Undefined, Value};
use super::{Rendered, Slot};

/// Deepest nesting of macro calls and recursive loops.
const MAX_CALLS: usize = 100;

/// Deepest nesting of a value that a namespace holds.
const MAX_NESTING: usize = 200;

/// Marks a generation block inside captured text (a macro, a `set` block), whose place in the
/// output is not known yet. Both are noncharacters, which no valid interchange of text holds.
const MARK_START: char = '\u{10fffe}';
const MARK_END: char = '\u{10ffff}';

pub(crate) struct Interp<'a> {
    pub(crate) arena: &'a Bump,
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
    /// Whether generation blocks in captured text are marked, and how many there were.
    marking: bool,
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
        arena: &'a Bump,
        names: &[Slot],
        variables: &[(&'a str, Value<'a>)],
        clock: &'a dyn Fn() -> DateTime,
    ) -> Self {
        let mut slots = vec![Value::Unset; names.len()];
        for name in names {
            if let Some(function) = name.function {
                slots[name.index] = Value::Function(function);
            }
        }
        for (key, value) in variables {
            if let Ok(at) = names.binary_search_by(|name| name.order(key)) {
                slots[names[at].index] = *value;
            }
        }
        Self {
            arena,
            slots,
            frames: vec![Frame { base: 0, parent: 0, serial: 0 }],
            current: 0,
            base: 0,
            serial: 0,
            out: String::with_capacity(1024),
            captures: 0,
            marking: false,
            marks: 0,
            generation: Vec::new(),
            captured: None,
            clock,
        }
    }

    pub(crate) fn run(mut self, body: &'a [Stmt]) -> Result<Rendered> {
        self.body(body)?;
        let captured = self.marks > 0;
        Ok(Rendered { text: self.out, generation: self.generation, captured })
    }

    /// Runs with marks around the generation blocks in captured text.
    pub(crate) fn run_marked(mut self, body: &'a [Stmt]) -> Result<Rendered> {
        self.marking = true;
        self.body(body)?;
        self.take_marks()?;
        Ok(Rendered { text: self.out, generation: self.generation, captured: false })
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
        match self.slots[self.slot(name.depth, name.slot)] {
            Value::Unset => Value::Undefined(Undefined::Name, &name.name),
            value => value,
        }
    }

    /// Enters a scope: its own variables start with their outer values.
    fn enter(&mut self, entry: &'a [Entry]) {
        for Entry { slot, outer } in entry {
            let value = self.slots[self.slot(outer.depth, outer.slot)];
            self.slots[self.base + *slot as usize] = value;
        }
    }

    /// Runs statements and returns what they wrote instead of printing it. They write to the end of
    /// the output, from where the text is taken.
    fn capture(&mut self, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<&'a str> {
        let start = self.out.len();
        self.captures += 1;
        write(self)?;
        self.captures -= 1;
        Ok(self.take(start))
    }

    /// A text that `write` puts together; the end of the output serves as the buffer.
    pub(crate) fn written(
        &mut self,
        write: impl FnOnce(&mut String) -> Result<()>,
    ) -> Result<Value<'a>> {
        let start = self.out.len();
        write(&mut self.out)?;
        Ok(Value::Str(self.take(start)))
    }

    /// Takes what stands behind `start` off the output.
    fn take(&mut self, start: usize) -> &'a str {
        let text = self.arena.alloc_str(&self.out[start..]);
        self.out.truncate(start);
        text
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
