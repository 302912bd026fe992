//! Splitting, finding and stripping.

use crate::jinja::args::{Args, int, int_or, text};
use crate::jinja::error::{Result, type_error, value_error};
use crate::jinja::python::is_space;
use crate::jinja::value::Value;

/// `split` and `rsplit`.
pub(super) fn split<'a>(this: &'a str, from_right: bool, args: Args<'a>) -> Result<Vec<&'a str>> {
    let name = if from_right { "rsplit" } else { "split" };
    let [separator, max] = args.bind(name, ["sep", "maxsplit"], 0)?;
    let max = int_or(name, max.as_ref(), -1)?;
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let mut parts: Vec<&'a str> = Vec::new();
    match separator {
        None | Some(Value::None) => {
            let mut rest = this;
            if from_right {
                while !rest.trim_end_matches(is_space).is_empty() {
                    rest = rest.trim_end_matches(is_space);
                    if parts.len() == max {
                        parts.push(rest);
                        break;
                    }
                    let start = rest.char_indices().rev().find(|(_, c)| is_space(*c));
                    let start = start.map_or(0, |(at, c)| at + c.len_utf8());
                    parts.push(&rest[start..]);
                    rest = &rest[..start];
                }
            } else {
                while !rest.trim_start_matches(is_space).is_empty() {
                    rest = rest.trim_start_matches(is_space);
                    if parts.len() == max {
                        parts.push(rest);
                        break;
                    }
                    let end = rest.find(is_space).unwrap_or(rest.len());
                    parts.push(&rest[..end]);
                    rest = &rest[end..];
                }
            }
        }
        Some(separator) => {
            let separator = text(name, &separator)?;
            if separator.is_empty() {
                return Err(value_error("empty separator"));
            }
            let limit = max.saturating_add(1);
            if from_right {
                parts.extend(this.rsplitn(limit, separator));
            } else {
                parts.extend(this.splitn(limit, separator));
            }
        }
    }
    if from_right {
        parts.reverse();
    }
    Ok(parts)
}

/// `partition` and `rpartition`.
pub(super) fn partition<'a>(
    this: &'a str,
    from_right: bool,
    args: Args<'a>,
) -> Result<[&'a str; 3]> {
    let name = if from_right { "rpartition" } else { "partition" };
    let [separator] = args.bind(name, [""], 1)?.map(Option::unwrap_or_default);
    let separator = text(name, &separator)?;
    if separator.is_empty() {
        return Err(value_error("empty separator"));
    }
    let found = if from_right { this.rfind(separator) } else { this.find(separator) };
    Ok(match found {
        Some(at) => {
            let end = at + separator.len();
            [&this[..at], &this[at..end], &this[end..]]
        }
        None if from_right => ["", "", this],
        None => [this, "", ""],
    })
}

/// The part of a text between two character positions, and the first position.
fn window<'t>(
    name: &str,
    this: &'t str,
    bounds: [Option<Value<'_>>; 2],
) -> Result<(Option<&'t str>, usize)> {
    if bounds.iter().all(|bound| matches!(bound, None | Some(Value::None))) {
        return Ok((Some(this), 0));
    }
    let len = this.chars().count() as i128;
    let mut at = [0, len];
    for (at, bound) in at.iter_mut().zip(&bounds) {
        if let Some(bound) = bound.as_ref().filter(|bound| !matches!(bound, Value::None)) {
            let bound = int(name, bound)?;
            *at = (if bound < 0 { bound + len } else { bound }).max(0);
        }
    }
    let [start, stop] = [at[0], at[1].min(len)];
    if start > stop || start > len {
        return Ok((None, 0));
    }
    let byte = |n: i128| this.char_indices().nth(n as usize).map_or(this.len(), |(at, _)| at);
    Ok((Some(&this[byte(start)..byte(stop)]), start as usize))
}

/// `find`, `rfind`, `index`, `rindex` and `count`.
pub(super) fn find<'a>(this: &str, name: &str, args: Args<'a>) -> Result<Value<'a>> {
    let [needle, start, stop] = args.bind(name, ["", "", ""], 1)?;
    let needle = needle.unwrap_or_default();
    let needle = text(name, &needle)?;
    let (window, offset) = window(name, this, [start, stop])?;
    let Some(window) = window else {
        return match name {
            "count" => Ok(Value::int(0)),
            "find" | "rfind" => Ok(Value::int(-1)),
            _ => Err(value_error("substring not found")),
        };
    };
    let found = match name {
        "count" if needle.is_empty() => {
            return Ok(Value::int(window.chars().count() as i128 + 1));
        }
        "count" => return Ok(Value::int(window.matches(needle).count() as i128)),
        "find" | "index" => window.find(needle),
        _ => window.rfind(needle),
    };
    match found {
        Some(at) => Ok(Value::int((offset + window[..at].chars().count()) as i128)),
        None if name.ends_with("index") => Err(value_error("substring not found")),
        None => Ok(Value::int(-1)),
    }
}

/// `startswith` and `endswith`, of a text or of any in a tuple.
pub(super) fn affix(this: &str, name: &str, args: Args<'_>) -> Result<bool> {
    let [affix, start, stop] = args.bind(name, ["", "", ""], 1)?;
    let affix = affix.unwrap_or_default();
    let (window, _) = window(name, this, [start, stop])?;
    let test = |affix: &Value<'_>| -> Result<bool> {
        let Some(affix) = affix.as_str() else {
            let found = affix.type_name().as_str();
            let message = format!("{name} first arg must be str or a tuple of str, not {found}");
            return Err(type_error(message));
        };
        Ok(window.is_some_and(|window| {
            if name == "startswith" { window.starts_with(affix) } else { window.ends_with(affix) }
        }))
    };
    match &affix {
        Value::Tuple(items) => {
            for item in *items {
                if test(item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        affix => test(affix),
    }
}

/// `strip`, `lstrip` and `rstrip`.
pub(super) fn strip<'a>(this: &'a str, name: &str, args: Args<'a>) -> Result<&'a str> {
    let [chars] = args.bind(name, [""], 0)?;
    let chars = match &chars {
        None | Some(Value::None) => None,
        Some(chars) => Some(text(name, chars)?),
    };
    let test = |c: char| match chars {
        None => is_space(c),
        Some(chars) => chars.contains(c),
    };
    let stripped = match name {
        "lstrip" => this.trim_start_matches(test),
        "rstrip" => this.trim_end_matches(test),
        _ => this.trim_matches(test),
    };
    Ok(stripped)
}

/// `replace`
pub(super) fn replace(this: &str, old: &str, new: &str, count: i128) -> String {
    match usize::try_from(count) {
        Ok(count) => this.replacen(old, new, count),
        Err(_) => this.replace(old, new),
    }
}
