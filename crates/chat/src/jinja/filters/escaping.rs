//! Filters that quote: HTML, JSON, URLs.

use std::fmt::Write as _;

use crate::jinja::args::{Args, int, text};
use crate::jinja::error::{Result, type_error, value_error};
use crate::jinja::interp::Interp;
use crate::jinja::json::Format;
use crate::jinja::ops::{escape as escape_text, escaped, iterate};
use crate::jinja::python::is_space;
use crate::jinja::value::Value;

pub(super) fn escape<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("escape")?;
    Ok(Value::Markup(escaped(interp.arena, &value)))
}

pub(super) fn forceescape<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("forceescape")?;
    Ok(Value::Markup(interp.arena.alloc_str(&escape_text(&value.text()))))
}

pub(super) fn safe<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("safe")?;
    Ok(Value::Markup(value.to_str(interp.arena)))
}

/// `json.dumps`, the version of transformers.
pub(super) fn tojson<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ensure_ascii, indent, separators, sort_keys] = args.bind("tojson", names, 0)?;
    let indent = match &indent {
        None | Some(Value::None) => None,
        Some(Value::Str(indent) | Value::Markup(indent)) => Some(*indent),
        Some(width) => {
            let width = int("tojson", width)?.clamp(0, 1000);
            Some(&*interp.arena.alloc_str(&" ".repeat(width as usize)))
        }
    };
    let item_separator = if indent.is_some() { "," } else { ", " };
    let (item_separator, key_separator) = match &separators {
        None | Some(Value::None) => (item_separator, ": "),
        Some(pair) => {
            let pair = iterate(interp.arena, pair)?;
            let [item, key] = pair else {
                return Err(value_error(format!("separators wants 2 texts, found {}", pair.len())));
            };
            (text("tojson", item)?, text("tojson", key)?)
        }
    };
    let truth = |value: Option<Value<'a>>| value.is_some_and(|value| value.is_true());
    let format = Format {
        ensure_ascii: truth(ensure_ascii),
        indent,
        item_separator,
        key_separator,
        sort_keys: truth(sort_keys),
    };
    interp.written(|out| format.dump(&value, out))
}

/// Removes tags and comments and joins the rest with single spaces.
pub(super) fn striptags<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("striptags")?;
    let mut text = value.text().into_owned();
    while let Some(start) = text.find("<!--") {
        let Some(end) = text[start..].find("-->") else { break };
        text.replace_range(start..start + end + 3, "");
    }
    while let Some(start) = text.find('<') {
        let Some(end) = text[start..].find('>') else { break };
        text.replace_range(start..=start + end, "");
    }
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    Ok(Value::string(interp.arena, unescape(&words.join(" "))))
}

/// `html.unescape` for the entities that escaping writes, and numeric ones.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(';').unwrap_or(0);
        let c = match rest.get(1..end) {
            Some("amp") => Some('&'),
            Some("lt") => Some('<'),
            Some("gt") => Some('>'),
            Some("quot") => Some('"'),
            Some("apos") => Some('\''),
            Some("nbsp") => Some('\u{a0}'),
            Some(entity) => entity.strip_prefix('#').and_then(|number| {
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)
            }),
            None => None,
        };
        if let Some(c) = c {
            out.push(c);
            rest = &rest[end + 1..];
        } else {
            out.push('&');
            rest = &rest[1..];
        }
    }
    out + rest
}

pub(super) fn urlencode<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("urlencode")?;
    let pairs = match &value {
        Value::Dict(dict) => dict.items(interp.arena),
        Value::List(_)
        | Value::Tuple(_)
        | Value::Group(_)
        | Value::Range(_)
        | Value::Iter(_)
        | Value::View(..) => iterate(interp.arena, &value)?,
        value => return Ok(Value::string(interp.arena, quote(&value.text(), false))),
    };
    let mut out = String::new();
    for pair in pairs {
        let pair = iterate(interp.arena, pair)?;
        let [key, value] = pair else {
            return Err(type_error("urlencode wants pairs"));
        };
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(&quote(&key.text(), true));
        out.push('=');
        out.push_str(&quote(&value.text(), true));
    }
    Ok(Value::string(interp.arena, out))
}

/// Percent-encoding; in a query string a space is `+` and a slash is quoted.
fn quote(text: &str, query: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(byte as char);
            }
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}
