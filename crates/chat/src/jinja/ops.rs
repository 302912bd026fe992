//! Python's operators: arithmetic, comparison, membership, iteration.

use std::cmp::Ordering;

use bumpalo::Bump;
use bumpalo::collections::{String as ArenaString, Vec as ArenaVec};

use super::ast::{BinaryOp, CompareOp};
use super::error::{ErrorKind, Failure, Result, type_error, value_error};
use super::percent;
use super::value::{Dict, DictBuilder, Undefined, Value, ViewKind};

/// The error of using an undefined value.
pub(crate) fn undefined_error(value: &Value<'_>) -> Failure {
    let kind = match value {
        Value::Undefined(Undefined::Unsafe(_), _) => ErrorKind::Security,
        _ => ErrorKind::Undefined,
    };
    let message = match value {
        Value::Undefined(Undefined::Name, name) => format!("'{name}' is undefined"),
        Value::Undefined(Undefined::Attr(owner), name) => {
            format!("'{} object' has no attribute '{name}'", owner.as_str())
        }
        Value::Undefined(Undefined::Unsafe(owner), name) => {
            format!("access to attribute '{name}' of '{}' object is unsafe", owner.as_str())
        }
        Value::Undefined(Undefined::Reason, reason) => (*reason).to_owned(),
        _ => "the value is undefined".into(),
    };
    Failure::new(kind, message)
}

fn unsupported<'a>(op: &str, a: &Value<'a>, b: &Value<'a>) -> Failure {
    for value in [a, b] {
        if value.is_undefined() {
            return undefined_error(value);
        }
    }
    let (a, b) = (a.type_name().as_str(), b.type_name().as_str());
    type_error(format!("unsupported operand types for {op}: '{a}' and '{b}'"))
}

fn overflow() -> Failure {
    value_error("an integer is larger than 128 bits")
}

/// `markupsafe.escape`
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '>' => out.push_str("&gt;"),
            '<' => out.push_str("&lt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

/// A text as it joins markup: escaped, unless it is markup itself.
pub(crate) fn escaped<'a>(arena: &'a Bump, value: &Value<'a>) -> &'a str {
    match value {
        Value::Markup(text) => text,
        value => arena.alloc_str(&escape(&value.text())),
    }
}

/// Texts in a row.
pub(crate) fn concat<'a>(arena: &'a Bump, parts: &[&str]) -> &'a str {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut text = ArenaString::with_capacity_in(len, arena);
    for part in parts {
        text.push_str(part);
    }
    text.into_bump_str()
}

pub(crate) fn add<'a>(arena: &'a Bump, a: Value<'a>, b: Value<'a>) -> Result<Value<'a>> {
    match (&a, &b) {
        (Value::Str(x), Value::Str(y)) => return Ok(Value::Str(concat(arena, &[x, y]))),
        (Value::Str(_) | Value::Markup(_), Value::Str(_) | Value::Markup(_)) => {
            let text = concat(arena, &[escaped(arena, &a), escaped(arena, &b)]);
            return Ok(Value::Markup(text));
        }
        (Value::List(x), Value::List(y)) => return Ok(Value::List(join(arena, x, y))),
        (Value::Tuple(x), Value::Tuple(y)) => return Ok(Value::Tuple(join(arena, x, y))),
        _ => {}
    }
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        return x.checked_add(y).map(Value::int).ok_or_else(overflow);
    }
    if let (Some(x), Some(y)) = (a.as_float(), b.as_float()) {
        return Ok(Value::Float(x + y));
    }
    Err(unsupported("+", &a, &b))
}

fn join<'a>(arena: &'a Bump, x: &[Value<'a>], y: &[Value<'a>]) -> &'a [Value<'a>] {
    let mut items = ArenaVec::with_capacity_in(x.len() + y.len(), arena);
    items.extend_from_slice_copy(x);
    items.extend_from_slice_copy(y);
    items.into_bump_slice()
}

pub(crate) fn binary<'a>(
    arena: &'a Bump,
    op: BinaryOp,
    a: Value<'a>,
    b: Value<'a>,
) -> Result<Value<'a>> {
    match op {
        BinaryOp::Mul => {
            if let Some(repeated) = repeat(arena, &a, &b).or_else(|| repeat(arena, &b, &a)) {
                return repeated;
            }
        }
        BinaryOp::Rem => match &a {
            Value::Str(format) => {
                return Ok(Value::string(arena, percent::format(format, &b, false)?));
            }
            Value::Markup(format) => {
                return Ok(Value::Markup(arena.alloc_str(&percent::format(format, &b, true)?)));
            }
            _ => {}
        },
        _ => {}
    }
    let symbol = match op {
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::FloorDiv => "//",
        BinaryOp::Rem => "%",
        BinaryOp::Pow => "**",
    };
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        return int_binary(op, x, y);
    }
    match (a.as_float(), b.as_float()) {
        (Some(x), Some(y)) => float_binary(op, x, y),
        _ => Err(unsupported(symbol, &a, &b)),
    }
}

/// `sequence * times`
fn repeat<'a>(
    arena: &'a Bump,
    sequence: &Value<'a>,
    times: &Value<'a>,
) -> Option<Result<Value<'a>>> {
    let times = usize::try_from(times.as_int()?.max(0)).ok()?;
    let len = match sequence {
        Value::Str(text) | Value::Markup(text) => text.len(),
        Value::List(items) | Value::Tuple(items) => items.len(),
        _ => return None,
    };
    if len.saturating_mul(times) > 1 << 28 {
        return Some(Err(value_error("a repeated sequence is too long")));
    }
    Some(Ok(match sequence {
        Value::Str(text) => Value::string(arena, text.repeat(times)),
        Value::Markup(text) => Value::Markup(arena.alloc_str(&text.repeat(times))),
        Value::List(items) => Value::list(arena, items.repeat(times)),
        Value::Tuple(items) => Value::tuple(arena, items.repeat(times)),
        _ => return None,
    }))
}

fn int_binary<'a>(op: BinaryOp, x: i128, y: i128) -> Result<Value<'a>> {
    let result = match op {
        BinaryOp::Sub => x.checked_sub(y),
        BinaryOp::Mul => x.checked_mul(y),
        BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Rem if y == 0 => {
            return Err(value_error("division by zero"));
        }
        BinaryOp::Div => return Ok(Value::Float(x as f64 / y as f64)),
        BinaryOp::FloorDiv => {
            x.checked_div_euclid(y).map(|q| if y < 0 && x.rem_euclid(y) != 0 { q - 1 } else { q })
        }
        BinaryOp::Rem => {
            x.checked_rem(y).map(|r| if r != 0 && (r < 0) != (y < 0) { r + y } else { r })
        }
        BinaryOp::Pow if y < 0 => return float_binary(op, x as f64, y as f64),
        BinaryOp::Pow => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
    };
    result.map(Value::int).ok_or_else(overflow)
}

fn float_binary<'a>(op: BinaryOp, x: f64, y: f64) -> Result<Value<'a>> {
    let by_zero = y == 0.0 && matches!(op, BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Rem)
        || op == BinaryOp::Pow && x == 0.0 && y < 0.0;
    if by_zero {
        return Err(value_error("division by zero"));
    }
    // Python takes the floor of the exact quotient: through the remainder, not through x / y.
    let modulo = || {
        let r = x % y;
        if r != 0.0 && (r < 0.0) != (y < 0.0) {
            r + y
        } else {
            r.copysign(if r == 0.0 { y } else { r })
        }
    };
    Ok(Value::Float(match op {
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        BinaryOp::FloorDiv => ((x - modulo()) / y).round(),
        BinaryOp::Rem => modulo(),
        BinaryOp::Pow => {
            let power = x.powf(y);
            if power.is_nan() && !x.is_nan() && !y.is_nan() {
                return Err(value_error("complex numbers are not supported"));
            }
            power
        }
    }))
}

pub(crate) fn negate<'a>(value: &Value<'a>, positive: bool) -> Result<Value<'a>> {
    match value {
        Value::Float(x) => Ok(Value::Float(if positive { *x } else { -x })),
        value => match value.as_int() {
            Some(n) => Ok(Value::int(if positive { n } else { -n })),
            None if value.is_undefined() => Err(undefined_error(value)),
            None => {
                let name = value.type_name().as_str();
                Err(type_error(format!("bad operand type for a sign: '{name}'")))
            }
        },
    }
}

pub(crate) fn compare<'a>(
    arena: &'a Bump,
    op: CompareOp,
    a: &Value<'a>,
    b: &Value<'a>,
) -> Result<bool> {
    Ok(match op {
        CompareOp::Eq => a.equals(b),
        CompareOp::Ne => !a.equals(b),
        CompareOp::In => contains(arena, b, a)?,
        CompareOp::NotIn => !contains(arena, b, a)?,
        CompareOp::Lt => order(a, b, "<")? == Some(Ordering::Less),
        CompareOp::Gt => order(a, b, ">")? == Some(Ordering::Greater),
        CompareOp::Le => matches!(order(a, b, "<=")?, Some(Ordering::Less | Ordering::Equal)),
        CompareOp::Ge => matches!(order(a, b, ">=")?, Some(Ordering::Greater | Ordering::Equal)),
    })
}

/// The order of two values; `None` with a NaN.
pub(crate) fn order<'a>(a: &Value<'a>, b: &Value<'a>, op: &str) -> Result<Option<Ordering>> {
    match (a, b) {
        (Value::Str(x) | Value::Markup(x), Value::Str(y) | Value::Markup(y)) => {
            // Code points order as their UTF-8 bytes do.
            Ok(Some(x.cmp(y)))
        }
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => {
            for (x, y) in x.iter().zip(y.iter()) {
                if !x.equals(y) {
                    return order(x, y, op);
                }
            }
            Ok(Some(x.len().cmp(&y.len())))
        }
        _ => match (a.as_int(), b.as_int()) {
            (Some(x), Some(y)) => Ok(Some(x.cmp(&y))),
            _ => match (a.as_float(), b.as_float()) {
                (Some(x), Some(y)) => Ok(x.partial_cmp(&y)),
                _ => Err(unsupported(op, a, b)),
            },
        },
    }
}

/// `item in container`
pub(crate) fn contains<'a>(
    arena: &'a Bump,
    container: &Value<'a>,
    item: &Value<'a>,
) -> Result<bool> {
    match container {
        Value::Str(text) | Value::Markup(text) => match item.as_str() {
            Some(item) => Ok(text.contains(item)),
            None => Err(type_error(format!(
                "'in <string>' requires string as left operand, not {}",
                item.type_name().as_str()
            ))),
        },
        Value::List(items) | Value::Tuple(items) => Ok(items.iter().any(|i| i.equals(item))),
        Value::Dict(dict) => {
            hashable(item)?;
            Ok(dict.get(item).is_some())
        }
        Value::View(ViewKind::Keys, dict) => Ok(dict.get(item).is_some()),
        Value::Iter(items) => {
            // A generator is read up to the item.
            while let Some(next) = items.next() {
                if next.equals(item) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Ok(iterate(arena, container)?.iter().any(|i| i.equals(item))),
    }
}

/// Refuses what Python cannot hash: lists and dicts.
pub(crate) fn hashable(key: &Value<'_>) -> Result<()> {
    match key {
        Value::List(_) | Value::Dict(_) => {
            Err(type_error(format!("unhashable type: '{}'", key.type_name().as_str())))
        }
        Value::Tuple(items) => items.iter().try_for_each(hashable),
        _ => Ok(()),
    }
}

/// `iter(value)`, read to its end.
pub(crate) fn iterate<'a>(arena: &'a Bump, value: &Value<'a>) -> Result<&'a [Value<'a>]> {
    Ok(match value {
        Value::Unset | Value::Undefined(..) => &[],
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => items,
        Value::Str(text) | Value::Markup(text) => {
            let mut chars = ArenaVec::with_capacity_in(text.len(), arena);
            let part = |(at, c): (usize, char)| Value::Str(&text[at..at + c.len_utf8()]);
            chars.extend(text.char_indices().map(part));
            chars.into_bump_slice()
        }
        Value::Dict(dict) | Value::View(ViewKind::Keys, dict) => dict.keys(arena),
        Value::View(ViewKind::Values, dict) => dict.values(arena),
        Value::View(ViewKind::Items, dict) => dict.items(arena),
        Value::Range(range) => arena.alloc_slice_fill_with(range.len(), |i| range.get(i)),
        Value::Iter(items) => items.rest(),
        Value::Loop(loop_) => {
            let next = loop_.index.get() + 1;
            loop_.items.get(next..).unwrap_or_default()
        }
        _ => {
            let name = value.type_name().as_str();
            return Err(type_error(format!("'{name}' object is not iterable")));
        }
    })
}

/// `len(value)`
pub(crate) fn len(value: &Value<'_>) -> Result<usize> {
    match value {
        Value::Unset | Value::Undefined(..) => Ok(0),
        Value::Str(text) | Value::Markup(text) => Ok(text.chars().count()),
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => Ok(items.len()),
        Value::Dict(dict) | Value::View(_, dict) => Ok(dict.entries.len()),
        Value::Range(range) => Ok(range.len()),
        Value::Loop(loop_) => Ok(loop_.items.len()),
        _ => {
            Err(type_error(format!("object of type '{}' has no len()", value.type_name().as_str())))
        }
    }
}

/// `dict(value)` for a mapping or for pairs.
pub(crate) fn to_dict<'a>(arena: &'a Bump, value: &Value<'a>) -> Result<Dict<'a>> {
    if let Value::Dict(dict) = value {
        return Ok(*dict);
    }
    let pairs = iterate(arena, value)?;
    let mut dict = DictBuilder::new(arena, pairs.len());
    for pair in pairs {
        let &[key, value] = iterate(arena, pair)? else {
            let found = len(pair)?;
            return Err(value_error(format!("dict() needs pairs, found {found} values")));
        };
        hashable(&key)?;
        dict.insert(key, value);
    }
    Ok(dict.finish())
}
