//! `repr(value)`.

use std::fmt::Write as _;

use super::python::{float_repr, str_repr};
use super::value::{Range, Value, ViewKind};

/// `repr(value)`, written to the end of `out`.
pub(crate) fn write_repr(value: &Value<'_>, out: &mut String) {
    match value {
        Value::Unset | Value::Undefined(..) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(n) => write_int(n.get(), out),
        Value::Float(x) => out.push_str(&float_repr(*x)),
        Value::Str(text) => str_repr(text, out),
        Value::Markup(text) => {
            out.push_str("Markup(");
            str_repr(text, out);
            out.push(')');
        }
        Value::List(items) => write_sequence("[", items.iter().copied(), "]", out),
        Value::Tuple(items) | Value::Group(items) => {
            let end = if items.len() == 1 { ",)" } else { ")" };
            write_sequence("(", items.iter().copied(), end, out);
        }
        Value::Dict(dict) => write_entries(dict.entries.iter().copied(), out),
        Value::View(ViewKind::Keys, dict) => {
            write_sequence("dict_keys([", dict.entries.iter().map(|(key, _)| *key), "])", out);
        }
        Value::View(ViewKind::Values, dict) => {
            write_sequence("dict_values([", dict.entries.iter().map(|(_, v)| *v), "])", out);
        }
        Value::View(ViewKind::Items, dict) => {
            out.push_str("dict_items([");
            for (i, (key, value)) in dict.entries.iter().enumerate() {
                out.push_str(if i > 0 { ", (" } else { "(" });
                write_repr(key, out);
                out.push_str(", ");
                write_repr(value, out);
                out.push(')');
            }
            out.push_str("])");
        }
        Value::Range(Range { start, stop, step: 1 }) => {
            let _ = write!(out, "range({start}, {stop})");
        }
        Value::Range(Range { start, stop, step }) => {
            let _ = write!(out, "range({start}, {stop}, {step})");
        }
        Value::Namespace(namespace) => {
            out.push_str("<Namespace ");
            write_entries(namespace.entries(), out);
            out.push('>');
        }
        Value::Loop(loop_) => {
            let (index, length) = (loop_.index.get() + 1, loop_.items.len());
            let _ = write!(out, "<LoopContext {index}/{length}>");
        }
        Value::Macro(macro_) => {
            out.push_str("<Macro ");
            str_repr(&macro_.def.name.name, out);
            out.push('>');
        }
        Value::Iter(_) => out.push_str("<generator object>"),
        Value::Function(function) => {
            let _ = write!(out, "<function {}>", function.name());
        }
        Value::Method(method) => {
            let _ = write!(out, "<method {}>", method.1);
        }
        Value::Cycler(_) => out.push_str("<Cycler>"),
        Value::Joiner(_) => out.push_str("<Joiner>"),
    }
}

/// Almost every integer has 64 bits, which are written faster.
pub(crate) fn write_int(n: i128, out: &mut String) {
    let _ = match i64::try_from(n) {
        Ok(n) => write!(out, "{n}"),
        Err(_) => write!(out, "{n}"),
    };
}

fn write_entries<'a>(entries: impl Iterator<Item = (Value<'a>, Value<'a>)>, out: &mut String) {
    out.push('{');
    for (i, (key, value)) in entries.enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write_repr(&key, out);
        out.push_str(": ");
        write_repr(&value, out);
    }
    out.push('}');
}

fn write_sequence<'a>(
    open: &str,
    items: impl Iterator<Item = Value<'a>>,
    close: &str,
    out: &mut String,
) {
    out.push_str(open);
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write_repr(&item, out);
    }
    out.push_str(close);
}
