//! YAML as a tree that knows its lines.
//!
//! Scalars are what YAML 1.2 says, with the caution that files written for YAML 1.1 need: only `true`
//! and `false` are booleans (`yes` and `on` stay texts, which a boolean parameter then takes), and a
//! number with a leading zero stays a text, because YAML 1.1 reads it as octal.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Spanned};

/// A value and the line where it stands; 0 where there is none.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) yaml: Yaml,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Yaml {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys with the lines where they stand, as often as they stand there.
    Map(Vec<(String, usize, Node)>),
}

/// The documents of a text; those with nothing in them are skipped.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: 100_000, max_depth: 64 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        // Found while reading, all of them and with their key paths.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        reject_unsupported_tags: true,
    };
    serde_saphyr::from_multiple_with_options::<Spanned<Yaml>>(text, options)
        .map(|documents| documents.into_iter().map(Node::from).collect())
        .map_err(|error| line_first(&error))
}

/// The reader's message with its line in front, as in all messages here.
fn line_first(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
    let Some(place) = error.location() else { return message };
    let (line, column) = (place.line(), place.column());
    let end = format!(" at line {line}, column {column}");
    let message = message.strip_suffix(&end).unwrap_or(&message);
    if message.starts_with("line ") { message.into() } else { format!("line {line}: {message}") }
}

impl From<Spanned<Yaml>> for Node {
    fn from(spanned: Spanned<Yaml>) -> Self {
        Self { line: spanned.defined.line() as usize, yaml: spanned.value }
    }
}

impl From<&Value> for Node {
    fn from(value: &Value) -> Self {
        let yaml = match value {
            Value::Null => Yaml::Null,
            Value::Bool(value) => Yaml::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(int), _) => Yaml::Int(int),
                (None, Some(float)) => Yaml::Float(float),
                (None, None) => Yaml::Text(number.to_string()),
            },
            Value::String(text) => Yaml::Text(text.clone()),
            Value::Array(items) => Yaml::List(items.iter().map(Self::from).collect()),
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| (key.clone(), 0, value.into());
                Yaml::Map(map.iter().map(entry).collect())
            }
        };
        Self { line: 0, yaml }
    }
}

/// What a message says was found.
impl fmt::Display for Yaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => write!(f, "nothing"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "the number {value}"),
            Self::Float(value) => write!(f, "the number {value:?}"),
            Self::Text(text) if text.chars().count() > 60 => {
                let start: String = text.chars().take(60).collect();
                write!(f, "the text {start:?}...")
            }
            Self::Text(text) => write!(f, "the text {text:?}"),
            Self::List(items) if items.is_empty() => write!(f, "an empty list"),
            Self::List(items) => write!(f, "a list of {}", items.len()),
            Self::Map(entries) if entries.is_empty() => write!(f, "an empty mapping"),
            Self::Map(entries) => {
                let keys: Vec<&str> = entries.iter().take(4).map(|(key, ..)| &**key).collect();
                let more = if entries.len() > 4 { ", ..." } else { "" };
                write!(f, "a mapping of {}{more}", keys.join(", "))
            }
        }
    }
}

/// The keys that stand more than once, with the lines of their first and of the other places.
pub(crate) fn duplicates(entries: &[(String, usize, Node)]) -> Vec<(&str, usize, usize)> {
    let mut first = HashMap::new();
    let mut found = Vec::new();
    for (key, line, _) in entries {
        match first.get(&**key) {
            Some(before) => found.push((&**key, *before, *line)),
            None => drop(first.insert(&**key, *line)),
        }
    }
    found
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
        deserializer.deserialize_any(Self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
        Ok(i64::try_from(value).map_or(Yaml::Float(value as f64), Yaml::Int))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Yaml, E> {
        Ok(i64::try_from(value).map_or(Yaml::Float(value as f64), Yaml::Int))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Yaml, E> {
        Ok(i64::try_from(value).map_or(Yaml::Float(value as f64), Yaml::Int))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Yaml, E> {
        if value.is_finite() {
            return Ok(Yaml::Float(value));
        }
        Err(E::custom(format!("{value} is not a finite number")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Yaml, E> {
        Ok(Yaml::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Yaml, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Yaml>>()? {
            list.push(item.into());
        }
        Ok(Yaml::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Yaml, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<Yaml>>()? {
            let line = key.defined.line() as usize;
            let Yaml::Text(text) = key.value else {
                let message = format!(
                    "line {line}: a key is {}, expected a text: put it in quotes if it is meant",
                    key.value
                );
                return Err(A::Error::custom(message));
            };
            map.push((text, line, entries.next_value::<Spanned<Yaml>>()?.into()));
        }
        Ok(Yaml::Map(map))
    }
}
