//! Python values, as a template sees them.
//!
//! A value is a copy of a few words. What it refers to stands in the template, in the conversation
//! or in the arena of the render, which is freed as a whole: `'a` is the lifetime of all three, and
//! nothing in the arena may own memory of the heap.

use std::borrow::Cow;
use std::cell::Cell;

use bumpalo::Bump;

use super::ast::{For, Macro};
pub(crate) use super::dict::{Dict, DictBuilder, Namespace};
use super::globals::Function;
use super::repr::write_repr;

/// A Python value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Value<'a> {
    /// A variable that was never assigned.
    #[default]
    Unset,
    /// With the name that was looked up, or the reason.
    Undefined(Undefined, &'a str),
    None,
    Bool(bool),
    Int(Int),
    Float(f64),
    Str(&'a str),
    /// `markupsafe.Markup`, the result of `|safe` and `|escape`.
    Markup(&'a str),
    List(&'a [Value<'a>]),
    Tuple(&'a [Value<'a>]),
    /// A pair `(grouper, list)` of the `groupby` filter: a tuple with names.
    Group(&'a [Value<'a>]),
    Dict(Dict<'a>),
    /// `dict.keys()`, `.values()` and `.items()`.
    View(ViewKind, Dict<'a>),
    Range(&'a Range),
    /// A generator: it can be read once.
    Iter(&'a IterState<'a>),
    Namespace(&'a Namespace<'a>),
    Loop(&'a Loop<'a>),
    Macro(&'a MacroValue<'a>),
    Function(Function),
    Method(&'a (Value<'a>, &'a str)),
    Cycler(&'a (&'a [Value<'a>], Cell<usize>)),
    Joiner(&'a (Value<'a>, Cell<bool>)),
}

// Values are copied all the time.
const _: () = assert!(size_of::<Value<'_>>() == 24);

/// An integer, aligned so that it does not make every value larger.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(8))]
pub(crate) struct Int(i128);

impl Int {
    pub(crate) fn get(self) -> i128 {
        self.0
    }
}

/// Why a value is undefined; using it raises an error with this reason.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Undefined {
    Name,
    Attr(TypeName),
    /// An attribute that the sandbox refuses.
    Unsafe(TypeName),
    Reason,
}

/// Name of a Python type, small enough to travel with an undefined value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
pub(crate) enum TypeName {
    Undefined,
    None,
    Bool,
    Int,
    Float,
    Str,
    List,
    Tuple,
    Dict,
    Other,
}

impl TypeName {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            TypeName::Undefined => "Undefined",
            TypeName::None => "NoneType",
            TypeName::Bool => "bool",
            TypeName::Int => "int",
            TypeName::Float => "float",
            TypeName::Str => "str",
            TypeName::List => "list",
            TypeName::Tuple => "tuple",
            TypeName::Dict => "dict",
            TypeName::Other => "object",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ViewKind {
    Keys,
    Values,
    Items,
}

/// `range(start, stop, step)`; the step is not 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) start: i64,
    pub(crate) stop: i64,
    pub(crate) step: i64,
}

impl Range {
    pub(crate) fn len(self) -> usize {
        let span = if self.step > 0 { self.stop - self.start } else { self.start - self.stop };
        if span <= 0 { 0 } else { (span as u64).div_ceil(self.step.unsigned_abs()) as usize }
    }

    pub(crate) fn get<'a>(self, index: usize) -> Value<'a> {
        Value::int(i128::from(self.start) + i128::from(self.step) * index as i128)
    }
}

/// The rest of a generator.
#[derive(Debug)]
pub(crate) struct IterState<'a> {
    pub(crate) items: &'a [Value<'a>],
    pub(crate) at: Cell<usize>,
}

impl<'a> IterState<'a> {
    pub(crate) fn next(&self) -> Option<Value<'a>> {
        let item = self.items.get(self.at.get())?;
        self.at.set(self.at.get() + 1);
        Some(*item)
    }

    pub(crate) fn rest(&self) -> &'a [Value<'a>] {
        &self.items[self.at.replace(self.items.len())..]
    }
}

/// The `loop` variable.
#[derive(Debug)]
pub(crate) struct Loop<'a> {
    pub(crate) items: &'a [Value<'a>],
    pub(crate) index: Cell<usize>,
    pub(crate) depth: usize,
    pub(crate) changed: Cell<Option<&'a [Value<'a>]>>,
    /// The loop to run again for `loop(children)`.
    pub(crate) recursive: Option<&'a For>,
}

/// A macro, or the body of a `{% call %}`, with the frame in which it was defined.
#[derive(Debug)]
pub(crate) struct MacroValue<'a> {
    pub(crate) def: &'a Macro,
    pub(crate) frame: usize,
    pub(crate) frame_serial: u64,
}

impl<'a> Value<'a> {
    pub(crate) fn int(n: i128) -> Self {
        Value::Int(Int(n))
    }

    /// A text that is copied into the arena.
    pub(crate) fn string(arena: &'a Bump, text: impl AsRef<str>) -> Self {
        Value::Str(arena.alloc_str(text.as_ref()))
    }

    pub(crate) fn list(arena: &'a Bump, items: impl AsRef<[Value<'a>]>) -> Self {
        Value::List(arena.alloc_slice_copy(items.as_ref()))
    }

    pub(crate) fn tuple(arena: &'a Bump, items: impl AsRef<[Value<'a>]>) -> Self {
        Value::Tuple(arena.alloc_slice_copy(items.as_ref()))
    }

    pub(crate) fn iter(arena: &'a Bump, items: &'a [Value<'a>]) -> Self {
        Value::Iter(arena.alloc(IterState { items, at: Cell::new(0) }))
    }

    pub(crate) fn reason(reason: &'static str) -> Self {
        Value::Undefined(Undefined::Reason, reason)
    }

    /// The text of a string, plain or markup.
    pub(crate) fn as_str(&self) -> Option<&'a str> {
        match self {
            Value::Str(text) | Value::Markup(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(..) | Value::Unset)
    }

    pub(crate) fn type_name(&self) -> TypeName {
        match self {
            Value::Unset | Value::Undefined(..) => TypeName::Undefined,
            Value::None => TypeName::None,
            Value::Bool(_) => TypeName::Bool,
            Value::Int(_) => TypeName::Int,
            Value::Float(_) => TypeName::Float,
            Value::Str(_) | Value::Markup(_) => TypeName::Str,
            Value::List(_) => TypeName::List,
            Value::Tuple(_) | Value::Group(_) => TypeName::Tuple,
            Value::Dict(_) => TypeName::Dict,
            _ => TypeName::Other,
        }
    }

    /// Whether lists and dicts stand in each other for more than `levels`.
    pub(crate) fn nests_deeper_than(&self, levels: usize) -> bool {
        let deep = |value: &Value<'a>| levels == 0 || value.nests_deeper_than(levels - 1);
        match self {
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
                items.iter().any(deep)
            }
            Value::Dict(dict) => dict.entries.iter().any(|(key, value)| deep(key) || deep(value)),
            _ => false,
        }
    }

    /// `bool(value)`
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Value::Unset | Value::Undefined(..) | Value::None => false,
            Value::Bool(b) => *b,
            Value::Int(n) => n.get() != 0,
            Value::Float(x) => *x != 0.0,
            Value::Str(text) | Value::Markup(text) => !text.is_empty(),
            Value::List(items) | Value::Tuple(items) => !items.is_empty(),
            Value::Dict(dict) | Value::View(_, dict) => !dict.entries.is_empty(),
            Value::Range(range) => range.len() > 0,
            Value::Loop(loop_) => !loop_.items.is_empty(),
            _ => true,
        }
    }

    pub(crate) fn equals_str(&self, text: &str) -> bool {
        self.as_str().is_some_and(|this| this == text)
    }

    /// A number as Python counts it: booleans are 0 and 1.
    pub(crate) fn as_int(&self) -> Option<i128> {
        match self {
            Value::Bool(b) => Some(i128::from(*b)),
            Value::Int(n) => Some(n.get()),
            _ => None,
        }
    }

    pub(crate) fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(x) => Some(*x),
            _ => self.as_int().map(|n| n as f64),
        }
    }

    /// `a == b`
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Str(a) | Value::Markup(a), Value::Str(b) | Value::Markup(b)) => a == b,
            (Value::None, Value::None) => true,
            (a, b) if a.is_undefined() => b.is_undefined(),
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(b))
            }
            (Value::Dict(a), Value::Dict(b)) => {
                a.entries.len() == b.entries.len()
                    && a.entries.iter().all(|(k, v)| b.get(k).is_some_and(|other| v.equals(&other)))
            }
            (Value::Range(a), Value::Range(b)) => {
                let (len, other) = (a.len(), b.len());
                len == other && (len == 0 || a.start == b.start && (len == 1 || a.step == b.step))
            }
            (Value::Namespace(a), Value::Namespace(b)) => std::ptr::eq(*a, *b),
            (Value::Macro(a), Value::Macro(b)) => std::ptr::eq(*a, *b),
            (Value::Iter(a), Value::Iter(b)) => std::ptr::eq(*a, *b),
            (Value::Loop(a), Value::Loop(b)) => std::ptr::eq(*a, *b),
            (Value::Function(a), Value::Function(b)) => a == b,
            (a, b) => match (a.as_int(), b.as_int()) {
                (Some(a), Some(b)) => a == b,
                (Some(n), None) => matches!(b, Value::Float(x) if float_is_int(*x, n)),
                (None, Some(n)) => matches!(a, Value::Float(x) if float_is_int(*x, n)),
                (None, None) => matches!((a, b), (Value::Float(a), Value::Float(b)) if a == b),
            },
        }
    }

    /// `str(value)`, written to the end of `out`.
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Value::Unset | Value::Undefined(..) => {}
            Value::Str(text) | Value::Markup(text) => out.push_str(text),
            value => write_repr(value, out),
        }
    }

    /// `str(value)`
    pub(crate) fn to_str(self, arena: &'a Bump) -> &'a str {
        match self.text() {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => arena.alloc_str(&text),
        }
    }

    /// `str(value)`, where no arena is at hand.
    pub(crate) fn text(self) -> Cow<'a, str> {
        match self {
            Value::Str(text) | Value::Markup(text) => Cow::Borrowed(text),
            value => {
                let mut out = String::new();
                value.write(&mut out);
                Cow::Owned(out)
            }
        }
    }
}

/// Whether a float is exactly this integer, also where the integer has more digits than a float.
fn float_is_int(x: f64, n: i128) -> bool {
    x.fract() == 0.0 && x.abs() < 1.7e38 && x as i128 == n
}
