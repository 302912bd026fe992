//! `optim_args`: settings of one optimizer in the form of transformers, `momentum=0.9, nesterov=true`.

use std::str::FromStr;

use crate::Error;

/// The arguments that nobody has asked for yet, and the names that were asked for.
#[derive(Debug)]
pub(super) struct Arguments {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Arguments {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let mut given: Vec<(String, String)> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let pair = part.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
            let Some((key, value)) = pair else {
                return Err(Error::config("optim_args", format!("`{part}`"), "`key=value`"));
            };
            if given.iter().any(|(known, _)| known == key) {
                return Err(Error::config("optim_args", format!("`{key}` twice"), "each key once"));
            }
            given.push((key.into(), value.into()));
        }
        Ok(Self { given, known: Vec::new() })
    }

    /// The value of a key, if it was given.
    pub(super) fn take(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        let place = self.given.iter().position(|(given, _)| given == key)?;
        Some(self.given.remove(place).1)
    }

    pub(super) fn number(&mut self, key: &'static str, default: f64) -> Result<f64, Error> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    pub(super) fn optional_number(&mut self, key: &'static str) -> Result<Option<f64>, Error> {
        self.parsed(key, "a number")
    }

    pub(super) fn count(&mut self, key: &'static str, default: usize) -> Result<usize, Error> {
        Ok(self.parsed(key, "a whole number")?.unwrap_or(default))
    }

    /// `true`, `1` or `yes`, and their opposites, as transformers takes them.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, Error> {
        let Some(value) = self.take(key) else { return Ok(default) };
        match value.to_lowercase().as_str() {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            _ => Err(wrong(key, &value, "true or false")),
        }
    }

    fn parsed<T: FromStr>(&mut self, key: &'static str, what: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| wrong(key, &value, what))
    }

    /// That nothing is left which the optimizer does not have.
    pub(super) fn finish(self, optimizer: &str) -> Result<(), Error> {
        let Some((key, _)) = self.given.first() else { return Ok(()) };
        let expected = if self.known.is_empty() {
            format!("nothing: {optimizer} has no arguments")
        } else {
            format!("one of {}, which {optimizer} has", self.known.join(", "))
        };
        Err(Error::config("optim_args", format!("`{key}`"), expected))
    }
}

pub(super) fn wrong(key: &str, found: &str, expected: &str) -> Error {
    Error::config(format!("optim_args.{key}"), format!("`{found}`"), expected)
}
