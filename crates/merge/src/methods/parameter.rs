//! What a method takes, and what one tensor's values are.

use std::collections::BTreeMap;

use serde::Serialize;

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
        Self { name, kind: Kind::Number, scope: Scope::Shared, default: None }
    }

    /// A switch.
    pub fn flag(name: &'static str, default: bool) -> Self {
        let default = Some(Value::Flag(default));
        Self { name, kind: Kind::Flag, scope: Scope::Shared, default }
    }

    /// One of the `words`, the first of them unless the configuration says another.
    ///
    /// # Panics
    /// When there is no word.
    pub fn choice(name: &'static str, words: &'static [&'static str]) -> Self {
        let default = Some(Value::Choice(words[0]));
        Self { name, kind: Kind::Choice(words), scope: Scope::Shared, default }
    }

    /// The same, one for each input.
    #[must_use]
    pub fn per_input(self) -> Self {
        Self { scope: Scope::PerInput, ..self }
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
}

fn number(values: &BTreeMap<&'static str, Value>, name: &str) -> f64 {
    match values[name] {
        Value::Number(value) => value,
        Value::Flag(value) => f64::from(u8::from(value)),
        Value::Choice(word) => panic!("`{name}` is {word}, no number"),
    }
}
