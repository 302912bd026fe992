//! Ranges of parameters.

use std::fmt::Display;

use crate::Error;

/// `value` if it is finite and `allowed`.
pub(super) fn number(
    key: &str,
    value: f64,
    allowed: impl Fn(f64) -> bool,
    expected: &str,
) -> Result<f64, Error> {
    if value.is_finite() && allowed(value) {
        return Ok(value);
    }
    Err(Error::value(key, value, expected))
}

/// `values` if all are finite.
pub(super) fn finite(key: &str, values: Vec<f64>) -> Result<Vec<f64>, Error> {
    for value in &values {
        number(key, *value, |_| true, "a finite number")?;
    }
    Ok(values)
}

/// Nothing if as many values were given as there are inputs.
pub(super) fn one_each(
    tensor: &str,
    what: impl Display,
    given: usize,
    inputs: usize,
) -> Result<(), Error> {
    if given == inputs {
        return Ok(());
    }
    let reason = format!("{given} values of `{what}` for {inputs} inputs, expected one for each");
    Err(Error::tensor(tensor, reason))
}
