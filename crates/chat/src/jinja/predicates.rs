//! The tests behind `is`: `x is defined`, `x is string`, `x is divisibleby 3`.

use bumpalo::Bump;

use super::args::Args;
use super::ast::{BinaryOp, CompareOp};
use super::error::Result;
use super::filters;
use super::ops::{binary, compare};
use super::value::Value;

pub(crate) type Predicate = for<'a> fn(&'a Bump, &Value<'a>, Args<'a>) -> Result<bool>;

pub(crate) fn find(name: &str) -> Option<Predicate> {
    Some(match name {
        "defined" => |_, v, args| type_test(!v.is_undefined(), args),
        "undefined" => |_, v, args| type_test(v.is_undefined(), args),
        "none" => |_, v, args| type_test(matches!(v, Value::None), args),
        "boolean" => |_, v, args| type_test(matches!(v, Value::Bool(_)), args),
        "true" => |_, v, args| type_test(matches!(v, Value::Bool(true)), args),
        "false" => |_, v, args| type_test(matches!(v, Value::Bool(false)), args),
        "integer" => |_, v, args| type_test(matches!(v, Value::Int(_)), args),
        "float" => |_, v, args| type_test(matches!(v, Value::Float(_)), args),
        "number" => |_, v, args| {
            type_test(matches!(v, Value::Bool(_) | Value::Int(_) | Value::Float(_)), args)
        },
        "string" => |_, v, args| type_test(v.as_str().is_some(), args),
        "mapping" => |_, v, args| type_test(matches!(v, Value::Dict(_)), args),
        "sequence" => |_, v, args| type_test(is_sequence(v), args),
        "iterable" => |_, v, args| type_test(is_iterable(v), args),
        "callable" => |_, v, args| type_test(is_callable(v), args),
        "escaped" => |_, v, args| type_test(matches!(v, Value::Markup(_)), args),
        "lower" => |arena, v, args| case_test(arena, v, "islower", args),
        "upper" => |arena, v, args| case_test(arena, v, "isupper", args),
        "odd" => |arena, v, args| remainder_is(arena, v, args, 1),
        "even" => |arena, v, args| remainder_is(arena, v, args, 0),
        "divisibleby" => |arena, v, args| {
            let [number] = args.bind("divisibleby", ["num"], 1)?.map(Option::unwrap_or_default);
            Ok(binary(arena, BinaryOp::Rem, *v, number)?.equals(&Value::int(0)))
        },
        "eq" | "==" | "equalto" => |arena, v, args| compare_test(arena, CompareOp::Eq, v, args),
        "ne" | "!=" => |arena, v, args| compare_test(arena, CompareOp::Ne, v, args),
        "lt" | "<" | "lessthan" => |arena, v, args| compare_test(arena, CompareOp::Lt, v, args),
        "le" | "<=" => |arena, v, args| compare_test(arena, CompareOp::Le, v, args),
        "gt" | ">" | "greaterthan" => |arena, v, args| compare_test(arena, CompareOp::Gt, v, args),
        "ge" | ">=" => |arena, v, args| compare_test(arena, CompareOp::Ge, v, args),
        "in" => |arena, v, args| compare_test(arena, CompareOp::In, v, args),
        "sameas" => |_, v, args| {
            let [other] = args.bind("sameas", ["other"], 1)?.map(Option::unwrap_or_default);
            Ok(is_same(v, &other))
        },
        "filter" => {
            |_, v, args| type_test(v.as_str().is_some_and(|v| filters::find(v).is_some()), args)
        }
        "test" => |_, v, args| type_test(v.as_str().is_some_and(|v| find(v).is_some()), args),
        _ => return None,
    })
}

fn type_test(result: bool, args: Args<'_>) -> Result<bool> {
    args.none("test")?;
    Ok(result)
}

fn compare_test<'a>(
    arena: &'a Bump,
    op: CompareOp,
    value: &Value<'a>,
    args: Args<'a>,
) -> Result<bool> {
    let [other] = args.bind("test", [""], 1)?.map(Option::unwrap_or_default);
    compare(arena, op, value, &other)
}

fn case_test<'a>(arena: &'a Bump, value: &Value<'a>, method: &str, args: Args<'a>) -> Result<bool> {
    args.none("test")?;
    let text = Value::Str(value.to_str(arena));
    Ok(super::methods::call(arena, &text, method, Args::default())?.is_true())
}

fn remainder_is<'a>(
    arena: &'a Bump,
    value: &Value<'a>,
    args: Args<'a>,
    expected: i128,
) -> Result<bool> {
    args.none("test")?;
    Ok(binary(arena, BinaryOp::Rem, *value, Value::int(2))?.equals(&Value::int(expected)))
}

/// Has a length and can be indexed; an undefined value has both, they only raise when used.
fn is_sequence(value: &Value<'_>) -> bool {
    value.is_undefined()
        || matches!(
            value,
            Value::Str(_)
                | Value::Markup(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Group(_)
                | Value::Dict(_)
                | Value::Range(_)
        )
}

fn is_iterable(value: &Value<'_>) -> bool {
    is_sequence(value) || matches!(value, Value::View(..) | Value::Iter(_) | Value::Loop(_))
}

fn is_callable(value: &Value<'_>) -> bool {
    value.is_undefined()
        || matches!(
            value,
            Value::Function(_)
                | Value::Method(_)
                | Value::Macro(_)
                | Value::Joiner(_)
                | Value::Loop(_)
        )
}

/// Python's `is`, for the values where it means something.
fn is_same<'a>(a: &Value<'a>, b: &Value<'a>) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            std::ptr::eq(*a, *b)
        }
        (Value::Dict(a), Value::Dict(b)) => std::ptr::eq(a.entries, b.entries),
        _ => std::mem::discriminant(a) == std::mem::discriminant(b) && a.equals(b),
    }
}
