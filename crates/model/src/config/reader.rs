//! A strict reader of a JSON object: what is not read is reported.

use std::path::Path;

use serde_json::{Map, Value};

use super::keys;
use crate::error::Error;

/// Reads the keys of one JSON object and remembers which ones were asked for.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    path: &'a Path,
    /// `""`, or `"rope_scaling."` for a nested object.
    prefix: String,
    object: &'a Map<String, Value>,
    asked: Vec<&'static str>,
    /// Unknown keys of nested objects that are done.
    unknown: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader of a whole file.
    pub(crate) fn new(path: &'a Path, json: &'a Value) -> Result<Self, Error> {
        let object = json.as_object().ok_or_else(|| Error::ConfigField {
            path: path.to_owned(),
            field: "the top level".into(),
            found: shown(json),
            expected: "a JSON object".into(),
        })?;
        Ok(Self { path, prefix: String::new(), object, asked: Vec::new(), unknown: Vec::new() })
    }

    /// All of it.
    pub(crate) fn json(&self) -> Value {
        Value::Object(self.object.clone())
    }

    /// The file, for errors.
    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// The value as it stands; marks the key as read.
    pub(crate) fn raw(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.push(key);
        self.object.get(key)
    }

    /// A value; absent and `null` are `None`.
    pub(crate) fn get<T: Field>(&mut self, key: &'static str) -> Result<Option<T>, Error> {
        match self.raw(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::read(value) {
                Some(field) => Ok(Some(field)),
                None => Err(self.error(key, shown(value), T::EXPECTED)),
            },
        }
    }

    /// A value with a default; `null` is an error, as it is in transformers.
    pub(crate) fn or<T: Field>(&mut self, key: &'static str, default: T) -> Result<T, Error> {
        match self.raw(key) {
            None => Ok(default),
            Some(_) => self.required(key),
        }
    }

    /// A value that may be `null`, which is not the same as absent: absent takes the default.
    pub(crate) fn nullable<T: Field>(
        &mut self,
        key: &'static str,
        default: Option<T>,
    ) -> Result<Option<T>, Error> {
        if self.raw(key).is_none() { Ok(default) } else { self.get(key) }
    }

    /// A value that has to be there.
    pub(crate) fn required<T: Field>(&mut self, key: &'static str) -> Result<T, Error> {
        let found = if self.object.contains_key(key) { "null" } else { "absent" };
        self.get(key)?.ok_or_else(|| self.error(key, found, T::EXPECTED))
    }

    /// A nested object; [`Reader::absorb`] takes it back. Absent, `null` and `{}` are `None`.
    pub(crate) fn child(&mut self, key: &'static str) -> Result<Option<Self>, Error> {
        let object = match self.raw(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(object)) => object,
            Some(value) => return Err(self.error(key, shown(value), "a JSON object")),
        };
        let prefix = format!("{}{key}.", self.prefix);
        let (asked, unknown) = (Vec::new(), Vec::new());
        let child = Self { path: self.path, prefix, object, asked, unknown };
        Ok((!object.is_empty()).then_some(child))
    }

    /// Ends a nested object.
    pub(crate) fn absorb(&mut self, child: Self) {
        self.unknown.extend(child.unknown_fields());
    }

    /// An error about a key of this object.
    pub(crate) fn error(
        &self,
        key: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Error {
        Error::ConfigField {
            path: self.path.to_owned(),
            field: format!("{}{key}", self.prefix),
            found: found.into(),
            expected: expected.into(),
        }
    }

    /// Reports every key that might change the result and that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let path = self.path.to_owned();
        let fields = self.unknown_fields();
        if fields.is_empty() { Ok(()) } else { Err(Error::UnknownConfigFields { path, fields }) }
    }

    fn unknown_fields(self) -> Vec<String> {
        self.unread(keys::is_harmless)
    }

    /// The keys that were neither read nor are harmless, with values and suggestions.
    pub(crate) fn unread(self, is_harmless: impl Fn(&str, &Value) -> bool) -> Vec<String> {
        let mut fields = self.unknown;
        for (key, value) in self.object {
            let known = self.asked.contains(&key.as_str());
            if known || value.is_null() || is_harmless(key, value) {
                continue;
            }
            let hint = keys::nearest(key, &self.asked)
                .map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
            fields.push(format!("`{}{key}` = {}{hint}", self.prefix, shown(value)));
        }
        fields
    }
}

/// A value as an error shows it: JSON, cut when long.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A type that a [`Reader`] reads.
pub(crate) trait Field: Sized {
    /// What an error says is expected.
    const EXPECTED: &'static str;
    /// The value, if it is of this type.
    fn read(value: &Value) -> Option<Self>;
}

impl Field for usize {
    const EXPECTED: &'static str = "an integer of at least 0";
    fn read(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

impl Field for u32 {
    const EXPECTED: &'static str = "an integer of at least 0";
    fn read(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

impl Field for f64 {
    const EXPECTED: &'static str = "a number";
    fn read(value: &Value) -> Option<Self> {
        value.as_f64()
    }
}

impl Field for f32 {
    const EXPECTED: &'static str = "a number";
    fn read(value: &Value) -> Option<Self> {
        value.as_f64().map(|number| number as Self).filter(|number| number.is_finite())
    }
}

impl Field for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Field for String {
    const EXPECTED: &'static str = "a string";
    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(Self::from)
    }
}

impl Field for Vec<String> {
    const EXPECTED: &'static str = "a list of strings";
    fn read(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(String::read).collect()
    }
}

impl Field for Vec<usize> {
    const EXPECTED: &'static str = "a list of integers of at least 0";
    fn read(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(usize::read).collect()
    }
}

/// A token id; checkpoints write -1 for "none".
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenId(pub(crate) Option<u32>);

impl Field for TokenId {
    const EXPECTED: &'static str = "a token id";
    fn read(value: &Value) -> Option<Self> {
        match value.as_i64()? {
            -1 => Some(Self(None)),
            id => Some(Self(Some(id.try_into().ok()?))),
        }
    }
}

/// One token id or a list of them.
#[derive(Clone, Debug)]
pub(crate) struct TokenIds(pub(crate) Vec<u32>);

impl Field for TokenIds {
    const EXPECTED: &'static str = "a token id or a list of them";
    fn read(value: &Value) -> Option<Self> {
        let one = std::slice::from_ref(value);
        let ids: Option<Vec<_>> =
            value.as_array().map_or(one, Vec::as_slice).iter().map(TokenId::read).collect();
        Some(Self(ids?.into_iter().filter_map(|id| id.0).collect()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_null_and_given_are_told_apart() {
        let json = json!({"null": null, "given": 3});
        let mut r = Reader::new(Path::new("config.json"), &json).unwrap();
        assert_eq!(r.get::<usize>("null").unwrap(), None);
        assert_eq!(r.nullable("null", Some(7usize)).unwrap(), None);
        assert_eq!(r.nullable("absent", Some(7usize)).unwrap(), Some(7));
        assert_eq!(r.or("absent", 7usize).unwrap(), 7);
        assert_eq!(r.or("given", 7usize).unwrap(), 3);
        let message = |error: Error| error.to_string();
        assert_eq!(
            message(r.or("null", 7usize).unwrap_err()),
            "config.json: `null` is null, expected an integer of at least 0"
        );
        assert_eq!(
            message(r.get::<bool>("given").unwrap_err()),
            "config.json: `given` is 3, expected true or false"
        );
        assert_eq!(
            message(r.required::<String>("absent").unwrap_err()),
            "config.json: `absent` is absent, expected a string"
        );
    }

    #[test]
    fn unread_keys_are_listed_with_suggestions() {
        let json = json!({
            "hidden_sice": 8, "sparse": true, "none": null, "use_cache": true, "is_causal": true,
            "nested": {"known": 1, "strange": [1]},
        });
        let mut r = Reader::new(Path::new("config.json"), &json).unwrap();
        r.or("hidden_size", 4usize).unwrap();
        let mut nested = r.child("nested").unwrap().unwrap();
        nested.or("known", 0usize).unwrap();
        r.absorb(nested);
        assert_eq!(
            r.finish().unwrap_err().to_string(),
            "config.json: unknown fields that may change the result: `nested.strange` = [1], \
             `hidden_sice` = 8 (did you mean `hidden_size`?), `sparse` = true"
        );
    }

    #[test]
    fn token_ids_are_one_or_many() {
        let read = |json| TokenIds::read(&json).map(|ids| ids.0);
        assert_eq!(read(json!(2)), Some(vec![2]));
        assert_eq!(read(json!([2, 5])), Some(vec![2, 5]));
        assert_eq!(read(json!(-1)), Some(vec![]));
        assert_eq!(read(json!([2.5])), None);
        assert_eq!(read(json!("2")), None);
    }
}
