//! Filters over text.

use bumpalo::Bump;

use crate::jinja::args::{Args, int, int_or, text};
use crate::jinja::error::{Result, runtime, type_error};
use crate::jinja::interp::Interp;
use crate::jinja::methods::{self, split_lines};
use crate::jinja::ops::{len, undefined_error};
use crate::jinja::percent;
use crate::jinja::python::is_space;
use crate::jinja::value::{DictBuilder, Value};

/// `markupsafe.soft_str`: the text of a value; markup stays markup.
fn soft<'a>(arena: &'a Bump, value: Value<'a>) -> Value<'a> {
    match value {
        Value::Str(_) | Value::Markup(_) => value,
        value => Value::Str(value.to_str(arena)),
    }
}

/// Wraps a result as the input was: plain text or markup.
fn like<'a>(input: &Value<'a>, text: &'a str) -> Value<'a> {
    match input {
        Value::Markup(_) => Value::Markup(text),
        _ => Value::Str(text),
    }
}

fn method<'a>(arena: &'a Bump, value: Value<'a>, name: &str, args: Args<'a>) -> Result<Value<'a>> {
    methods::call(arena, &soft(arena, value), name, args)
}

pub(super) fn capitalize<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    method(interp.arena, value, "capitalize", args)
}

pub(super) fn lower<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    method(interp.arena, value, "lower", args)
}

pub(super) fn upper<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    method(interp.arena, value, "upper", args)
}

pub(super) fn center<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [width] = args.bind("center", ["width"], 0)?;
    let positional = interp.arena.alloc([width.unwrap_or(Value::int(80))]);
    method(interp.arena, value, "center", Args::positional(positional))
}

pub(super) fn trim<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [chars] = args.bind("trim", ["chars"], 0)?;
    let positional = chars.map_or(&[][..], |chars| interp.arena.alloc([chars]));
    method(interp.arena, value, "strip", Args::positional(positional))
}

pub(super) fn string<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("string")?;
    Ok(soft(interp.arena, value))
}

/// `"%s, %s" | format(a, b)`
pub(super) fn format<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    if !args.positional.is_empty() && !args.keyword.is_empty() {
        return Err(runtime("can't handle positional and keyword arguments at the same time"));
    }
    let arguments = if args.keyword.is_empty() {
        Value::Tuple(args.positional)
    } else {
        let mut dict = DictBuilder::new(interp.arena, args.keyword.len());
        for &(key, value) in args.keyword {
            dict.insert(Value::Str(key), value);
        }
        Value::Dict(dict.finish())
    };
    let value = soft(interp.arena, value);
    let markup = matches!(value, Value::Markup(_));
    let formatted = percent::format(&value.text(), &arguments, markup)?;
    Ok(like(&value, interp.arena.alloc_str(&formatted)))
}

pub(super) fn replace<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [old, new, count] = args.bind("replace", ["old", "new", "count"], 2)?;
    let old = old.unwrap_or_default().to_str(interp.arena);
    let new = new.unwrap_or_default().to_str(interp.arena);
    let count = count.filter(|count| !matches!(count, Value::None)).unwrap_or(Value::int(-1));
    let positional = interp.arena.alloc([Value::Str(old), Value::Str(new), count]);
    // Always plain text: without autoescaping Jinja2 drops the markup here.
    let value = Value::Str(value.to_str(interp.arena));
    methods::call(interp.arena, &value, "replace", Args::positional(positional))
}

/// Upper-cases the first letter of every word; words also start after `-`, `(`, `{`, `[` and `<`.
pub(super) fn title<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("title")?;
    let value = value.to_str(interp.arena);
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
    Ok(Value::string(interp.arena, out))
}

pub(super) fn indent<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"], 0)?;
    let indention = match &width {
        Some(Value::Str(indention) | Value::Markup(indention)) => (*indention).to_owned(),
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
    let body = format!("{body}\n");
    for (i, line) in split_lines(&body, false).into_iter().enumerate() {
        if i > 0 {
            out.push('\n');
            if blank || !line.is_empty() {
                out.push_str(&indention);
            }
        }
        out.push_str(line);
    }
    Ok(like(&value, interp.arena.alloc_str(&out)))
}

pub(super) fn truncate<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, killwords, end, leeway] = args.bind("truncate", names, 0)?;
    let length = int_or("truncate", length.as_ref(), 255)?;
    let end = end.unwrap_or(Value::Str("..."));
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
    if len(&value)? as i128 <= length + leeway {
        return Ok(value);
    }
    let Some(body) = value.as_str() else {
        let found = value.type_name().as_str();
        return Err(type_error(format!("truncate wants a str, found {found}")));
    };
    let kept: String = body.chars().take((length - end_len) as usize).collect();
    let kept = if killwords.is_some_and(|killwords| killwords.is_true()) {
        &kept[..]
    } else {
        kept.rsplit_once(' ').map_or(&kept[..], |(kept, _)| kept)
    };
    Ok(like(&value, interp.arena.alloc_str(&format!("{kept}{end}"))))
}
