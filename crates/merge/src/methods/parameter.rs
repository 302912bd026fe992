//! What a method takes, and what one tensor's values are.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Serialize;

use crate::Error;

/// Every finite number.
pub const FINITE: RangeInclusive<f64> = f64::MIN..=f64::MAX;

/// A parameter of a method.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name in the configuration.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Whether each input has its own.
    pub scope: Scope,
    /// What it is when the configuration does not say; `None` where it must.
    pub default: Option<Value>,
    /// Whether it changes anything; one that is only accepted does not.
    pub used: bool,
}

/// What values a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Number,
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// Whose parameter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One for all inputs.
    Shared,
    /// One for each input; the base has none where the method tells it from the inputs.
    PerInput,
}

/// The value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(f64),
    /// A word, as the parameter's kind has it.
    Choice(&'static str),
}

impl Parameter {
    /// A number that the configuration must give.
    pub fn number(name: &'static str) -> Self {
        Self { name, kind: Kind::Number, scope: Scope::Shared, default: None, used: true }
    }

    /// A switch.
    pub fn flag(name: &'static str, default: bool) -> Self {
        let default = Some(Value::Flag(default));
        Self { name, kind: Kind::Flag, scope: Scope::Shared, default, used: true }
    }

    /// One of the `words`, the first of them unless the configuration says another.
    ///
    /// # Panics
    /// When there is no word.
    pub fn choice(name: &'static str, words: &'static [&'static str]) -> Self {
        let default = Some(Value::Choice(words[0]));
        Self { name, kind: Kind::Choice(words), scope: Scope::Shared, default, used: true }
    }

    /// The same, one for each input.
    #[must_use]
    pub fn per_input(self) -> Self {
        Self { scope: Scope::PerInput, ..self }
    }

    /// The same, accepted without an effect: configurations have it.
    #[must_use]
    pub fn unused(self) -> Self {
        Self { used: false, ..self }
    }

    /// The same, with a value for when the configuration gives none.
    #[must_use]
    pub fn or(self, default: f64) -> Self {
        Self { default: Some(Value::Number(default)), ..self }
    }
}

/// The parameters of one tensor: every one that the method has is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Resolved {
    /// Those of all inputs.
    pub shared: BTreeMap<&'static str, Value>,
    /// Those of each input, in the order of the inputs.
    pub inputs: Vec<BTreeMap<&'static str, Value>>,
}

impl Resolved {
    /// A shared number.
    ///
    /// # Panics
    /// When the method has no such parameter.
    pub fn number(&self, name: &str) -> f64 {
        number(&self.shared, name)
    }

    /// A shared switch.
    ///
    /// # Panics
    /// When the method has no such parameter.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.shared[name], Value::Flag(true))
    }

    /// A shared word.
    ///
    /// # Panics
    /// When the method has no such parameter.
    pub fn choice(&self, name: &str) -> &'static str {
        match self.shared[name] {
            Value::Choice(word) => word,
            other => panic!("`{name}` is {other:?}, no word"),
        }
    }

    /// A number of each input.
    ///
    /// # Panics
    /// When the method has no such parameter.
    pub fn numbers(&self, name: &str) -> Vec<f64> {
        self.inputs.iter().map(|input| number(input, name)).collect()
    }

    /// A shared number that must lie in `range`.
    ///
    /// # Errors
    /// [`Error::Value`] if it does not.
    ///
    /// # Panics
    /// When the method has no such parameter.
    pub fn number_within(&self, name: &str, range: &RangeInclusive<f64>) -> Result<f64, Error> {
        within(name.into(), self.number(name), range)
    }

    /// A number of each input that must lie in `range`.
    ///
    /// # Errors
    /// [`Error::Value`] for the first that does not.
    ///
    /// # Panics
    /// When the method has no such parameter.
    pub fn numbers_within(
        &self,
        name: &str,
        range: &RangeInclusive<f64>,
    ) -> Result<Vec<f64>, Error> {
        let numbers = self.numbers(name).into_iter().enumerate();
        numbers.map(|(i, value)| within(format!("inputs[{i}].{name}"), value, range)).collect()
    }
}

fn within(key: String, value: f64, range: &RangeInclusive<f64>) -> Result<f64, Error> {
    if range.contains(&value) {
        return Ok(value);
    }
    let expected = if *range == FINITE {
        "a finite number".into()
    } else if *range.end() == f64::MAX {
        format!("a number from {} on", range.start())
    } else {
        format!("a number from {} to {}", range.start(), range.end())
    };
    Err(Error::value(key, value, expected))
}

fn number(values: &BTreeMap<&'static str, Value>, name: &str) -> f64 {
    match values[name] {
        Value::Number(value) => value,
        Value::Flag(value) => f64::from(u8::from(value)),
        Value::Choice(word) => panic!("`{name}` is {word}, no number"),
    }
}
