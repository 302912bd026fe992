//! Python values, as a template sees them.
//!
//! Texts borrow from the template and from the conversation wherever they can: `'a'` is the
//! lifetime of both.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range as ByteRange;
use std::rc::Rc;

use super::ast::{For, Macro};
use super::globals::Function;
use super::python::{float_repr, str_repr};

/// A text: borrowed, or shared.
#[derive(Clone, Debug)]
pub(crate) enum Str<'a> {
    Borrowed(&'a str),
    Shared(Rc<str>),
}

impl<'a> Str<'a> {
    /// A part of the text, without copying where it is borrowed.
    pub(crate) fn slice(&self, range: ByteRange<usize>) -> Str<'a> {
        match self {
            Str::Borrowed(text) => Str::Borrowed(&text[range]),
            Str::Shared(text) if range == (0..text.len()) => self.clone(),
            Str::Shared(text) => Str::Shared(text[range].into()),
        }
    }

    /// The part of this text that `part`, a slice of it, covers.
    pub(crate) fn part(&self, part: &str) -> Str<'a> {
        let start = part.as_ptr() as usize - self.as_ptr() as usize;
        self.slice(start..start + part.len())
    }
}

impl std::ops::Deref for Str<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Str::Borrowed(text) => text,
            Str::Shared(text) => text,
        }
    }
}

impl From<String> for Str<'_> {
    fn from(text: String) -> Self {
        Str::Shared(text.into())
    }
}

/// A Python value.
#[derive(Clone, Debug, Default)]
pub(crate) enum Value<'a> {
    /// A variable that was never assigned.
    #[default]
    Unset,
    Undefined(Undefined<'a>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Str<'a>),
    /// `markupsafe.Markup`, the result of `|safe` and `|escape`.
    Markup(Str<'a>),
    List(Rc<Vec<Value<'a>>>),
    Tuple(Rc<Vec<Value<'a>>>),
    /// A pair `(grouper, list)` of the `groupby` filter: a tuple with names.
    Group(Rc<Vec<Value<'a>>>),
    Dict(Rc<Dict<'a>>),
    /// `dict.keys()`, `.values()` and `.items()`.
    View(ViewKind, Rc<Dict<'a>>),
    Range(Range),
    /// A generator: it can be read once.
    Iter(Rc<RefCell<VecDeque<Value<'a>>>>),
    Namespace(Rc<RefCell<Dict<'a>>>),
    Loop(Rc<Loop<'a>>),
    Macro(Rc<MacroValue<'a>>),
    Function(Function),
    Method(Rc<(Value<'a>, Str<'a>)>),
    Cycler(Rc<(Vec<Value<'a>>, Cell<usize>)>),
    Joiner(Rc<(Value<'a>, Cell<bool>)>),
}

/// Why a value is undefined; using it raises an error with this reason.
#[derive(Clone, Debug)]
pub(crate) enum Undefined<'a> {
    Name(&'a str),
    Attr(TypeName, Str<'a>),
    /// An attribute that the sandbox refuses.
    Unsafe(TypeName, Str<'a>),
    Reason(&'static str),
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
        Value::Int(i128::from(self.start) + i128::from(self.step) * index as i128)
    }
}

/// A dict in insertion order. Those of a conversation are small, so keys are searched in a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dict<'a> {
    pub(crate) entries: Vec<(Value<'a>, Value<'a>)>,
}

impl<'a> Dict<'a> {
    pub(crate) fn get_str(&self, key: &str) -> Option<&Value<'a>> {
        self.entries.iter().find_map(|(k, v)| match k {
            Value::Str(k) | Value::Markup(k) if **k == *key => Some(v),
            _ => None,
        })
    }

    pub(crate) fn get(&self, key: &Value<'a>) -> Option<&Value<'a>> {
        match key {
            Value::Str(key) | Value::Markup(key) => self.get_str(key),
            _ => self.entries.iter().find(|(k, _)| k.equals(key)).map(|(_, v)| v),
        }
    }

    pub(crate) fn insert(&mut self, key: Value<'a>, value: Value<'a>) {
        match self.entries.iter_mut().find(|(k, _)| k.equals(&key)) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key, value)),
        }
    }

    pub(crate) fn insert_str(&mut self, key: &'a str, value: Value<'a>) {
        self.insert(Value::Str(Str::Borrowed(key)), value);
    }
}

/// The `loop` variable.
#[derive(Debug)]
pub(crate) struct Loop<'a> {
    pub(crate) items: Vec<Value<'a>>,
    pub(crate) index: Cell<usize>,
    pub(crate) depth: usize,
    pub(crate) changed: RefCell<Option<Vec<Value<'a>>>>,
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
    pub(crate) fn str(text: &'a str) -> Self {
        Value::Str(Str::Borrowed(text))
    }

    pub(crate) fn string(text: String) -> Self {
        Value::Str(text.into())
    }

    pub(crate) fn list(items: Vec<Value<'a>>) -> Self {
        Value::List(Rc::new(items))
    }

    pub(crate) fn tuple(items: Vec<Value<'a>>) -> Self {
        Value::Tuple(Rc::new(items))
    }

    pub(crate) fn dict(dict: Dict<'a>) -> Self {
        Value::Dict(Rc::new(dict))
    }

    pub(crate) fn iter(items: impl Into<VecDeque<Value<'a>>>) -> Self {
        Value::Iter(Rc::new(RefCell::new(items.into())))
    }

    pub(crate) fn reason(reason: &'static str) -> Self {
        Value::Undefined(Undefined::Reason(reason))
    }

    /// The text of a string, plain or markup.
    pub(crate) fn as_str(&self) -> Option<&Str<'a>> {
        match self {
            Value::Str(text) | Value::Markup(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_) | Value::Unset)
    }

    pub(crate) fn type_name(&self) -> TypeName {
        match self {
            Value::Unset | Value::Undefined(_) => TypeName::Undefined,
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

    /// `bool(value)`
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Value::Unset | Value::Undefined(_) | Value::None => false,
            Value::Bool(b) => *b,
            Value::Int(n) => *n != 0,
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
        self.as_str().is_some_and(|this| **this == *text)
    }

    /// A number as Python counts it: booleans are 0 and 1.
    pub(crate) fn as_int(&self) -> Option<i128> {
        match self {
            Value::Bool(b) => Some(i128::from(*b)),
            Value::Int(n) => Some(*n),
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
            (Value::Str(a) | Value::Markup(a), Value::Str(b) | Value::Markup(b)) => **a == **b,
            (Value::None, Value::None) => true,
            (a, b) if a.is_undefined() => b.is_undefined(),
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(b))
            }
            (Value::Dict(a), Value::Dict(b)) => {
                a.entries.len() == b.entries.len()
                    && a.entries.iter().all(|(k, v)| b.get(k).is_some_and(|other| v.equals(other)))
            }
            (Value::Range(a), Value::Range(b)) => {
                let (len, other) = (a.len(), b.len());
                len == other && (len == 0 || a.start == b.start && (len == 1 || a.step == b.step))
            }
            (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
            (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
            (Value::Iter(a), Value::Iter(b)) => Rc::ptr_eq(a, b),
            (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
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
            Value::Unset | Value::Undefined(_) => {}
            Value::Str(text) | Value::Markup(text) => out.push_str(text),
            value => value.write_repr(out),
        }
    }

    /// `str(value)`
    pub(crate) fn to_str(&self) -> Str<'a> {
        match self {
            Value::Str(text) | Value::Markup(text) => text.clone(),
            value => {
                let mut out = String::new();
                value.write(&mut out);
                out.into()
            }
        }
    }

    /// `repr(value)`, written to the end of `out`.
    pub(crate) fn write_repr(&self, out: &mut String) {
        match self {
            Value::Unset | Value::Undefined(_) => out.push_str("Undefined"),
            Value::None => out.push_str("None"),
            Value::Bool(true) => out.push_str("True"),
            Value::Bool(false) => out.push_str("False"),
            Value::Int(n) => out.push_str(&n.to_string()),
            Value::Float(x) => out.push_str(&float_repr(*x)),
            Value::Str(text) => str_repr(text, out),
            Value::Markup(text) => {
                out.push_str("Markup(");
                str_repr(text, out);
                out.push(')');
            }
            Value::List(items) => write_sequence('[', items, "]", out),
            Value::Tuple(items) | Value::Group(items) => {
                let end = if items.len() == 1 { ",)" } else { ")" };
                write_sequence('(', items, end, out);
            }
            Value::Dict(dict) => dict.write_repr(out),
            Value::View(kind, dict) => {
                let (name, items) = match kind {
                    ViewKind::Keys => ("dict_keys", dict.keys()),
                    ViewKind::Values => ("dict_values", dict.values()),
                    ViewKind::Items => ("dict_items", dict.items()),
                };
                out.push_str(name);
                out.push('(');
                write_sequence('[', &items, "])", out);
            }
            Value::Range(Range { start, stop, step: 1 }) => {
                out.push_str(&format!("range({start}, {stop})"));
            }
            Value::Range(Range { start, stop, step }) => {
                out.push_str(&format!("range({start}, {stop}, {step})"));
            }
            Value::Namespace(dict) => {
                out.push_str("<Namespace ");
                dict.borrow().write_repr(out);
                out.push('>');
            }
            Value::Loop(loop_) => {
                let (index, length) = (loop_.index.get() + 1, loop_.items.len());
                out.push_str(&format!("<LoopContext {index}/{length}>"));
            }
            Value::Macro(macro_) => {
                out.push_str("<Macro ");
                str_repr(&macro_.def.name.name, out);
                out.push('>');
            }
            Value::Iter(_) => out.push_str("<generator object>"),
            Value::Function(function) => out.push_str(&format!("<function {}>", function.name())),
            Value::Method(method) => out.push_str(&format!("<method {}>", &*method.1)),
            Value::Cycler(_) => out.push_str("<Cycler>"),
            Value::Joiner(_) => out.push_str("<Joiner>"),
        }
    }
}

impl<'a> Dict<'a> {
    pub(crate) fn keys(&self) -> Vec<Value<'a>> {
        self.entries.iter().map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn values(&self) -> Vec<Value<'a>> {
        self.entries.iter().map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn items(&self) -> Vec<Value<'a>> {
        let pair =
            |(key, value): &(Value<'a>, Value<'a>)| Value::tuple(vec![key.clone(), value.clone()]);
        self.entries.iter().map(pair).collect()
    }

    fn write_repr(&self, out: &mut String) {
        out.push('{');
        for (i, (key, value)) in self.entries.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            key.write_repr(out);
            out.push_str(": ");
            value.write_repr(out);
        }
        out.push('}');
    }
}

/// Whether a float is exactly this integer, also where the integer has more digits than a float.
fn float_is_int(x: f64, n: i128) -> bool {
    x.fract() == 0.0 && x.abs() < 1.7e38 && x as i128 == n
}

fn write_sequence(open: char, items: &[Value<'_>], close: &str, out: &mut String) {
    out.push(open);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        item.write_repr(out);
    }
    out.push_str(close);
}
