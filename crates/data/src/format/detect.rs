//! Which format the rows have, told by their columns.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::columns::names;
use super::{Columns, FORMS, Form, Format};
use crate::error::{Error, Result};

/// How many rows are looked at.
pub(crate) const SAMPLE: usize = 100;

/// The format of the rows, or a check of the one that is asked for.
///
/// A form fits when each column that it needs stands in one of the rows and is not null there. A form
/// whose columns are part of another that fits is not meant, and neither is a bare `prompt` or `text`
/// beside another form: such columns are copies for people to read. What then still fits twice is an
/// error.
pub(crate) fn detect(
    rows: &[&Map<String, Json>],
    asked: Option<Format>,
    columns: &Columns,
    path: &Path,
) -> Result<Format> {
    let present =
        |column: &str| rows.iter().any(|row| row.get(column).is_some_and(|value| !value.is_null()));
    let mut found = Vec::new();
    for column in rows.iter().flat_map(|row| row.keys()) {
        if !found.contains(&column.as_str()) {
            found.push(column.as_str());
        }
    }
    columns.check_present(&found, path)?;
    let has = |name: &str| columns.column(name).is_some_and(present);
    let fits = |form: &&Form| form.required.iter().all(|column| column.split('|').any(has));
    let told = || {
        let fitting: Vec<&Form> = FORMS.iter().filter(fits).collect();
        let (path, columns) = (path.to_owned(), names(found.iter().copied()));
        match *meant(&fitting) {
            [format] => Ok(format),
            [] => Err(Error::UnknownFormat { path, columns }),
            ref several => Err(Error::AmbiguousFormat { path, columns, fits: several.to_vec() }),
        }
    };
    let format = asked.map_or_else(told, Ok)?;
    columns.check(format)?;
    Ok(format)
}

/// Of the forms that fit, those that are no part of another.
fn meant(fitting: &[&Form]) -> Vec<Format> {
    let bare = |form: &Form| matches!(form.format, Format::Prompt | Format::Text);
    let only_bare = fitting.iter().all(|form| bare(form));
    let part = |form: &Form| {
        let more = |other: &&&Form| {
            other.required.len() > form.required.len()
                && form.required.iter().all(|column| other.required.contains(column))
        };
        fitting.iter().any(|other| more(&other))
    };
    let kept = fitting.iter().filter(|form| !part(form) && (only_bare || !bare(form)));
    kept.map(|form| form.format).collect()
}
