//! The columns of a row, found under their usual or mapped names.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json};

use super::{CONTEXT, FORMS, Format};
use crate::error::{Error, Result};
use crate::fault::Fault;

/// Which column of the files stands for which column of a format.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns(BTreeMap<String, String>);

impl Columns {
    /// # Errors
    /// [`Error::Options`] for a name that no format has, and for a column that is mapped twice.
    pub(crate) fn new(mapped: &BTreeMap<String, String>) -> Result<Self> {
        let known = known();
        let mut taken = BTreeMap::new();
        for (name, column) in mapped {
            if !known.contains(&name.as_str()) {
                let expected = format!("a column of a format: {}", known.join(", "));
                return Err(Error::options("columns", format!("the key `{name}`"), expected));
            }
            if let Some(other) = taken.insert(column, name) {
                let expected = format!("a column that is not yet mapped to `{other}`");
                return Err(Error::options(format!("columns.{name}"), column, expected));
            }
        }
        Ok(Self(mapped.clone()))
    }

    /// The column of the files that stands for this one; none when that column is mapped to another.
    pub(crate) fn column<'c>(&'c self, name: &'c str) -> Option<&'c str> {
        match self.0.get(name) {
            Some(column) => Some(column),
            None if self.0.values().any(|column| column == name) => None,
            None => Some(name),
        }
    }

    /// All that are mapped: name, column of the files.
    pub(crate) fn mapped(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, column)| (name.as_str(), column.as_str()))
    }

    /// # Errors
    /// [`Error::Options`] when a column is mapped that the rows do not have, and that a form cannot do
    /// without.
    pub(crate) fn check_present(&self, found: &[&str], path: &Path) -> Result<()> {
        let needed = |name: &str| {
            let required = FORMS.iter().flat_map(|form| form.required);
            required.flat_map(|column| column.split('|')).any(|column| column == name)
        };
        let absent = |(_, column): &(&str, &str)| !found.contains(column);
        let Some((name, column)) = self.mapped().find(|pair| needed(pair.0) && absent(pair)) else {
            return Ok(());
        };
        let expected = format!("a column of {}: {}", path.display(), names(found.iter().copied()));
        Err(Error::options(format!("columns.{name}"), format!("`{column}`"), expected))
    }

    /// # Errors
    /// [`Error::Options`] when something is mapped that the format has no use for.
    pub(crate) fn check(&self, format: Format) -> Result<()> {
        let form = format.form();
        let mut used = Vec::new();
        for columns in [form.required, form.optional, &CONTEXT] {
            used.extend(columns.iter().flat_map(|column| column.split('|')));
        }
        let Some((name, column)) = self.mapped().find(|(name, _)| !used.contains(name)) else {
            return Ok(());
        };
        let expected = format!("a column of the format `{}`: {}", format.as_str(), used.join(", "));
        Err(Error::options(format!("columns.{name}"), column, expected))
    }
}

/// The names of all columns that formats know.
fn known() -> Vec<&'static str> {
    let mut known = Vec::new();
    let columns = FORMS.iter().flat_map(|form| form.required.iter().chain(form.optional));
    for name in columns.chain(&CONTEXT).flat_map(|column| column.split('|')) {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    known
}

/// A row's columns, taken one after the other; what is left is metadata.
pub(crate) struct Fields<'c> {
    object: Map<String, Json>,
    taken: Vec<&'c str>,
    columns: &'c Columns,
}

impl<'c> Fields<'c> {
    pub(crate) fn new(object: Map<String, Json>, columns: &'c Columns) -> Self {
        Self { object, taken: Vec::new(), columns }
    }

    /// The name of a column in the files.
    pub(crate) fn name(&self, name: &'static str) -> &'c str {
        self.columns.column(name).unwrap_or(name)
    }

    /// Takes a column; null is as good as absent.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Json> {
        let column = self.columns.column(name)?;
        let value = self.object.shift_remove(column)?;
        self.taken.push(column);
        Some(value).filter(|value| !value.is_null())
    }

    /// Takes a column that has to be there.
    pub(crate) fn require(&mut self, name: &'static str) -> Result<Json, Fault> {
        let column = self.columns.column(name);
        if let Some((column, null @ Json::Null)) =
            column.and_then(|c| Some((c, self.object.get(c)?)))
        {
            return Err(Fault::value(column, null, "a value"));
        }
        self.take(name).ok_or_else(|| {
            let taken = self.taken.iter().copied();
            let found = names(taken.chain(self.object.keys().map(String::as_str)));
            Fault::Missing { column: self.name(name).to_owned(), found }
        })
    }

    /// Takes a text that has to be there; it may be empty.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<String, Fault> {
        match self.require(name)? {
            Json::String(text) => Ok(text),
            found => Err(Fault::value(self.name(name), &found, "a string")),
        }
    }

    /// Takes a text that may be absent; an empty one counts as absent.
    pub(crate) fn optional_text(&mut self, name: &'static str) -> Result<Option<String>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(found) => Err(Fault::value(self.name(name), &found, "a string")),
        }
    }

    /// The columns that were not taken.
    pub(crate) fn rest(self) -> Map<String, Json> {
        self.object
    }
}

/// Names of columns for messages.
pub(crate) fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "no columns".into() } else { names.join(", ") }
}
