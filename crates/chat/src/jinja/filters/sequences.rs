//! Filters over sequences and mappings.

use crate::jinja::access;
use crate::jinja::args::{Args, int};
use crate::jinja::error::{Result, runtime, type_error};
use crate::jinja::interp::Interp;
use crate::jinja::ops::{iterate, len};
use crate::jinja::value::{Str, Value};

/// A dotted attribute as `map(attribute="a.0.b")` takes it.
pub(crate) fn attributes<'a>(attribute: &Value<'a>) -> Result<Vec<Value<'a>>> {
    match attribute {
        Value::Str(text) | Value::Markup(text) => {
            let part = |part: &str| match part.parse() {
                Ok(index) if part.bytes().all(|b| b.is_ascii_digit()) => Value::Int(index),
                _ => Value::Str(text.part(part)),
            };
            Ok(text.split('.').map(part).collect())
        }
        value => Ok(vec![Value::Int(int("attribute", value)?)]),
    }
}

/// Follows the attributes from an item.
pub(crate) fn get_path<'a>(
    mut item: Value<'a>,
    path: &[Value<'a>],
    default: Option<&Value<'a>>,
) -> Result<Value<'a>> {
    for key in path {
        item = access::item(&item, key)?;
        if let (true, Some(default)) = (item.is_undefined(), default) {
            item = default.clone();
        }
    }
    Ok(item)
}

pub(super) fn attr<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    let [name] = args.bind("attr", ["name"], 1)?.map(Option::unwrap_or_default);
    // Unlike `value.name`, this never falls back to the keys of a dict.
    let as_attribute = access::attribute(&value, name.to_str())?;
    match (&value, &as_attribute) {
        (Value::Dict(_), Value::Method(_) | Value::Undefined(_)) => Ok(as_attribute),
        (Value::Dict(_), _) => Ok(Value::reason("a dict has no such attribute")),
        _ => Ok(as_attribute),
    }
}

pub(super) fn batch<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    let [count, fill] = args.bind("batch", ["linecount", "fill_with"], 1)?;
    let count = int("batch", &count.unwrap_or_default())?;
    let items = iterate(&value)?;
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
    Ok(Value::iter(batches.into_iter().map(Value::list).collect::<Vec<_>>()))
}

pub(super) fn slice<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    let [slices, fill] = args.bind("slice", ["slices", "fill_with"], 1)?;
    let slices = int("slice", &slices.unwrap_or_default())?;
    let slices = usize::try_from(slices).ok().filter(|&n| n > 0 && n <= 100_000);
    let slices = slices.ok_or_else(|| runtime("slice wants a number of slices above 0"))?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let items = iterate(&value)?;
    let (size, extra) = (items.len() / slices, items.len() % slices);
    let mut at = 0;
    let mut out = Vec::new();
    for i in 0..slices {
        let end = at + size + usize::from(i < extra);
        let mut part = items[at..end].to_vec();
        if let (Some(fill), true) = (&fill, i >= extra) {
            part.push(fill.clone());
        }
        at = end;
        out.push(Value::list(part));
    }
    Ok(Value::iter(out))
}

pub(super) fn length<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("length")?;
    Ok(Value::Int(len(&value)? as i128))
}

pub(super) fn default<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [default, boolean] = args.bind("default", ["default_value", "boolean"], 0)?;
    let falsy = boolean.is_some_and(|boolean| boolean.is_true()) && !value.is_true();
    Ok(if value.is_undefined() || falsy { default.unwrap_or(Value::str("")) } else { value })
}

pub(super) fn first<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    args.none("first")?;
    if let Value::Iter(items) = &value {
        let first = items.borrow_mut().pop_front();
        return Ok(first.unwrap_or(Value::reason("no first item, the sequence was empty")));
    }
    let first = iterate(&value)?.into_iter().next();
    Ok(first.unwrap_or(Value::reason("no first item, the sequence was empty")))
}

pub(super) fn last<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    args.none("last")?;
    reversible(&value)?;
    let last = iterate(&value)?.pop();
    Ok(last.unwrap_or(Value::reason("no last item, the sequence was empty")))
}

/// Refuses what Python's `reversed` refuses.
fn reversible(value: &Value<'_>) -> Result<()> {
    match value {
        Value::Iter(_) | Value::Loop(_) => Err(type_error("a generator is not reversible")),
        _ => Ok(()),
    }
}

pub(super) fn reverse<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("reverse")?;
    if let Value::Str(text) | Value::Markup(text) = &value {
        return Ok(Value::string(text.chars().rev().collect()));
    }
    let mut items = iterate(&value)?;
    items.reverse();
    // Jinja2 reverses a generator into a list, everything else into an iterator.
    Ok(if matches!(value, Value::Iter(_)) { Value::list(items) } else { Value::iter(items) })
}

pub(super) fn items<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    args.none("items")?;
    match &value {
        Value::Dict(dict) => Ok(Value::iter(dict.items())),
        value if value.is_undefined() => Ok(Value::iter(Vec::new())),
        _ => Err(type_error("can only get item pairs from a mapping")),
    }
}

pub(super) fn list<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    args.none("list")?;
    Ok(Value::list(iterate(&value)?))
}

pub(super) fn join<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    let [separator, attribute] = args.bind("join", ["d", "attribute"], 0)?;
    let separator = separator.map_or(Str::Borrowed(""), |separator| separator.to_str());
    let path = match &attribute {
        None | Some(Value::None) => None,
        Some(attribute) => Some(attributes(attribute)?),
    };
    let mut out = String::new();
    for (i, item) in iterate(&value)?.into_iter().enumerate() {
        if i > 0 {
            out.push_str(&separator);
        }
        match &path {
            Some(path) => get_path(item, path, None)?.write(&mut out),
            None => item.write(&mut out),
        }
    }
    Ok(Value::string(out))
}

pub(super) fn map<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    mut args: Args<'a>,
) -> Result<Value<'a>> {
    if !value.is_true() {
        return Ok(Value::iter(Vec::new()));
    }
    let items = iterate(&value)?;
    let by_attribute = args.keyword.iter().any(|(key, _)| &**key == "attribute");
    let mapped: Result<Vec<_>> = if args.positional.is_empty() && by_attribute {
        let [attribute, default] = args.bind("map", ["attribute", "default"], 1)?;
        let path = attributes(&attribute.unwrap_or_default())?;
        let default = default.filter(|default| !matches!(default, Value::None));
        items.into_iter().map(|item| get_path(item, &path, default.as_ref())).collect()
    } else {
        if args.positional.is_empty() {
            return Err(runtime("map requires a filter argument"));
        }
        let name = args.positional.remove(0).to_str();
        let filter =
            super::find(&name).ok_or_else(|| runtime(format!("no filter named '{}'", &*name)))?;
        let call = |item| {
            let keyword = args.keyword.clone();
            filter(interp, item, Args { positional: args.positional.clone(), keyword })
        };
        items.into_iter().map(call).collect()
    };
    Ok(Value::iter(mapped?))
}

pub(super) fn select<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    filter_items(&value, args, false, true)
}

pub(super) fn reject<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    filter_items(&value, args, false, false)
}

pub(super) fn selectattr<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    filter_items(&value, args, true, true)
}

pub(super) fn rejectattr<'a>(
    _: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    filter_items(&value, args, true, false)
}

/// The items (or those whose attribute) for which a test says `wanted`; without a test, their truth.
fn filter_items<'a>(
    value: &Value<'a>,
    mut args: Args<'a>,
    by_attribute: bool,
    wanted: bool,
) -> Result<Value<'a>> {
    if !value.is_true() {
        return Ok(Value::iter(Vec::new()));
    }
    let path = if by_attribute {
        if args.positional.is_empty() {
            return Err(runtime("missing parameter for attribute name"));
        }
        Some(attributes(&args.positional.remove(0))?)
    } else {
        None
    };
    let test = if args.positional.is_empty() {
        None
    } else {
        let name = args.positional.remove(0).to_str();
        let test = crate::jinja::predicates::find(&name);
        Some(test.ok_or_else(|| runtime(format!("no test named '{}'", &*name)))?)
    };
    let mut out = Vec::new();
    for item in iterate(value)? {
        let tested = match &path {
            Some(path) => get_path(item.clone(), path, None)?,
            None => item.clone(),
        };
        let holds = match test {
            None => tested.is_true(),
            Some(test) => {
                let keyword = args.keyword.clone();
                test(&tested, Args { positional: args.positional.clone(), keyword })?
            }
        };
        if holds == wanted {
            out.push(item);
        }
    }
    Ok(Value::iter(out))
}
