//! Filters over sequences and mappings.

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use crate::jinja::access;
use crate::jinja::args::{Args, int};
use crate::jinja::error::{Result, runtime, type_error};
use crate::jinja::interp::Interp;
use crate::jinja::ops::{iterate, len};
use crate::jinja::value::Value;

/// A dotted attribute as `map(attribute="a.0.b")` takes it.
pub(crate) fn attributes<'a>(arena: &'a Bump, attribute: &Value<'a>) -> Result<&'a [Value<'a>]> {
    match attribute {
        Value::Str(text) | Value::Markup(text) => {
            let part = |part: &'a str| match part.parse() {
                Ok(index) if part.bytes().all(|b| b.is_ascii_digit()) => Value::int(index),
                _ => Value::Str(part),
            };
            let mut path = ArenaVec::new_in(arena);
            path.extend(text.split('.').map(part));
            Ok(path.into_bump_slice())
        }
        value => Ok(arena.alloc([Value::int(int("attribute", value)?)])),
    }
}

/// Follows the attributes from an item.
pub(crate) fn get_path<'a>(
    arena: &'a Bump,
    mut item: Value<'a>,
    path: &[Value<'a>],
    default: Option<&Value<'a>>,
) -> Result<Value<'a>> {
    for key in path {
        item = access::item(arena, &item, key)?;
        if let (true, Some(default)) = (item.is_undefined(), default) {
            item = *default;
        }
    }
    Ok(item)
}

pub(super) fn attr<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [name] = args.bind("attr", ["name"], 1)?.map(Option::unwrap_or_default);
    // Unlike `value.name`, this never falls back to the keys of a dict.
    let as_attribute = access::attribute(interp.arena, &value, name.to_str(interp.arena))?;
    match (&value, &as_attribute) {
        (Value::Dict(_), Value::Method(_) | Value::Undefined(..)) => Ok(as_attribute),
        (Value::Dict(_), _) => Ok(Value::reason("a dict has no such attribute")),
        _ => Ok(as_attribute),
    }
}

pub(super) fn batch<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [count, fill] = args.bind("batch", ["linecount", "fill_with"], 1)?;
    let count = int("batch", &count.unwrap_or_default())?;
    let items = iterate(interp.arena, &value)?;
    let size = usize::try_from(count).ok().filter(|&n| n > 0).unwrap_or(usize::MAX);
    let mut batches: Vec<Vec<Value<'a>>> = items.chunks(size).map(<[_]>::to_vec).collect();
    if count == 0 && !items.is_empty() {
        // Jinja2 finds its empty first batch full before the first item.
        batches.insert(0, Vec::new());
    }
    if let (Some(last), Some(fill)) =
        (batches.last_mut(), fill.filter(|f| !matches!(f, Value::None)))
        && size != usize::MAX
    {
        last.resize(size, fill);
    }
    let batches = batches.iter().map(|batch| Value::list(interp.arena, batch));
    Ok(Value::iter(interp.arena, interp.arena.alloc_slice_fill_iter(batches)))
}

pub(super) fn slice<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [slices, fill] = args.bind("slice", ["slices", "fill_with"], 1)?;
    let slices = int("slice", &slices.unwrap_or_default())?;
    let slices = usize::try_from(slices).ok().filter(|&n| n > 0 && n <= 100_000);
    let slices = slices.ok_or_else(|| runtime("slice wants a number of slices above 0"))?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let items = iterate(interp.arena, &value)?;
    let (size, extra) = (items.len() / slices, items.len() % slices);
    let mut at = 0;
    let mut out = Vec::new();
    for i in 0..slices {
        let end = at + size + usize::from(i < extra);
        let mut part = items[at..end].to_vec();
        if let (Some(fill), true) = (&fill, i >= extra) {
            part.push(*fill);
        }
        at = end;
        out.push(Value::list(interp.arena, part));
    }
    Ok(Value::iter(interp.arena, interp.arena.alloc_slice_copy(&out)))
}

pub(super) fn length<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("length")?;
    Ok(Value::int(len(&value)? as i128))
}

pub(super) fn default<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [default, boolean] = args.bind("default", ["default_value", "boolean"], 0)?;
    let falsy = boolean.is_some_and(|boolean| boolean.is_true()) && !value.is_true();
    Ok(if value.is_undefined() || falsy { default.unwrap_or(Value::Str("")) } else { value })
}

pub(super) fn first<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("first")?;
    if let Value::Iter(items) = &value {
        return Ok(items.next().unwrap_or(Value::reason("no first item, the sequence was empty")));
    }
    let first = iterate(interp.arena, &value)?.first();
    Ok(first.copied().unwrap_or(Value::reason("no first item, the sequence was empty")))
}

pub(super) fn last<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("last")?;
    reversible(&value)?;
    let last = iterate(interp.arena, &value)?.last();
    Ok(last.copied().unwrap_or(Value::reason("no last item, the sequence was empty")))
}

/// Refuses what Python's `reversed` refuses.
fn reversible(value: &Value<'_>) -> Result<()> {
    match value {
        Value::Iter(_) | Value::Loop(_) => Err(type_error("a generator is not reversible")),
        _ => Ok(()),
    }
}

pub(super) fn reverse<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("reverse")?;
    if let Value::Str(text) | Value::Markup(text) = &value {
        return Ok(Value::string(interp.arena, text.chars().rev().collect::<String>()));
    }
    let items = interp.arena.alloc_slice_copy(iterate(interp.arena, &value)?);
    items.reverse();
    let items = &*items;
    // Jinja2 reverses a generator into a list, everything else into an iterator.
    Ok(if matches!(value, Value::Iter(_)) {
        Value::List(items)
    } else {
        Value::iter(interp.arena, items)
    })
}

pub(super) fn items<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("items")?;
    match &value {
        Value::Dict(dict) => Ok(Value::iter(interp.arena, dict.items(interp.arena))),
        value if value.is_undefined() => Ok(Value::iter(interp.arena, &[])),
        _ => Err(type_error("can only get item pairs from a mapping")),
    }
}

pub(super) fn list<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("list")?;
    Ok(Value::list(interp.arena, iterate(interp.arena, &value)?))
}

pub(super) fn join<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [separator, attribute] = args.bind("join", ["d", "attribute"], 0)?;
    let separator = separator.map_or("", |separator| separator.to_str(interp.arena));
    let path = match &attribute {
        None | Some(Value::None) => None,
        Some(attribute) => Some(attributes(interp.arena, attribute)?),
    };
    let arena = interp.arena;
    let items = iterate(arena, &value)?;
    interp.written(|out| {
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(separator);
            }
            match path {
                Some(path) => get_path(arena, *item, path, None)?.write(out),
                None => item.write(out),
            }
        }
        Ok(())
    })
}

pub(super) fn map<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let arena = interp.arena;
    if !value.is_true() {
        return Ok(Value::iter(arena, &[]));
    }
    let items = iterate(arena, &value)?;
    let mut mapped = ArenaVec::with_capacity_in(items.len(), arena);
    let by_attribute = args.keyword.iter().any(|(key, _)| *key == "attribute");
    if args.positional.is_empty() && by_attribute {
        let [attribute, default] = args.bind("map", ["attribute", "default"], 1)?;
        let path = attributes(arena, &attribute.unwrap_or_default())?;
        let default = default.filter(|default| !matches!(default, Value::None));
        for item in items {
            mapped.push(get_path(arena, *item, path, default.as_ref())?);
        }
    } else {
        let Some((name, positional)) = args.positional.split_first() else {
            return Err(runtime("map requires a filter argument"));
        };
        let name = name.to_str(arena);
        let filter =
            super::find(name).ok_or_else(|| runtime(format!("no filter named '{name}'")))?;
        for item in items {
            mapped.push(filter(interp, *item, Args { positional, ..args })?);
        }
    }
    Ok(Value::iter(arena, mapped.into_bump_slice()))
}

pub(super) fn select<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    filter_items(interp.arena, &value, args, false, true)
}

pub(super) fn reject<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    filter_items(interp.arena, &value, args, false, false)
}

pub(super) fn selectattr<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    filter_items(interp.arena, &value, args, true, true)
}

pub(super) fn rejectattr<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    filter_items(interp.arena, &value, args, true, false)
}

/// The items (or those whose attribute) for which a test says `wanted`; without a test, their truth.
fn filter_items<'a>(
    arena: &'a Bump,
    value: &Value<'a>,
    args: Args<'a>,
    by_attribute: bool,
    wanted: bool,
) -> Result<Value<'a>> {
    if !value.is_true() {
        return Ok(Value::iter(arena, &[]));
    }
    let mut positional = args.positional;
    let mut shift = || {
        let (first, rest) = positional.split_first()?;
        positional = rest;
        Some(*first)
    };
    let path = match by_attribute.then(&mut shift) {
        None => None,
        Some(None) => return Err(runtime("missing parameter for attribute name")),
        Some(Some(attribute)) => Some(attributes(arena, &attribute)?),
    };
    let test = match shift() {
        None => None,
        Some(name) => {
            let name = name.to_str(arena);
            let test = crate::jinja::predicates::find(name);
            Some(test.ok_or_else(|| runtime(format!("no test named '{name}'")))?)
        }
    };
    let mut out = ArenaVec::new_in(arena);
    for item in iterate(arena, value)? {
        let tested = match path {
            Some(path) => get_path(arena, *item, path, None)?,
            None => *item,
        };
        let holds = match test {
            None => tested.is_true(),
            Some(test) => test(arena, &tested, Args { positional, ..args })?,
        };
        if holds == wanted {
            out.push(*item);
        }
    }
    Ok(Value::iter(arena, out.into_bump_slice()))
}
