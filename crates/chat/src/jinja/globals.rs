//! The functions that every template can call.

use std::cell::Cell;

use bumpalo::Bump;

use super::args::{Args, int};
use super::error::{ErrorKind, Failure, Result, runtime, type_error, value_error};
use super::ops::to_dict;
use super::strftime::strftime;
use super::value::{Dict, DictBuilder, Namespace, Range, Value};

/// Longest `range`, as in Jinja2's sandbox.
const MAX_RANGE: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Function {
    Range,
    Dict,
    Lipsum,
    Cycler,
    Joiner,
    Namespace,
    RaiseException,
    StrftimeNow,
}

impl Function {
    pub(crate) fn find(name: &str) -> Option<Self> {
        Some(match name {
            "range" => Self::Range,
            "dict" => Self::Dict,
            "lipsum" => Self::Lipsum,
            "cycler" => Self::Cycler,
            "joiner" => Self::Joiner,
            "namespace" => Self::Namespace,
            "raise_exception" => Self::RaiseException,
            "strftime_now" => Self::StrftimeNow,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::Dict => "dict",
            Self::Lipsum => "lipsum",
            Self::Cycler => "cycler",
            Self::Joiner => "joiner",
            Self::Namespace => "namespace",
            Self::RaiseException => "raise_exception",
            Self::StrftimeNow => "strftime_now",
        }
    }

    pub(crate) fn call<'a>(
        self,
        arena: &'a Bump,
        args: Args<'a>,
        clock: &dyn Fn() -> jiff::civil::DateTime,
    ) -> Result<Value<'a>> {
        match self {
            Self::Range => range(arena, args),
            Self::Dict => Ok(Value::Dict(dict(arena, args)?)),
            Self::Namespace => {
                let dict = dict(arena, args)?;
                for (key, _) in dict.entries {
                    check_namespace_name(key)?;
                }
                Ok(Value::Namespace(arena.alloc(Namespace::new(arena, dict))))
            }
            Self::Cycler => {
                if let Some((key, _)) = args.keyword.first() {
                    let message = format!("cycler() has no keyword argument '{key}'");
                    return Err(type_error(message));
                }
                if args.positional.is_empty() {
                    return Err(runtime("cycler() wants at least one item"));
                }
                Ok(Value::Cycler(arena.alloc((args.positional, Cell::new(0)))))
            }
            Self::Joiner => {
                let [separator] = args.bind("joiner", ["sep"], 0)?;
                let separator = separator.unwrap_or(Value::Str(", "));
                Ok(Value::Joiner(arena.alloc((separator, Cell::new(false)))))
            }
            Self::RaiseException => {
                let [message] = args.bind("raise_exception", ["message"], 1)?;
                let message = message.unwrap_or_default().text();
                Err(Failure::new(ErrorKind::Raised, message))
            }
            Self::StrftimeNow => {
                let [format] = args.bind("strftime_now", ["format"], 1)?;
                let format = format.unwrap_or_default();
                let format = super::args::text("strftime_now", &format)?;
                Ok(Value::string(arena, strftime(clock(), format)?))
            }
            Self::Lipsum => Err(runtime("lipsum() is random text and not supported")),
        }
    }
}

/// A namespace of transformers refuses names that start with an underscore.
pub(crate) fn check_namespace_name(name: &Value<'_>) -> Result<()> {
    match name.as_str() {
        Some(name) if name.starts_with('_') => {
            let message = format!("a namespace cannot hold the underscore-prefixed name '{name}'");
            Err(Failure::new(ErrorKind::Security, message))
        }
        _ => Ok(()),
    }
}

fn range<'a>(arena: &'a Bump, args: Args<'a>) -> Result<Value<'a>> {
    let [first, second, step] = args.bind("range", ["", "", ""], 1)?;
    let number = |value: &Value<'a>| {
        i64::try_from(int("range", value)?).map_err(|_| value_error("range() out of bounds"))
    };
    let first = number(&first.unwrap_or_default())?;
    let (start, stop) = match second {
        None => (0, first),
        Some(stop) => (first, number(&stop)?),
    };
    let step = step.map_or(Ok(1), |step| number(&step))?;
    if step == 0 {
        return Err(value_error("range() arg 3 must not be zero"));
    }
    let bound = 1 << 62;
    if [start, stop].iter().any(|n| n.abs() > bound) {
        return Err(value_error("range() out of bounds"));
    }
    let range = Range { start, stop, step };
    if range.len() > MAX_RANGE {
        let message = format!("range too big, the sandbox allows {MAX_RANGE} items");
        return Err(value_error(message));
    }
    Ok(Value::Range(arena.alloc(range)))
}

/// `dict(mapping_or_pairs, **kwargs)`
fn dict<'a>(arena: &'a Bump, args: Args<'a>) -> Result<Dict<'a>> {
    let dict = match args.positional {
        [] => Dict::default(),
        [one] => to_dict(arena, one)?,
        more => return Err(type_error(format!("dict() takes 1 argument, found {}", more.len()))),
    };
    let mut dict = DictBuilder::copy(arena, dict);
    for &(key, value) in args.keyword {
        dict.insert(Value::Str(key), value);
    }
    Ok(dict.finish())
}
