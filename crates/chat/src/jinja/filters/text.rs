//! Filters over text.

use crate::jinja::args::{Args, int, int_or, text};
use crate::jinja::error::{Result, runtime, type_error};
use crate::jinja::interp::Interp;
use crate::jinja::methods::{self, split_lines};
use crate::jinja::ops::undefined_error;
use crate::jinja::percent;
use crate::jinja::python::is_space;
use crate::jinja::value::{Dict, Str, Value};

/// `markupsafe.soft_str`: the text of a value; markup stays markup.
fn soft<'a>(value: Value<'a>) -> Value<'a> {
    match value {
        Value::Str(_) | Value::Markup(_) => value,
        value => Value::Str(value.to_str()),
    }
}

/// Wraps a result as the input was: plain text or markup.
fn like<'a>(input: &Value<'a>, text: Str<'a>) -> Value<'a> {
    match input {
        Value::Markup(_) => Value::Markup(text),
        _ => Value::Str(text),
    }
}

fn method<'a>(value: Value<'a>, name: &str, args: Args<'a>) -> Result<Value<'a>> {
    methods::call(&soft(value), name, args)
}

pub(super) fn capitalize<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    method(value, "capitalize", args)
}

pub(super) fn lower<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    method(value, "lower", args)
}

pub(super) fn upper<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    method(value, "upper", args)
}

pub(super) fn center<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [width] = args.bind("center", ["width"], 0)?;
    let positional = vec![width.unwrap_or(Value::Int(80))];
    method(value, "center", Args { positional, keyword: Vec::new() })
}

pub(super) fn trim<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    let [chars] = args.bind("trim", ["chars"], 0)?;
    let positional = chars.into_iter().collect();
    method(value, "strip", Args { positional, keyword: Vec::new() })
}

pub(super) fn string<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("string")?;
    Ok(soft(value))
}

/// `"%s, %s" | format(a, b)`
pub(super) fn format<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    if !args.positional.is_empty() && !args.keyword.is_empty() {
        return Err(runtime("can't handle positional and keyword arguments at the same time"));
    }
    let arguments = if args.keyword.is_empty() {
        Value::tuple(args.positional)
    } else {
        let mut dict = Dict::default();
        for (key, value) in args.keyword {
            dict.insert(Value::Str(key), value);
        }
        Value::dict(dict)
    };
    let value = soft(value);
    let markup = matches!(value, Value::Markup(_));
    let formatted = percent::format(&value.to_str(), &arguments, markup)?;
    Ok(like(&value, formatted.into()))
}

pub(super) fn replace<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [old, new, count] = args.bind("replace", ["old", "new", "count"], 2)?;
    let (old, new) = (old.unwrap_or_default().to_str(), new.unwrap_or_default().to_str());
    let count = count.filter(|count| !matches!(count, Value::None)).unwrap_or(Value::Int(-1));
    let positional = vec![Value::Str(old), Value::Str(new), count];
    // Always plain text: without autoescaping Jinja2 drops the markup here.
    methods::call(&Value::Str(value.to_str()), "replace", Args { positional, keyword: Vec::new() })
}

/// Upper-cases the first letter of every word; words also start after `-`, `(`, `{`, `[` and `<`.
pub(super) fn title<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    args.none("title")?;
    let value = value.to_str();
    let mut out = String::with_capacity(value.len());
    let mut start_of_word = true;
    let separates = |c: char| is_space(c) || "-({[<".contains(c);
    let mut word = String::new();
    for c in value.chars() {
        if separates(c) {
            out.push_str(&word.to_lowercase());
            word.clear();
            out.push(c);
            start_of_word = true;
        } else if start_of_word {
            out.extend(c.to_uppercase());
            start_of_word = false;
        } else {
            word.push(c);
        }
    }
    out.push_str(&word.to_lowercase());
    Ok(Value::string(out))
}

pub(super) fn indent<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"], 0)?;
    let indention = match &width {
        Some(Value::Str(indention) | Value::Markup(indention)) => indention.to_string(),
        width => " ".repeat(int_or("indent", width.as_ref(), 4)?.clamp(0, 10_000) as usize),
    };
    let (first, blank) = (first.is_some_and(|v| v.is_true()), blank.is_some_and(|v| v.is_true()));
    if value.is_undefined() {
        return Err(undefined_error(&value));
    }
    let Some(body) = value.as_str() else {
        let found = value.type_name().as_str();
        return Err(type_error(format!("indent wants a str, found {found}")));
    };
    let mut out = if first { indention.clone() } else { String::new() };
    let body = format!("{}\n", &**body);
    for (i, line) in split_lines(&body, false).into_iter().enumerate() {
        if i > 0 {
            out.push('\n');
            if blank || !line.is_empty() {
                out.push_str(&indention);
            }
        }
        out.push_str(line);
    }
    Ok(like(&value, out.into()))
}

pub(super) fn truncate<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, killwords, end, leeway] = args.bind("truncate", names, 0)?;
    let length = int_or("truncate", length.as_ref(), 255)?;
    let end = end.unwrap_or(Value::str("..."));
    let end = text("truncate", &end)?;
    let leeway = match &leeway {
        None | Some(Value::None) => 5,
        Some(leeway) => int("truncate", leeway)?,
    };
    let end_len = end.chars().count() as i128;
    if length < end_len || leeway < 0 {
        let message = format!("truncate wants a length of at least {end_len}, found {length}");
        return Err(runtime(message));
    }
    let Some(body) = value.as_str() else {
        return match &value {
            value if value.is_undefined() => Ok(value.clone()),
            value => Err(type_error(format!(
                "truncate wants a str, found {}",
                value.type_name().as_str()
            ))),
        };
    };
    if body.chars().count() as i128 <= length + leeway {
        return Ok(value);
    }
    let kept: String = body.chars().take((length - end_len) as usize).collect();
    let kept = if killwords.is_some_and(|killwords| killwords.is_true()) {
        &kept[..]
    } else {
        kept.rsplit_once(' ').map_or(&kept[..], |(kept, _)| kept)
    };
    Ok(like(&value, format!("{kept}{}", &**end).into()))
}
