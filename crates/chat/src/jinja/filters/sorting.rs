//! Filters that order and group.

use std::cmp::Ordering;

use bumpalo::Bump;

use super::{attributes, get_path};
use crate::jinja::args::{Args, text};
use crate::jinja::error::{Failure, Result, runtime, type_error};
use crate::jinja::interp::Interp;
use crate::jinja::ops::{hashable, iterate, order, undefined_error};
use crate::jinja::value::Value;

/// The value by which an item is ordered: an attribute, lower-cased unless the case counts.
struct Key<'a> {
    arena: &'a Bump,
    paths: Vec<&'a [Value<'a>]>,
    case_sensitive: bool,
    default: Option<Value<'a>>,
}

impl<'a> Key<'a> {
    fn new(
        arena: &'a Bump,
        attribute: Option<&Value<'a>>,
        case_sensitive: Option<&Value<'a>>,
    ) -> Result<Self> {
        let paths = match attribute {
            None | Some(Value::None) => Vec::new(),
            Some(Value::Str(names)) => names
                .split(',')
                .map(|name| attributes(arena, &Value::Str(name)))
                .collect::<Result<_>>()?,
            Some(attribute) => vec![attributes(arena, attribute)?],
        };
        let case_sensitive = case_sensitive.is_some_and(Value::is_true);
        Ok(Self { arena, paths, case_sensitive, default: None })
    }

    fn fold(&self, value: Value<'a>) -> Value<'a> {
        match value {
            Value::Str(text) | Value::Markup(text) if !self.case_sensitive => {
                Value::string(self.arena, text.to_lowercase())
            }
            _ => value,
        }
    }

    fn of(&self, item: &Value<'a>) -> Result<Value<'a>> {
        let get = |path| get_path(self.arena, *item, path, self.default.as_ref());
        match &self.paths[..] {
            [] => Ok(self.fold(*item)),
            [path] => Ok(self.fold(get(path)?)),
            paths => {
                let keys = paths.iter().map(|path| Ok(self.fold(get(path)?)));
                Ok(Value::list(self.arena, keys.collect::<Result<Vec<_>>>()?))
            }
        }
    }
}

/// A stable sort by keys that may refuse to be compared.
fn sort_by_key<'a>(
    items: &[Value<'a>],
    key: impl Fn(&Value<'a>) -> Result<Value<'a>>,
    reverse: bool,
) -> Result<Vec<(Value<'a>, Value<'a>)>> {
    let mut keyed = Vec::with_capacity(items.len());
    for item in items {
        keyed.push((key(item)?, *item));
    }
    let mut failed: Option<Failure> = None;
    keyed.sort_by(|(a, _), (b, _)| {
        let (a, b) = if reverse { (b, a) } else { (a, b) };
        match order(a, b, "<") {
            Ok(order) => order.unwrap_or(Ordering::Equal),
            Err(error) => {
                failed.get_or_insert(error);
                Ordering::Equal
            }
        }
    });
    failed.map_or(Ok(keyed), Err)
}

fn values<'a>(arena: &'a Bump, keyed: Vec<(Value<'a>, Value<'a>)>) -> Value<'a> {
    Value::List(arena.alloc_slice_fill_iter(keyed.into_iter().map(|(_, item)| item)))
}

fn truth(value: Option<&Value<'_>>) -> bool {
    value.is_some_and(Value::is_true)
}

pub(super) fn sort<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [reverse, case_sensitive, attribute] =
        args.bind("sort", ["reverse", "case_sensitive", "attribute"], 0)?;
    let key = Key::new(interp.arena, attribute.as_ref(), case_sensitive.as_ref())?;
    let sorted =
        sort_by_key(iterate(interp.arena, &value)?, |item| key.of(item), truth(reverse.as_ref()))?;
    Ok(values(interp.arena, sorted))
}

pub(super) fn dictsort<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let names = ["case_sensitive", "by", "reverse"];
    let [case_sensitive, by, reverse] = args.bind("dictsort", names, 0)?;
    let by = by.unwrap_or(Value::Str("key"));
    let position = match text("dictsort", &by)? {
        "key" => 0,
        "value" => 1,
        _ => return Err(runtime("dictsort can only sort by \"key\" or \"value\"")),
    };
    let Value::Dict(dict) = &value else {
        return Err(if value.is_undefined() {
            undefined_error(&value)
        } else {
            type_error("dictsort wants a mapping")
        });
    };
    let key = Key::new(interp.arena, None, case_sensitive.as_ref())?;
    let of = |pair: &Value<'a>| match pair {
        Value::Tuple(pair) => Ok(key.fold(pair[position])),
        pair => Ok(*pair),
    };
    let sorted = sort_by_key(dict.items(interp.arena), of, truth(reverse.as_ref()))?;
    Ok(values(interp.arena, sorted))
}

pub(super) fn groupby<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let names = ["attribute", "default", "case_sensitive"];
    let [attribute, default, case_sensitive] = args.bind("groupby", names, 1)?;
    let attribute = attribute.unwrap_or_default();
    let mut key = Key::new(interp.arena, None, case_sensitive.as_ref())?;
    key.paths = vec![attributes(interp.arena, &attribute)?];
    key.default = default.filter(|default| !matches!(default, Value::None));
    let sorted = sort_by_key(iterate(interp.arena, &value)?, |item| key.of(item), false)?;
    let mut groups: Vec<(Value<'a>, Vec<Value<'a>>)> = Vec::new();
    for (grouper, item) in sorted {
        match groups.last_mut() {
            Some((last, items)) if last.equals(&grouper) => items.push(item),
            _ => groups.push((grouper, vec![item])),
        }
    }
    let mut out = Vec::new();
    for (grouper, items) in groups {
        // The group is named as its first item writes it.
        let grouper = if key.case_sensitive {
            grouper
        } else {
            get_path(interp.arena, items[0], key.paths[0], key.default.as_ref())?
        };
        out.push(Value::Group(interp.arena.alloc([grouper, Value::list(interp.arena, items)])));
    }
    Ok(Value::list(interp.arena, out))
}

pub(super) fn unique<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [case_sensitive, attribute] = args.bind("unique", ["case_sensitive", "attribute"], 0)?;
    let mut key = Key::new(interp.arena, None, case_sensitive.as_ref())?;
    if let Some(attribute) = attribute.filter(|attribute| !matches!(attribute, Value::None)) {
        key.paths = vec![attributes(interp.arena, &attribute)?];
    }
    let mut seen: Vec<Value<'a>> = Vec::new();
    let mut out = Vec::new();
    for item in iterate(interp.arena, &value)? {
        let found = key.of(item)?;
        hashable(&found)?;
        if !seen.iter().any(|seen| seen.equals(&found)) {
            seen.push(found);
            out.push(*item);
        }
    }
    Ok(Value::iter(interp.arena, interp.arena.alloc_slice_copy(&out)))
}

pub(super) fn min<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    extreme(interp.arena, &value, args, Ordering::Less)
}

pub(super) fn max<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    extreme(interp.arena, &value, args, Ordering::Greater)
}

fn extreme<'a>(
    arena: &'a Bump,
    value: &Value<'a>,
    args: Args<'a>,
    wanted: Ordering,
) -> Result<Value<'a>> {
    let [case_sensitive, attribute] = args.bind("min", ["case_sensitive", "attribute"], 0)?;
    let mut key = Key::new(arena, None, case_sensitive.as_ref())?;
    if let Some(attribute) = attribute.filter(|attribute| !matches!(attribute, Value::None)) {
        key.paths = vec![attributes(arena, &attribute)?];
    }
    let mut best: Option<(Value<'a>, Value<'a>)> = None;
    for item in iterate(arena, value)? {
        let found = key.of(item)?;
        let better = match &best {
            None => true,
            Some((best, _)) => order(&found, best, "<")? == Some(wanted),
        };
        if better {
            best = Some((found, *item));
        }
    }
    Ok(best.map_or(Value::reason("no aggregated item, the sequence was empty"), |(_, item)| item))
}
