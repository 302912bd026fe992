//! The methods of Python's types.

mod casing;
mod format;
mod search;
mod strings;

use bumpalo::Bump;

use super::args::{Args, int_or};
use super::error::{Result, type_error, value_error};
use super::value::{Dict, DictBuilder, Loop, Value, ViewKind};

pub(crate) use strings::split_lines;

/// Methods that the sandbox refuses because they change the object.
pub(crate) fn mutates(object: &Value<'_>, name: &str) -> bool {
    match object {
        Value::List(_) => matches!(
            name,
            "append" | "clear" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort"
        ),
        Value::Dict(_) => {
            matches!(name, "clear" | "pop" | "popitem" | "setdefault" | "update")
        }
        _ => false,
    }
}

/// Whether a name is an attribute of the types on which names are looked up most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) on_str: bool,
    /// Also a name that the sandbox refuses on a dict: what it is not is a key.
    pub(crate) on_dict: bool,
}

impl Known {
    pub(crate) fn find(name: &str) -> Self {
        let dict = Value::Dict(Dict::default());
        Self {
            on_str: exists(&Value::Str(""), name),
            on_dict: exists(&dict, name) || mutates(&dict, name) || name.starts_with("__"),
        }
    }
}

/// Whether Python's type has this attribute (beyond those that change it).
pub(crate) fn exists(object: &Value<'_>, name: &str) -> bool {
    match object {
        Value::Str(_) | Value::Markup(_) => strings::NAMES.contains(&name),
        Value::List(_) => matches!(name, "copy" | "count" | "index"),
        Value::Tuple(_) | Value::Range(_) => matches!(name, "count" | "index"),
        Value::Dict(_) => matches!(name, "copy" | "fromkeys" | "get" | "items" | "keys" | "values"),
        Value::Int(_) | Value::Bool(_) => {
            matches!(name, "bit_length" | "bit_count" | "conjugate" | "as_integer_ratio")
        }
        Value::Float(_) => matches!(name, "is_integer" | "conjugate"),
        Value::Function(super::globals::Function::Dict) => name == "fromkeys",
        _ => false,
    }
}

/// `object.name(args)`
pub(crate) fn call<'a>(
    arena: &'a Bump,
    object: &Value<'a>,
    name: &str,
    args: Args<'a>,
) -> Result<Value<'a>> {
    match object {
        Value::Str(text) => strings::call(arena, text, false, name, args),
        Value::Markup(text) => strings::call(arena, text, true, name, args),
        Value::List(items) | Value::Tuple(items) => match name {
            "copy" => {
                args.none(name)?;
                Ok(*object)
            }
            "count" => {
                let [item] = args.bind(name, [""], 1)?.map(Option::unwrap_or_default);
                Ok(Value::int(items.iter().filter(|i| i.equals(&item)).count() as i128))
            }
            "index" => {
                let [item, start, stop] = args.bind(name, ["", "", ""], 1)?;
                let item = item.unwrap_or_default();
                let len = items.len() as i128;
                let clamp = |n: i128| (if n < 0 { n + len } else { n }).clamp(0, len) as usize;
                let start = clamp(int_or(name, start.as_ref(), 0)?);
                let stop = clamp(int_or(name, stop.as_ref(), len)?);
                let range = items.get(start..stop).unwrap_or_default();
                let found = range.iter().position(|i| i.equals(&item));
                let found = found.ok_or_else(|| value_error("the value is not in the list"))?;
                Ok(Value::int((start + found) as i128))
            }
            _ => Err(unknown(object, name)),
        },
        Value::Dict(dict) => match name {
            "get" => {
                let [key, default] = args.bind(name, ["", ""], 1)?;
                let key = key.unwrap_or_default();
                super::ops::hashable(&key)?;
                Ok(dict.get(&key).or(default).unwrap_or(Value::None))
            }
            "items" | "keys" | "values" => {
                args.none(name)?;
                let kind = match name {
                    "items" => ViewKind::Items,
                    "keys" => ViewKind::Keys,
                    _ => ViewKind::Values,
                };
                Ok(Value::View(kind, *dict))
            }
            "copy" => {
                args.none(name)?;
                Ok(*object)
            }
            "fromkeys" => from_keys(arena, args),
            _ => Err(unknown(object, name)),
        },
        Value::Range(range) => match name {
            "count" | "index" => {
                let items = arena.alloc_slice_fill_with(range.len(), |i| range.get(i));
                call(arena, &Value::List(items), name, args)
            }
            _ => Err(unknown(object, name)),
        },
        Value::Int(_) | Value::Bool(_) => {
            args.none(name)?;
            let n = object.as_int().unwrap_or(0);
            match name {
                "bit_length" => Ok(Value::int(i128::from(128 - n.unsigned_abs().leading_zeros()))),
                "bit_count" => Ok(Value::int(i128::from(n.unsigned_abs().count_ones()))),
                "conjugate" => Ok(Value::int(n)),
                "as_integer_ratio" => Ok(Value::tuple(arena, [Value::int(n), Value::int(1)])),
                _ => Err(unknown(object, name)),
            }
        }
        Value::Float(x) => {
            args.none(name)?;
            match name {
                "is_integer" => Ok(Value::Bool(x.is_finite() && x.fract() == 0.0)),
                _ => Ok(*object),
            }
        }
        Value::Cycler(cycler) => {
            args.none(name)?;
            let (items, at) = cycler;
            if name == "reset" {
                at.set(0);
                return Ok(Value::None);
            }
            let current = items[at.get()];
            at.set((at.get() + 1) % items.len());
            Ok(current)
        }
        Value::Loop(loop_) => loop_method(loop_, name, args),
        Value::Function(_) if name == "fromkeys" => from_keys(arena, args),
        _ => Err(unknown(object, name)),
    }
}

fn unknown(object: &Value<'_>, name: &str) -> super::error::Failure {
    let owner = object.type_name().as_str();
    type_error(format!("the method '{owner}.{name}' is not supported in chat templates"))
}

fn from_keys<'a>(arena: &'a Bump, args: Args<'a>) -> Result<Value<'a>> {
    let [keys, value] = args.bind("fromkeys", ["", ""], 1)?;
    let value = value.unwrap_or(Value::None);
    let keys = super::ops::iterate(arena, &keys.unwrap_or_default())?;
    let mut dict = DictBuilder::new(arena, keys.len());
    for key in keys {
        super::ops::hashable(key)?;
        dict.insert(*key, value);
    }
    Ok(Value::Dict(dict.finish()))
}

pub(crate) fn loop_attribute<'a>(
    arena: &'a Bump,
    loop_: &'a Loop<'a>,
    name: &'a str,
) -> Option<Value<'a>> {
    let (index, length) = (loop_.index.get(), loop_.items.len());
    let int = |n: usize| Value::int(n as i128);
    let outside = |reason| Value::reason(reason);
    Some(match name {
        "index" => int(index + 1),
        "index0" => int(index),
        "revindex" => Value::int(length as i128 - index as i128),
        "revindex0" => Value::int(length as i128 - index as i128 - 1),
        "first" => Value::Bool(index == 0),
        "last" => Value::Bool(index + 1 >= length),
        "length" => int(length),
        "depth" => int(loop_.depth + 1),
        "depth0" => int(loop_.depth),
        "previtem" if index == 0 => outside("there is no previous item"),
        "previtem" => loop_.items[index - 1],
        "nextitem" => match loop_.items.get(index + 1) {
            Some(item) => *item,
            None => outside("there is no next item"),
        },
        "cycle" | "changed" => Value::Method(arena.alloc((Value::Loop(loop_), name))),
        _ => return None,
    })
}

fn loop_method<'a>(loop_: &Loop<'a>, name: &str, args: Args<'a>) -> Result<Value<'a>> {
    if let Some((key, _)) = args.keyword.first() {
        return Err(type_error(format!("{name}() has no keyword argument '{key}'")));
    }
    if name == "cycle" {
        if args.positional.is_empty() {
            return Err(type_error("no items for cycling given"));
        }
        return Ok(args.positional[loop_.index.get() % args.positional.len()]);
    }
    let same = loop_.changed.get().is_some_and(|last| {
        last.len() == args.positional.len()
            && last.iter().zip(args.positional).all(|(a, b)| a.equals(b))
    });
    if !same {
        loop_.changed.set(Some(args.positional));
    }
    Ok(Value::Bool(!same))
}
