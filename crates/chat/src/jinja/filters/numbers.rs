//! Filters over numbers.

use super::{attributes, get_path};
use crate::jinja::args::{Args, int as int_arg, int_or, text};
use crate::jinja::error::{Result, runtime, type_error, value_error};
use crate::jinja::interp::Interp;
use crate::jinja::numbers::{parse_float, parse_int, round as round_to};
use crate::jinja::ops::{add, iterate, undefined_error};
use crate::jinja::value::Value;

pub(super) fn abs<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    args.none("abs")?;
    match &value {
        Value::Float(x) => Ok(Value::Float(x.abs())),
        value => match value.as_int() {
            Some(n) => Ok(Value::int(n.abs())),
            None if value.is_undefined() => Err(undefined_error(value)),
            None => Err(type_error(format!(
                "bad operand type for abs(): '{}'",
                value.type_name().as_str()
            ))),
        },
    }
}

pub(super) fn float<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    let [default] = args.bind("float", ["default"], 0)?;
    let parsed = match &value {
        Value::Str(text) | Value::Markup(text) => parse_float(text),
        value if value.is_undefined() => return Err(undefined_error(value)),
        value => value.as_float(),
    };
    Ok(parsed.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
}

pub(super) fn int<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    let [default, base] = args.bind("int", ["default", "base"], 0)?;
    let base = int_or("int", base.as_ref(), 10)?;
    let valid_base = base == 0 || (2..=36).contains(&base);
    let truncate = |x: f64| x.is_finite().then_some(x.trunc() as i128);
    let parsed = match &value {
        Value::Str(text) | Value::Markup(text) => {
            let whole = if valid_base { parse_int(text, base as u32) } else { None };
            whole.or_else(|| parse_float(text).and_then(truncate))
        }
        Value::Float(x) if x.is_infinite() => {
            return Err(value_error("cannot convert float infinity to integer"));
        }
        Value::Float(x) => truncate(*x),
        value if value.is_undefined() => return Err(undefined_error(value)),
        value => value.as_int(),
    };
    Ok(parsed.map_or_else(|| default.unwrap_or(Value::int(0)), Value::int))
}

pub(super) fn round<'a>(_: &mut Interp<'a>, value: Value<'a>, args: Args<'a>) -> Result<Value<'a>> {
    let [precision, method] = args.bind("round", ["precision", "method"], 0)?;
    let method = method.unwrap_or(Value::Str("common"));
    let method = text("round", &method)?;
    if value.is_undefined() {
        return Err(undefined_error(&value));
    }
    let precision = match &precision {
        None => 0,
        Some(precision) => int_arg("round", precision)?,
    };
    let not_a_number =
        || type_error(format!("type {} cannot be rounded", value.type_name().as_str()));
    match method {
        "common" => match (&value, value.as_int()) {
            (_, Some(n)) if precision >= 0 => Ok(Value::int(n)),
            (_, Some(n)) => Ok(Value::int(round_to(n as f64, precision) as i128)),
            (Value::Float(x), _) => Ok(Value::Float(round_to(*x, precision))),
            _ => Err(not_a_number()),
        },
        "ceil" | "floor" => {
            let x = value.as_float().ok_or_else(not_a_number)?;
            let unit = 10f64.powi(precision.clamp(-400, 400) as i32);
            let scaled = x * unit;
            let whole = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
            Ok(Value::Float(whole / unit))
        }
        _ => Err(runtime("the method of round must be common, ceil or floor")),
    }
}

pub(super) fn sum<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let [attribute, start] = args.bind("sum", ["attribute", "start"], 0)?;
    let path = match &attribute {
        None | Some(Value::None) => None,
        Some(attribute) => Some(attributes(interp.arena, attribute)?),
    };
    let mut total = start.unwrap_or(Value::int(0));
    if total.as_str().is_some() {
        return Err(type_error("sum() can't sum strings"));
    }
    for item in iterate(interp.arena, &value)? {
        let item = match &path {
            Some(path) => get_path(interp.arena, *item, path, None)?,
            None => *item,
        };
        total = add(interp.arena, total, item)?;
    }
    Ok(total)
}
