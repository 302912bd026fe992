//! `json.dumps`, which is what the `tojson` filter of transformers calls.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::error::{Result, type_error, value_error};
use super::ops::{order, undefined_error};
use super::python::float_repr;
use super::repr::write_int;
use super::value::Value;

/// The arguments of `tojson`.
#[derive(Debug)]
pub(crate) struct Format<'a> {
    pub(crate) ensure_ascii: bool,
    /// The text of one level of indentation; `None` keeps everything on one line.
    pub(crate) indent: Option<&'a str>,
    pub(crate) item_separator: &'a str,
    pub(crate) key_separator: &'a str,
    pub(crate) sort_keys: bool,
}

impl<'a> Format<'a> {
    /// Writes the JSON to the end of `out`.
    pub(crate) fn dump(&self, value: &Value<'a>, out: &mut String) -> Result<()> {
        self.write(value, 0, out)
    }

    fn write(&self, value: &Value<'a>, level: usize, out: &mut String) -> Result<()> {
        if level > 200 {
            return Err(value_error("a value is nested deeper than 200 levels"));
        }
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Value::Int(n) => write_int(n.get(), out),
            Value::Float(x) => out.push_str(&number(*x)),
            Value::Str(text) | Value::Markup(text) => self.write_str(text, out),
            Value::List(items) | Value::Tuple(items) => {
                self.write_items('[', ']', items.len(), level, out, |i, out| {
                    self.write(&items[i], level + 1, out)
                })?;
            }
            Value::Dict(dict) => {
                let mut entries = Cow::Borrowed(dict.entries);
                if self.sort_keys {
                    let mut failed = None;
                    entries.to_mut().sort_by(|(a, _), (b, _)| match order(a, b, "<") {
                        Ok(order) => order.unwrap_or(std::cmp::Ordering::Equal),
                        Err(error) => {
                            failed = Some(error);
                            std::cmp::Ordering::Equal
                        }
                    });
                    if let Some(error) = failed {
                        return Err(error);
                    }
                }
                self.write_items('{', '}', entries.len(), level, out, |i, out| {
                    let (key, value) = &entries[i];
                    match key {
                        Value::Str(key) | Value::Markup(key) => self.write_str(key, out),
                        Value::None => out.push_str("\"null\""),
                        Value::Bool(b) => out.push_str(if *b { "\"true\"" } else { "\"false\"" }),
                        Value::Int(n) => {
                            let _ = write!(out, "\"{}\"", n.get());
                        }
                        Value::Float(x) => {
                            let _ = write!(out, "\"{}\"", number(*x));
                        }
                        key => {
                            let name = key.type_name().as_str();
                            let message = format!(
                                "keys of JSON must be str, int, float, bool or None, not {name}"
                            );
                            return Err(type_error(message));
                        }
                    }
                    out.push_str(self.key_separator);
                    self.write(value, level + 1, out)
                })?;
            }
            value if value.is_undefined() => {
                let reason = undefined_error(value);
                let reason = reason.message();
                let message = format!("an undefined value is not JSON serializable ({reason})");
                return Err(type_error(message));
            }
            value => {
                let name = value.type_name().as_str();
                return Err(type_error(format!("object of type {name} is not JSON serializable")));
            }
        }
        Ok(())
    }

    fn write_items(
        &self,
        open: char,
        close: char,
        len: usize,
        level: usize,
        out: &mut String,
        mut write: impl FnMut(usize, &mut String) -> Result<()>,
    ) -> Result<()> {
        let newline = |level: usize, out: &mut String| {
            if let Some(indent) = self.indent {
                out.push('\n');
                (0..level).for_each(|_| out.push_str(indent));
            }
        };
        out.push(open);
        for i in 0..len {
            if i > 0 {
                out.push_str(self.item_separator);
            }
            newline(level + 1, out);
            write(i, out)?;
        }
        if len > 0 {
            newline(level, out);
        }
        out.push(close);
        Ok(())
    }

    fn write_str(&self, text: &str, out: &mut String) {
        out.push('"');
        let mut from = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte >= b' ' && !matches!(byte, b'"' | b'\\' | 0x7f) {
                continue;
            }
            // Only ASCII bytes are replaced here, so slices stay on character borders.
            let escape = match byte {
                0x7f if self.ensure_ascii => "",
                b'"' => "\\\"",
                b'\\' => "\\\\",
                b'\n' => "\\n",
                b'\r' => "\\r",
                b'\t' => "\\t",
                0x08 => "\\b",
                0x0c => "\\f",
                0..0x20 => "",
                _ => continue,
            };
            self.push(&text[from..at], out);
            if escape.is_empty() {
                let _ = write!(out, "\\u{byte:04x}");
            } else {
                out.push_str(escape);
            }
            from = at + 1;
        }
        self.push(&text[from..], out);
        out.push('"');
    }

    fn push(&self, text: &str, out: &mut String) {
        if !self.ensure_ascii || text.is_ascii() {
            out.push_str(text);
            return;
        }
        for c in text.chars() {
            if c.is_ascii() {
                out.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}

fn number(x: f64) -> String {
    if x.is_nan() {
        "NaN".into()
    } else if x.is_infinite() {
        if x > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        float_repr(x)
    }
}
