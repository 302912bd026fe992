//! A YAML file of settings, read section by section: every key is known to one section, and what no
//! section knows is an error with a suggestion.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Error;

/// The settings of a file, with those of the command line over them.
#[derive(Debug)]
pub struct Document {
    path: PathBuf,
    text: String,
    values: Map<String, Value>,
    known: Vec<String>,
    /// Keys below those, with dots.
    nested: Vec<String>,
    /// Keys that the command line has a say in.
    set: Vec<String>,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::ConfigFile`] for what is not a YAML mapping.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Self::parse(path, &text)
    }

    /// Reads a text; `path` is what errors name.
    ///
    /// # Errors
    /// [`Error::ConfigFile`] for what is not a YAML mapping.
    pub fn parse(path: impl AsRef<Path>, text: &str) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let fail = |reason: String| Error::ConfigFile { path: path.clone(), reason };
        let value: Value = if text.trim().is_empty() {
            Value::Object(Map::new())
        } else {
            serde_saphyr::from_str(text)
                .map_err(|error| fail(error.without_snippet().to_string()))?
        };
        match value {
            Value::Object(values) => {
                let (known, nested, set) = (Vec::new(), Vec::new(), Vec::new());
                Ok(Self { path, text: text.into(), values, known, nested, set })
            }
            other => Err(fail(format!("the file holds {}, expected `key: value`", kind(&other)))),
        }
    }

    /// Sets a key as `key=value`, dots for nested ones (`lora.r=8`); the value is YAML.
    ///
    /// # Errors
    /// [`Error::Config`] for what has no `=`, no key, or a value that is no YAML, and for a key below
    /// one that is not a mapping.
    pub fn set(&mut self, assignment: &str) -> Result<(), Error> {
        let expected = "key=value";
        let Some((key, text)) = assignment.split_once('=').filter(|(key, _)| !key.is_empty())
        else {
            return Err(Error::config("--set", format!("`{assignment}`"), expected));
        };
        let value: Value = serde_saphyr::from_str(text)
            .map_err(|error| Error::config(key, format!("`{text}`"), format!("YAML: {error}")))?;
        self.set.extend(key.split('.').next().map(str::to_owned));
        let mut place = &mut self.values;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                place.insert(part.into(), value);
                break;
            }
            let next = place.entry(part).or_insert(Value::Null);
            if next.is_null() {
                *next = Value::Object(Map::new());
            }
            place = match next {
                Value::Object(map) => map,
                other => return Err(Error::config(part, kind(other), "a mapping")),
            };
        }
        Ok(())
    }

    /// What a key has where the file does not say it.
    pub fn set_default(&mut self, key: &str, value: impl Into<Value>) {
        self.values.entry(key).or_insert_with(|| value.into());
    }

    /// Takes the keys of a section out. What the file does not say has the section's default.
    ///
    /// # Errors
    /// [`Error::ConfigFile`] for a value of the wrong type, or an unknown key below one of them, with
    /// the line.
    pub fn section<T: Default + Serialize + DeserializeOwned>(&mut self) -> Result<T, Error> {
        let default = serde_json::to_value(T::default()).expect("settings are JSON");
        let Value::Object(default) = default else { unreachable!("a section is a struct") };
        let mut found = Map::new();
        for (key, value) in &default {
            self.known.push(key.clone());
            let below = value.as_object().into_iter().flat_map(Map::keys);
            self.nested.extend(below.map(|below| format!("{key}.{below}")));
            let Some(value) = self.values.shift_remove(key) else { continue };
            let value = self.checked::<T>(key, value)?;
            found.insert(key.clone(), value);
        }
        let fail = |error: serde_json::Error| self.fail("", error.to_string());
        serde_json::from_value(Value::Object(found)).map_err(fail)
    }

    /// The value, if the section takes it: as it is, or a number that was written as a text.
    fn checked<T: DeserializeOwned>(&self, key: &str, value: Value) -> Result<Value, Error> {
        let alone = |value: &Value| {
            let alone = Map::from_iter([(key.to_owned(), value.clone())]);
            serde_json::from_value::<T>(Value::Object(alone)).map(drop)
        };
        let Err(error) = alone(&value) else { return Ok(value) };
        // YAML 1.1 reads 1e-5 as a text, and so do files that quote it.
        let number = value.as_str().and_then(|text| text.parse::<f64>().ok());
        if let Some(number) = number.map(Value::from).filter(|number| alone(number).is_ok()) {
            return Ok(number);
        }
        Err(self.fail(key, format!("`{key}`: {}", with_suggestion(&error.to_string()))))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`Error::ConfigFile`] with every key that no section knows, its line and a suggestion.
    pub fn finish(self) -> Result<(), Error> {
        let unknown: Vec<String> = self
            .values
            .keys()
            .map(|key| {
                let mut nested = self.nested.iter().map(String::as_str);
                let below = nested.find(|nested| nested.split('.').next_back() == Some(key));
                let near = below.or_else(|| suggestion(key, self.known.iter().map(String::as_str)));
                let near = near.map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
                format!("{}unknown key `{key}`{near}", self.place(key))
            })
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Error::ConfigFile { path: self.path, reason: unknown.join("; ") })
    }

    fn line(&self, key: &str) -> Option<usize> {
        let starts = |line: &str| {
            let line = line.trim_matches(['"', '\'']);
            line.strip_prefix(key).is_some_and(|rest| {
                rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':')
            })
        };
        self.text.lines().position(starts).map(|index| index + 1)
    }

    fn fail(&self, key: &str, reason: String) -> Error {
        let reason = format!("{}{reason}", self.place(key));
        Error::ConfigFile { path: self.path.clone(), reason }
    }

    /// Where a key was given.
    fn place(&self, key: &str) -> String {
        if self.set.iter().any(|set| set == key) {
            return "with `--set`: ".into();
        }
        self.line(key).map_or(String::new(), |line| format!("line {line}: "))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// The nearest of the names, if one is near.
pub(crate) fn suggestion<'a>(
    name: &str,
    among: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let scored = among.into_iter().map(|known| (strsim::damerau_levenshtein(name, known), known));
    let (distance, known) = scored.min()?;
    (distance <= 1 + name.len() / 4).then_some(known)
}

/// serde's "unknown field `x`, expected one of `a`, `b`", with the nearest of them first.
fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    match quoted.next().filter(|_| unknown).and_then(|name| suggestion(name, quoted)) {
        Some(near) => format!("{message} (did you mean `{near}`?)"),
        None => message.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Optim {
        learning_rate: f64,
        lora: Option<Lora>,
    }

    #[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Lora {
        r: usize,
        lora_alpha: f64,
    }

    #[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Data {
        max_length: Option<usize>,
    }

    impl Default for Optim {
        fn default() -> Self {
            Self { learning_rate: 2e-5, lora: None }
        }
    }

    fn read(text: &str, sets: &[&str]) -> Result<(Optim, Data), Error> {
        let mut document = Document::parse("run.yaml", text)?;
        for set in sets {
            document.set(set)?;
        }
        let found = (document.section()?, document.section()?);
        document.finish()?;
        Ok(found)
    }

    #[test]
    fn sections_take_their_keys_and_numbers_as_yaml_1_1_wrote_them() {
        let text = "learning_rate: 1e-5\nmax_length: 512\nlora: {r: 4}\n";
        let (optim, data) = read(text, &["lora.lora_alpha=32", "max_length=1024"]).unwrap();
        let lora = Lora { r: 4, lora_alpha: 32.0 };
        assert_eq!(optim, Optim { learning_rate: 1e-5, lora: Some(lora) });
        assert_eq!(data, Data { max_length: Some(1024) });
        let (optim, _) = read("learning_rate: '1e-4'", &[]).unwrap();
        assert_eq!(optim.learning_rate, 1e-4);
        assert_eq!(read("", &[]).unwrap().0, Optim::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let error = |text, sets: &[&str]| read(text, sets).unwrap_err().to_string();
        assert_eq!(
            error("max_length: 5\nlerning_rate: 1\n", &[]),
            "run.yaml: line 2: unknown key `lerning_rate` (did you mean `learning_rate`?)"
        );
        let set = error("learning_rate: 1e-3\n", &["learning_rate=fast"]);
        assert!(set.starts_with("run.yaml: with `--set`: `learning_rate`: invalid type"), "{set}");
        let nested = error("\nlora:\n  lora_alhpa: 3\n", &[]);
        assert!(
            nested.starts_with("run.yaml: line 2: `lora`: unknown field `lora_alhpa`"),
            "{nested}"
        );
        assert!(nested.ends_with("(did you mean `lora_alpha`?)"), "{nested}");
        let wrong = error("learning_rate: fast", &[]);
        assert!(wrong.starts_with("run.yaml: line 1: `learning_rate`: invalid type"), "{wrong}");
        assert!(error("- a\n- b\n", &[]).contains("holds a list, expected `key: value`"));
        assert!(error("max_length: 1\nmax_length: 2\n", &[]).contains("duplicate"));
        assert_eq!(error("", &["max_length"]), "`--set` is `max_length`, expected key=value");
        assert!(error("max_length: 1", &["max_length.x=1"]).contains("expected a mapping"));
        assert!(error("a: [1", &[]).starts_with("run.yaml: "));
    }
}
