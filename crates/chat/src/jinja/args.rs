//! Arguments of a call, bound to parameters as Python binds them.

use super::error::{Result, type_error};
use super::value::Value;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Args<'a> {
    pub(crate) positional: &'a [Value<'a>],
    pub(crate) keyword: &'a [(&'a str, Value<'a>)],
}

impl<'a> Args<'a> {
    pub(crate) fn positional(positional: &'a [Value<'a>]) -> Self {
        Self { positional, keyword: &[] }
    }

    /// Binds to `names`, of which the first `required` must be given. A parameter that can only be
    /// given by position has the name `""`.
    pub(crate) fn bind<const N: usize>(
        self,
        function: &str,
        names: [&str; N],
        required: usize,
    ) -> Result<[Option<Value<'a>>; N]> {
        if self.positional.len() > N {
            let found = self.positional.len();
            return Err(type_error(format!(
                "{function}() takes at most {N} arguments, found {found}"
            )));
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(*value);
        }
        for &(key, value) in self.keyword {
            let at = names.iter().position(|name| !name.is_empty() && *name == key);
            match at {
                None => {
                    let message = format!("{function}() has no keyword argument '{key}'");
                    return Err(type_error(message));
                }
                Some(at) if bound[at].is_some() => {
                    let message = format!("{function}() got two values for '{key}'");
                    return Err(type_error(message));
                }
                Some(at) => bound[at] = Some(value),
            }
        }
        if let Some(missing) = bound[..required].iter().position(Option::is_none) {
            let name = names[missing];
            let name =
                if name.is_empty() { format!("{}", missing + 1) } else { format!("'{name}'") };
            return Err(type_error(format!("{function}() misses the argument {name}")));
        }
        Ok(bound)
    }

    pub(crate) fn none(self, function: &str) -> Result<()> {
        if self.positional.is_empty() && self.keyword.is_empty() {
            return Ok(());
        }
        self.bind::<0>(function, [], 0).map(|_| ())
    }
}

/// An argument that must be a string.
pub(crate) fn text<'a>(function: &str, value: &Value<'a>) -> Result<&'a str> {
    value.as_str().ok_or_else(|| {
        let found = value.type_name().as_str();
        type_error(format!("{function}() wants a str, found {found}"))
    })
}

/// An argument that must be an integer.
pub(crate) fn int(function: &str, value: &Value<'_>) -> Result<i128> {
    value.as_int().ok_or_else(|| {
        let found = value.type_name().as_str();
        type_error(format!("{function}() wants an int, found {found}"))
    })
}

/// An integer argument with a default, also where `None` was given.
pub(crate) fn int_or(function: &str, value: Option<&Value<'_>>, default: i128) -> Result<i128> {
    match value {
        None => Ok(default),
        Some(value) => int(function, value),
    }
}
