//! The tests behind `is`: `x is defined`, `x is string`, `x is divisibleby 3`.

use super::args::Args;
use super::ast::{BinaryOp, CompareOp};
use super::error::Result;
use super::filters;
use super::ops::{binary, compare};
use super::value::Value;

pub(crate) type Predicate = for<'a> fn(&Value<'a>, Args<'a>) -> Result<bool>;

pub(crate) fn find(name: &str) -> Option<Predicate> {
    Some(match name {
        "defined" => |v, args| type_test(!v.is_undefined(), args),
        "undefined" => |v, args| type_test(v.is_undefined(), args),
        "none" => |v, args| type_test(matches!(v, Value::None), args),
        "boolean" => |v, args| type_test(matches!(v, Value::Bool(_)), args),
        "true" => |v, args| type_test(matches!(v, Value::Bool(true)), args),
        "false" => |v, args| type_test(matches!(v, Value::Bool(false)), args),
        "integer" => |v, args| type_test(matches!(v, Value::Int(_)), args),
        "float" => |v, args| type_test(matches!(v, Value::Float(_)), args),
        "number" => {
            |v, args| type_test(matches!(v, Value::Bool(_) | Value::Int(_) | Value::Float(_)), args)
        }
        "string" => |v, args| type_test(v.as_str().is_some(), args),
        "mapping" => |v, args| type_test(matches!(v, Value::Dict(_)), args),
        "sequence" => |v, args| type_test(is_sequence(v), args),
        "iterable" => |v, args| type_test(is_iterable(v), args),
        "callable" => |v, args| type_test(is_callable(v), args),
        "escaped" => |v, args| type_test(matches!(v, Value::Markup(_)), args),
        "lower" => |v, args| case_test(v, "islower", args),
        "upper" => |v, args| case_test(v, "isupper", args),
        "odd" => |v, args| remainder_is(v, args, 1),
        "even" => |v, args| remainder_is(v, args, 0),
        "divisibleby" => |v, args| {
            let [number] = args.bind("divisibleby", ["num"], 1)?.map(Option::unwrap_or_default);
            Ok(binary(BinaryOp::Rem, v.clone(), number)?.equals(&Value::Int(0)))
        },
        "eq" | "==" | "equalto" => |v, args| compare_test(CompareOp::Eq, v, args),
        "ne" | "!=" => |v, args| compare_test(CompareOp::Ne, v, args),
        "lt" | "<" | "lessthan" => |v, args| compare_test(CompareOp::Lt, v, args),
        "le" | "<=" => |v, args| compare_test(CompareOp::Le, v, args),
        "gt" | ">" | "greaterthan" => |v, args| compare_test(CompareOp::Gt, v, args),
        "ge" | ">=" => |v, args| compare_test(CompareOp::Ge, v, args),
        "in" => |v, args| compare_test(CompareOp::In, v, args),
        "sameas" => |v, args| {
            let [other] = args.bind("sameas", ["other"], 1)?.map(Option::unwrap_or_default);
            Ok(is_same(v, &other))
        },
        "filter" => {
            |v, args| type_test(v.as_str().is_some_and(|v| filters::find(v).is_some()), args)
        }
        "test" => |v, args| type_test(v.as_str().is_some_and(|v| find(v).is_some()), args),
        _ => return None,
    })
}

fn type_test(result: bool, args: Args<'_>) -> Result<bool> {
    args.none("test")?;
    Ok(result)
}

fn compare_test<'a>(op: CompareOp, value: &Value<'a>, args: Args<'a>) -> Result<bool> {
    let [other] = args.bind("test", [""], 1)?.map(Option::unwrap_or_default);
    compare(op, value, &other)
}

fn case_test<'a>(value: &Value<'a>, method: &str, args: Args<'a>) -> Result<bool> {
    args.none("test")?;
    let text = Value::Str(value.to_str());
    Ok(super::methods::call(&text, method, Args::default())?.is_true())
}

fn remainder_is<'a>(value: &Value<'a>, args: Args<'a>, expected: i128) -> Result<bool> {
    args.none("test")?;
    Ok(binary(BinaryOp::Rem, value.clone(), Value::Int(2))?.equals(&Value::Int(expected)))
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
    use std::rc::Rc;
    match (a, b) {
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        _ => std::mem::discriminant(a) == std::mem::discriminant(b) && a.equals(b),
    }
}
