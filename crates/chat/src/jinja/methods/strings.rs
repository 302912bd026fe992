//! The methods of `str` and `Markup`.

use bumpalo::Bump;

use super::casing::{capitalize, casefold, is_cased, is_title_text, lower, swapcase, title};
use super::format;
use super::search::{affix, find, partition, replace, split, strip};
use crate::jinja::args::{Args, int, int_or, text};
use crate::jinja::error::{Result, type_error};
use crate::jinja::ops::{escape, escaped, iterate};
use crate::jinja::python::{is_alpha, is_decimal, is_digit, is_numeric, is_printable};
use crate::jinja::value::Value;

/// Every public attribute of Python's `str`.
pub(super) const NAMES: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

pub(super) fn call<'a>(
    arena: &'a Bump,
    this: &'a str,
    markup: bool,
    name: &str,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let wrap = |text: &'a str| if markup { Value::Markup(text) } else { Value::Str(text) };
    let same = |text: String| Ok(wrap(arena.alloc_str(&text)));
    let list = |parts: Vec<&'a str>| {
        Ok(Value::List(arena.alloc_slice_fill_iter(parts.into_iter().map(wrap))))
    };
    match name {
        "strip" | "lstrip" | "rstrip" => Ok(wrap(strip(this, name, args)?)),
        "split" => list(split(this, false, args)?),
        "rsplit" => list(split(this, true, args)?),
        "partition" => Ok(Value::tuple(arena, partition(this, false, args)?.map(wrap))),
        "rpartition" => Ok(Value::tuple(arena, partition(this, true, args)?.map(wrap))),
        "startswith" | "endswith" => Ok(Value::Bool(affix(this, name, args)?)),
        "find" | "rfind" | "index" | "rindex" | "count" => find(this, name, args),
        "replace" => {
            let [old, new, count] = args.bind(name, ["", "", ""], 2)?;
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            let count = int_or(name, count.as_ref(), -1)?;
            text(name, &new)?;
            let new = if markup { escaped(arena, &new) } else { new.to_str(arena) };
            same(replace(this, text(name, &old)?, new, count))
        }
        "splitlines" => {
            let [keep] = args.bind(name, ["keepends"], 0)?;
            let keep = keep.is_some_and(|keep| keep.is_true());
            list(split_lines(this, keep))
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = args.bind(name, [""], 1)?.map(Option::unwrap_or_default);
            let affix = text(name, &affix)?;
            let rest = if name == "removeprefix" {
                this.strip_prefix(affix)
            } else {
                this.strip_suffix(affix)
            };
            Ok(wrap(rest.unwrap_or(this)))
        }
        "join" => {
            let [items] = args.bind(name, [""], 1)?.map(Option::unwrap_or_default);
            let mut out = String::new();
            for (i, item) in iterate(arena, &items)?.iter().enumerate() {
                if i > 0 {
                    out.push_str(this);
                }
                match item {
                    item if markup => out.push_str(escaped(arena, item)),
                    Value::Str(item) | Value::Markup(item) => out.push_str(item),
                    item => {
                        let found = item.type_name().as_str();
                        let message =
                            format!("sequence item {i}: expected str instance, {found} found");
                        return Err(type_error(message));
                    }
                }
            }
            same(out)
        }
        "format" => same(format::format(arena, this, args, markup)?),
        "format_map" => {
            let [mapping] = args.bind(name, [""], 1)?.map(Option::unwrap_or_default);
            let Value::Dict(dict) = &mapping else {
                return Err(type_error("format_map() wants a dict"));
            };
            let keyword = dict.entries.iter().map(|(k, v)| (k.to_str(arena), *v));
            let keyword = arena.alloc_slice_fill_iter(keyword);
            same(format::format(arena, this, Args { positional: &[], keyword }, markup)?)
        }
        "center" | "ljust" | "rjust" => {
            let [width, fill] = args.bind(name, ["", ""], 1)?;
            let width = int(name, &width.unwrap_or_default())?;
            let fill = match &fill {
                None => ' ',
                Some(fill) => {
                    let fill = text(name, fill)?;
                    let mut chars = fill.chars();
                    match (chars.next(), chars.next()) {
                        (Some(c), None) => c,
                        _ => {
                            return Err(type_error(
                                "the fill character must be one character long",
                            ));
                        }
                    }
                }
            };
            same(pad(this, width, fill, name, markup))
        }
        "zfill" => {
            let [width] = args.bind(name, [""], 1)?.map(Option::unwrap_or_default);
            let missing = int(name, &width)? - this.chars().count() as i128;
            let zeros = "0".repeat(usize::try_from(missing).unwrap_or(0));
            let sign = usize::from(this.starts_with(['+', '-']));
            same(format!("{}{zeros}{}", &this[..sign], &this[sign..]))
        }
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"], 0)?;
            same(expand_tabs(this, int_or(name, size.as_ref(), 8)?))
        }
        _ => {
            args.none(name)?;
            let all = |test: fn(char) -> bool| {
                Ok(Value::Bool(!this.is_empty() && this.chars().all(test)))
            };
            match name {
                "lower" => same(lower(this)),
                "upper" => same(this.to_uppercase()),
                "capitalize" => same(capitalize(this)),
                "title" => same(title(this)),
                "swapcase" => same(swapcase(this)),
                "casefold" => same(casefold(this)),
                "isalnum" => all(|c| is_alpha(c) || is_numeric(c)),
                "isalpha" => all(is_alpha),
                "isdecimal" => all(is_decimal),
                "isdigit" => all(is_digit),
                "isnumeric" => all(is_numeric),
                "isspace" => all(crate::jinja::python::is_space),
                "isascii" => Ok(Value::Bool(this.is_ascii())),
                "isprintable" => Ok(Value::Bool(this.chars().all(is_printable))),
                "istitle" => Ok(Value::Bool(is_title_text(this))),
                "islower" => {
                    let mut cased = this.chars().filter(|&c| is_cased(c)).peekable();
                    let any = cased.peek().is_some();
                    Ok(Value::Bool(any && cased.all(char::is_lowercase)))
                }
                "isupper" => {
                    let mut cased = this.chars().filter(|&c| is_cased(c)).peekable();
                    let any = cased.peek().is_some();
                    Ok(Value::Bool(any && cased.all(char::is_uppercase)))
                }
                "isidentifier" => {
                    let mut chars = this.chars();
                    let first = chars.next().is_some_and(|c| c == '_' || is_alpha(c));
                    Ok(Value::Bool(first && chars.all(|c| c == '_' || c.is_alphanumeric())))
                }
                _ => Err(type_error(format!(
                    "the method 'str.{name}' is not supported in chat templates"
                ))),
            }
        }
    }
}

fn pad(this: &str, width: i128, fill: char, name: &str, markup: bool) -> String {
    let len = this.chars().count();
    let width = usize::try_from(width).unwrap_or(0).min(1 << 24);
    let missing = width.saturating_sub(len);
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // CPython puts the odd space left when the width is odd.
        _ => missing / 2 + (missing & width & 1),
    };
    let fill = if markup { escape(&fill.to_string()) } else { fill.to_string() };
    format!("{}{this}{}", fill.repeat(left), fill.repeat(missing - left))
}

fn expand_tabs(this: &str, size: i128) -> String {
    let size = usize::try_from(size).unwrap_or(0);
    let mut out = String::with_capacity(this.len());
    let mut column = 0;
    for c in this.chars() {
        match c {
            '\t' if size > 0 => {
                let spaces = size - column % size;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\t' => {}
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

/// `str.splitlines`
pub(crate) fn split_lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        ) {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.next_if(|(_, next)| *next == '\n').is_some() {
            end += 1;
        }
        lines.push(&text[start..if keep_ends { end } else { at }]);
        start = end;
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}
