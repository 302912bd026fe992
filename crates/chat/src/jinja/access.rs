//! `object.attribute`, `object[key]` and slices, under the sandbox's rules.

use super::error::{Result, type_error, value_error};
use super::methods;
use super::ops::{hashable, undefined_error};
use super::value::{Range, Undefined, Value};
use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

/// `object.name`: Python attributes first, then the key of a dict.
pub(crate) fn attribute<'a>(
    arena: &'a Bump,
    object: &Value<'a>,
    name: &'a str,
) -> Result<Value<'a>> {
    if object.is_undefined() {
        // An undefined value has the private attributes of any Python object, refused when used.
        return match name {
            "__class__" | "__doc__" | "__init__" | "__str__" | "__repr__" => {
                Ok(Value::Undefined(Undefined::Unsafe(object.type_name()), name))
            }
            _ => Err(undefined_error(object)),
        };
    }
    if let Some(found) = python_attribute(arena, object, name) {
        return Ok(found);
    }
    if let Value::Dict(dict) = object
        && let Some(value) = dict.get_str(name)
    {
        return Ok(value);
    }
    Ok(Value::Undefined(Undefined::Attr(object.type_name()), name))
}

/// `object[key]`: keys and indices first, then Python attributes.
pub(crate) fn item<'a>(arena: &'a Bump, object: &Value<'a>, key: &Value<'a>) -> Result<Value<'a>> {
    if object.is_undefined() {
        return Err(undefined_error(object));
    }
    let found = match object {
        Value::Dict(dict) => {
            if hashable(key).is_ok() {
                dict.get(key)
            } else {
                None
            }
        }
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
            index(key, items.len()).map(|i| items[i])
        }
        Value::Range(range) => index(key, range.len()).map(|i| range.get(i)),
        Value::Str(text) => char_at(text, key).map(Value::Str),
        Value::Markup(text) => char_at(text, key).map(Value::Markup),
        _ => None,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    let Some(name) = key.as_str() else {
        let text = key.to_str(arena);
        return Ok(Value::Undefined(Undefined::Attr(object.type_name()), text));
    };
    if let Some(found) = python_attribute(arena, object, name) {
        return Ok(found);
    }
    Ok(Value::Undefined(Undefined::Attr(object.type_name()), name))
}

/// What `getattr` finds on a Python object, or the undefined value by which the sandbox refuses it.
fn python_attribute<'a>(arena: &'a Bump, object: &Value<'a>, name: &'a str) -> Option<Value<'a>> {
    if name.starts_with("__") && name.ends_with("__") {
        // Which dunders an object has makes no difference: each of them is refused.
        return Some(Value::Undefined(Undefined::Unsafe(object.type_name()), name));
    }
    match object {
        Value::Namespace(namespace) => namespace.get(name),
        Value::Loop(loop_) => methods::loop_attribute(arena, loop_, name),
        Value::Macro(macro_) => match name {
            "name" => Some(Value::Str(&macro_.def.name.name)),
            "arguments" => {
                let names = macro_.def.params.iter().map(|(name, _)| Value::Str(&name.name));
                Some(Value::Tuple(arena.alloc_slice_fill_iter(names)))
            }
            "caller" => Some(Value::Bool(macro_.def.caller.is_some())),
            "catch_kwargs" => Some(Value::Bool(macro_.def.kwargs.is_some())),
            "catch_varargs" => Some(Value::Bool(macro_.def.varargs.is_some())),
            _ => None,
        },
        Value::Group(pair) => match name {
            "grouper" => Some(pair[0]),
            "list" => Some(pair[1]),
            _ => None,
        },
        Value::Cycler(cycler) => match name {
            "current" => Some(cycler.0[cycler.1.get()]),
            "pos" => Some(Value::int(cycler.1.get() as i128)),
            "items" => Some(Value::Tuple(cycler.0)),
            "next" | "reset" => Some(method(arena, object, name)),
            _ => None,
        },
        Value::Joiner(joiner) => match name {
            "sep" => Some(joiner.0),
            "used" => Some(Value::Bool(joiner.1.get())),
            _ => None,
        },
        Value::Range(Range { start, stop, step }) => match name {
            "start" => Some(Value::int(i128::from(*start))),
            "stop" => Some(Value::int(i128::from(*stop))),
            "step" => Some(Value::int(i128::from(*step))),
            _ => None,
        },
        Value::Int(_) | Value::Bool(_) => match name {
            "real" | "numerator" => object.as_int().map(Value::int),
            "imag" => Some(Value::int(0)),
            "denominator" => Some(Value::int(1)),
            _ => methods::exists(object, name).then(|| method(arena, object, name)),
        },
        Value::Float(x) if name == "real" => Some(Value::Float(*x)),
        _ if methods::mutates(object, name) => {
            Some(Value::Undefined(Undefined::Unsafe(object.type_name()), name))
        }
        _ => methods::exists(object, name).then(|| method(arena, object, name)),
    }
}

fn method<'a>(arena: &'a Bump, object: &Value<'a>, name: &'a str) -> Value<'a> {
    Value::Method(arena.alloc((*object, name)))
}

fn index(key: &Value<'_>, len: usize) -> Option<usize> {
    let key = key.as_int()?;
    let index = if key < 0 { key + len as i128 } else { key };
    usize::try_from(index).ok().filter(|&index| index < len)
}

fn char_at<'a>(text: &'a str, key: &Value<'a>) -> Option<&'a str> {
    let key = key.as_int()?;
    let (at, c) = if key >= 0 {
        text.char_indices().nth(usize::try_from(key).ok()?)?
    } else {
        text.char_indices().rev().nth(usize::try_from(-(key + 1)).ok()?)?
    };
    Some(&text[at..at + c.len_utf8()])
}

/// `object[start:stop:step]`
pub(crate) fn slice<'a>(
    arena: &'a Bump,
    object: &Value<'a>,
    parts: [Value<'a>; 3],
) -> Result<Value<'a>> {
    if object.is_undefined() {
        return Err(undefined_error(object));
    }
    let mut limits = [None; 3];
    for (bound, part) in limits.iter_mut().zip(&parts) {
        *bound = match part {
            Value::None | Value::Unset => None,
            part => {
                if let Some(n) = part.as_int() {
                    Some(n)
                } else {
                    let found = part.type_name().as_str();
                    return Err(type_error(format!("slice indices must be integers, not {found}")));
                }
            }
        };
    }
    let [start, stop, step] = limits;
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(value_error("slice step cannot be zero"));
    }
    match object {
        Value::List(items) => Ok(Value::List(pick(arena, items, start, stop, step))),
        Value::Tuple(items) => Ok(Value::Tuple(pick(arena, items, start, stop, step))),
        Value::Str(text) => Ok(Value::Str(slice_str(arena, text, start, stop, step))),
        Value::Markup(text) => Ok(Value::Markup(slice_str(arena, text, start, stop, step))),
        Value::Range(range) => {
            let (first, last) = bounds(start, stop, step, range.len());
            let at = |index: i128| range.start + index as i64 * range.step;
            let step = range.step.saturating_mul(step.clamp(-(1 << 40), 1 << 40) as i64);
            Ok(Value::Range(arena.alloc(Range { start: at(first), stop: at(last), step })))
        }
        _ => {
            let found = object.type_name().as_str();
            Err(type_error(format!("a value of type {found} cannot be sliced")))
        }
    }
}

fn slice_str<'a>(
    arena: &'a Bump,
    text: &'a str,
    start: Option<i128>,
    stop: Option<i128>,
    step: i128,
) -> &'a str {
    if step == 1 {
        let len = text.chars().count();
        let (first, last) = bounds(start, stop, 1, len);
        if first >= last {
            return "";
        }
        let byte = |n: i128| text.char_indices().nth(n as usize).map_or(text.len(), |(at, _)| at);
        return &text[byte(first)..byte(last)];
    }
    let chars: Vec<char> = text.chars().collect();
    let picked: String = pick(arena, &chars, start, stop, step).iter().collect();
    arena.alloc_str(&picked)
}

/// First and past-the-last index of a slice, as `slice.indices` computes them.
fn bounds(start: Option<i128>, stop: Option<i128>, step: i128, len: usize) -> (i128, i128) {
    let len = len as i128;
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |bound: i128| {
        let bound = if bound < 0 { bound + len } else { bound };
        bound.clamp(low, high)
    };
    let start = start.map_or(if step > 0 { low } else { high }, clamp);
    let stop = stop.map_or(if step > 0 { high } else { low }, clamp);
    (start, stop)
}

fn pick<'a, T: Copy>(
    arena: &'a Bump,
    items: &[T],
    start: Option<i128>,
    stop: Option<i128>,
    step: i128,
) -> &'a [T] {
    let (mut at, stop) = bounds(start, stop, step, items.len());
    let mut picked = ArenaVec::new_in(arena);
    while if step > 0 { at < stop } else { at > stop } {
        picked.push(items[at as usize]);
        at += step;
    }
    picked.into_bump_slice()
}
