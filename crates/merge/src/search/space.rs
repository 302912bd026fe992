//! Which numbers of a configuration are searched, and between which values.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::Serialize;
use serde_json::Value;

use super::path;
use crate::Error;

/// A value for each number of a [`Space`], in its order.
pub type Point = Vec<f64>;

/// The values that a number may take.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// Every value from the first to the last.
    Real(f64, f64),
    /// The same, with equal steps of the logarithm.
    Log(f64, f64),
    /// Whole numbers from the first to the last; for a grid.
    Integer(i64, i64),
    /// These values, in this order; for a grid.
    Choices(Vec<f64>),
}

/// One number to search, or a list of them, at one or several places of the configuration.
///
/// A path that leads to a list (a gradient over the layers) stands for one number per entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Number {
    name: String,
    paths: Vec<String>,
    domain: Domain,
}

impl Number {
    fn new(path: impl Into<String>, domain: Domain) -> Self {
        let path = path.into();
        Self { name: path.clone(), paths: vec![path], domain }
    }

    /// Any value of `range`.
    pub fn real(path: impl Into<String>, range: RangeInclusive<f64>) -> Self {
        Self::new(path, Domain::Real(*range.start(), *range.end()))
    }

    /// Any value of `range`, searched by its logarithm.
    pub fn log(path: impl Into<String>, range: RangeInclusive<f64>) -> Self {
        Self::new(path, Domain::Log(*range.start(), *range.end()))
    }

    /// The whole numbers of `range`.
    pub fn integer(path: impl Into<String>, range: RangeInclusive<i64>) -> Self {
        Self::new(path, Domain::Integer(*range.start(), *range.end()))
    }

    /// One of `values`.
    pub fn choices(path: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        Self::new(path, Domain::Choices(values.into_iter().collect()))
    }

    /// Writes the same number at another place as well.
    #[must_use]
    pub fn tied_to(mut self, path: impl Into<String>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Calls the number so in reports; without it, by its first path.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Its name in reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every place that it is written to.
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// The values it may take.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
}

/// The numbers of a configuration that a search may change; a list is one number per entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Space {
    numbers: Vec<Number>,
}

impl Space {
    /// The numbers at their places in `config`. What stands there now is where a search starts.
    ///
    /// # Errors
    /// [`Error::Value`] for a path that leads to no number (with the nearest one that does), a
    /// place that two numbers want, an empty range, and a value of `config` outside its range.
    pub fn new(config: &Value, numbers: impl IntoIterator<Item = Number>) -> Result<Self, Error> {
        let mut space = Self { numbers: Vec::new() };
        for number in numbers {
            check(&number)?;
            space.numbers.extend(entries(config, number)?);
        }
        if space.numbers.is_empty() {
            return Err(Error::value("space", "empty", "at least one number to search"));
        }
        let mut names = BTreeSet::new();
        let mut places = BTreeMap::new();
        for number in &space.numbers {
            if !names.insert(&number.name) {
                return Err(Error::value(&number.name, "the name of two numbers", "one name each"));
            }
            for path in &number.paths {
                // The steps: one place can be written in two ways.
                if let Some(other) = places.insert(path::parse(path)?, &number.name) {
                    let found = format!("searched as `{other}` and as `{}`", number.name);
                    return Err(Error::value(path, found, "one number for one place"));
                }
            }
        }
        space.start(config)?;
        Ok(space)
    }

    /// The numbers, lists expanded.
    pub fn numbers(&self) -> &[Number] {
        &self.numbers
    }

    /// The values that `config` has now.
    ///
    /// # Errors
    /// [`Error::Value`] for a missing number, one outside its range, and places that should have
    /// the same number and do not.
    pub fn start(&self, config: &Value) -> Result<Point, Error> {
        let mut point = Point::with_capacity(self.numbers.len());
        for number in &self.numbers {
            let value = leaf(config, &number.paths[0])?;
            for tied in &number.paths[1..] {
                let other = leaf(config, tied)?;
                if other != value {
                    let expected = format!("{value} as `{}`, to which it is tied", number.paths[0]);
                    return Err(Error::value(tied, other, expected));
                }
            }
            number.domain.check(&number.paths[0], value)?;
            point.push(value);
        }
        Ok(point)
    }

    /// `config` with the values of `point`.
    ///
    /// # Errors
    /// [`Error::Value`] for a point of another length, a value out of its range and a place that
    /// `config` does not have.
    pub fn apply(&self, config: &Value, point: &[f64]) -> Result<Value, Error> {
        if point.len() != self.numbers.len() {
            let expected = format!("{} values", self.numbers.len());
            return Err(Error::value("point", format!("{} values", point.len()), expected));
        }
        let mut config = config.clone();
        for (number, value) in self.numbers.iter().zip(point) {
            number.domain.check(&number.name, *value)?;
            for path in &number.paths {
                let steps = path::parse(path)?;
                let place = path::get_mut(&mut config, &steps)
                    .ok_or_else(|| Error::value(path, "not in the configuration", "a number"))?;
                *place = if place.is_i64() && value.fract() == 0.0 && number.domain.is_listed() {
                    Value::from(*value as i64)
                } else {
                    Value::from(*value)
                };
            }
        }
        Ok(config)
    }

    /// Each number from 0 at the low end of its range to 1 at the high end.
    ///
    /// # Errors
    /// [`Error::Value`] for numbers that have no range of real numbers.
    pub(crate) fn to_unit(&self, point: &[f64]) -> Result<Point, Error> {
        let unit = self.numbers.iter().zip(point).map(|(number, value)| match number.domain {
            Domain::Real(low, high) => Ok((value - low) / (high - low)),
            Domain::Log(low, high) => Ok((value / low).ln() / (high / low).ln()),
            Domain::Integer(..) | Domain::Choices(_) => {
                let expected = "a range of real numbers for CMA-ES, or a grid";
                Err(Error::value(&number.name, "a list of values", expected))
            }
        });
        unit.map(|unit| unit.map(|unit| unit.clamp(0.0, 1.0))).collect()
    }

    /// The inverse of [`Space::to_unit`].
    pub(crate) fn of_unit(&self, unit: &[f64]) -> Point {
        self.numbers
            .iter()
            .zip(unit)
            .map(|(number, unit)| match number.domain {
                Domain::Log(low, high) => {
                    ((high / low).ln() * unit + low.ln()).exp().clamp(low, high)
                }
                Domain::Real(low, high) => ((high - low) * unit + low).clamp(low, high),
                Domain::Integer(..) | Domain::Choices(_) => *unit,
            })
            .collect()
    }
}

impl Domain {
    /// Whether it is a list of values rather than a range.
    fn is_listed(&self) -> bool {
        matches!(self, Self::Integer(..) | Self::Choices(_))
    }

    fn check(&self, key: &str, value: f64) -> Result<(), Error> {
        let (inside, expected) = match self {
            Self::Real(low, high) | Self::Log(low, high) => {
                ((*low..=*high).contains(&value), format!("{low} to {high}"))
            }
            Self::Integer(low, high) => (
                value.fract() == 0.0 && (*low as f64..=*high as f64).contains(&value),
                format!("a whole number from {low} to {high}"),
            ),
            Self::Choices(values) => (values.contains(&value), format!("one of {values:?}")),
        };
        if inside { Ok(()) } else { Err(Error::value(key, value, expected)) }
    }
}

/// Whole numbers beyond this are not all numbers of f64.
const WHOLE: i64 = 1 << 53;

fn check(number: &Number) -> Result<(), Error> {
    let fault = match &number.domain {
        Domain::Real(low, high) if !(low.is_finite() && high.is_finite() && low < high) => {
            Some((format!("searched from {low} to {high}"), "low below high, both finite"))
        }
        Domain::Real(low, high) if !(high - low).is_finite() => {
            Some((format!("searched from {low} to {high}"), "a finite range"))
        }
        Domain::Log(low, high) if !(*low > 0.0 && high.is_finite() && low < high) => Some((
            format!("searched by logarithm from {low} to {high}"),
            "low below high, both positive and finite",
        )),
        Domain::Integer(low, high) if low > high || *low < -WHOLE || *high > WHOLE => {
            Some((format!("searched from {low} to {high}"), "low up to high, at most 2^53"))
        }
        Domain::Choices(values) if values.is_empty() => {
            Some(("a choice of nothing".to_owned(), "at least one value"))
        }
        Domain::Choices(values) => values.iter().enumerate().find_map(|(i, value)| {
            let again = values[..i].contains(value);
            (again || !value.is_finite())
                .then(|| (format!("a choice of {values:?}"), "finite values, each once"))
        }),
        _ => None,
    };
    fault.map_or(Ok(()), |(found, expected)| Err(Error::value(&number.name, found, expected)))
}

/// The number itself, or one per entry of the lists that its paths lead to.
fn entries(config: &Value, number: Number) -> Result<Vec<Number>, Error> {
    let mut length: Option<(&String, Option<usize>)> = None;
    for path in &number.paths {
        let found = match place(config, path)? {
            Value::Array(items) => Some(items.len()),
            _ => None,
        };
        match length {
            None => length = Some((path, found)),
            Some((first, wanted)) if wanted != found => {
                let show = |length: Option<usize>| match length {
                    Some(length) => format!("a list of {length}"),
                    None => "one value".to_owned(),
                };
                let expected = format!("{} as `{first}`, to which it is tied", show(wanted));
                return Err(Error::value(path, show(found), expected));
            }
            Some(_) => {}
        }
    }
    let Some((_, Some(length))) = length else {
        for path in &number.paths {
            leaf(config, path)?;
        }
        return Ok(vec![number]);
    };
    let mut entries = Vec::with_capacity(length);
    for i in 0..length {
        let paths: Vec<String> = number.paths.iter().map(|path| format!("{path}[{i}]")).collect();
        for path in &paths {
            leaf(config, path)?;
        }
        let name = format!("{}[{i}]", number.name);
        entries.push(Number { name, paths, domain: number.domain.clone() });
    }
    Ok(entries)
}

fn place<'a>(config: &'a Value, path: &str) -> Result<&'a Value, Error> {
    let steps = path::parse(path)?;
    path::get(config, &steps)
        .ok_or_else(|| Error::value(path, "not in the configuration", available(config, path)))
}

fn leaf(config: &Value, path: &str) -> Result<f64, Error> {
    let value = place(config, path)?;
    path::number(value).ok_or_else(|| Error::value(path, shorten(value), available(config, path)))
}

fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// How many numbers an error lists.
const LISTED: usize = 12;

/// Did you mean this one, and what else there is.
fn available(config: &Value, wanted: &str) -> String {
    let mut numbers = path::numbers(config);
    if numbers.is_empty() {
        return "a number, but the configuration has none".to_owned();
    }
    let near = |path: &String| (strsim::jaro_winkler(wanted, path) * 1e9) as i64;
    numbers.sort_by_key(|path| std::cmp::Reverse(near(path)));
    let more = match numbers.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    numbers.truncate(LISTED);
    let best = numbers[0].clone();
    numbers.sort();
    let list = numbers.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ");
    format!("a number; did you mean `{best}`? There are {list}{more}")
}
