//! Key paths: `models[1].parameters.weight`, `parameters.t[2].value[0]`.
//!
//! A path is keys joined by dots and indices in brackets, from 0. A key with other characters than
//! letters, digits, `_` and `-` stands in brackets and quotes, as JSON: `tokenizer.tokens["<s>"]`.

use serde_json::{Map, Value};

use super::suggestion::did_you_mean;
use crate::Error;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// `path` and one key below it.
pub(crate) fn key(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match (path.is_empty(), !key.is_empty() && key.chars().all(plain)) {
        (true, true) => key.into(),
        (false, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{}]", Value::from(key)),
    }
}

/// `path` and one item of the list that it leads to.
pub(crate) fn index(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// The value at a key path.
///
/// # Errors
/// [`Error::Value`] for what is no key path, and where nothing stands there: what stands instead.
///
/// # Examples
/// ```
/// use posttrain_merge::config::{get, set};
///
/// let mut config = serde_json::json!({"models": [{"model": "a", "parameters": {"weight": 0.5}}]});
/// assert_eq!(get(&config, "models[0].parameters.weight").unwrap(), 0.5);
/// set(&mut config, "models[0].parameters.weight", 0.25).unwrap();
/// assert_eq!(get(&config, "models[0].parameters.weight").unwrap(), 0.25);
/// ```
pub fn get<'a>(value: &'a Value, path: &str) -> Result<&'a Value, Error> {
    let mut place = value;
    for step in steps(path)? {
        place = match (&step, place) {
            (Step::Key(key), Value::Object(map)) => {
                map.get(key).ok_or_else(|| missing(path, key, map))?
            }
            (Step::Index(index), Value::Array(items)) => {
                items.get(*index).ok_or_else(|| short(path, *index, items.len()))?
            }
            (step, other) => return Err(other_kind(path, step, other)),
        };
    }
    Ok(place)
}

/// Sets the value at a key path. A key that is not there is added, with the mappings above it; an
/// index must be there.
///
/// # Errors
/// [`Error::Value`] for what is no key path, for an index beyond the end, and for a key or an index
/// below what has none.
pub fn set(value: &mut Value, path: &str, new: impl Into<Value>) -> Result<(), Error> {
    let mut place = value;
    for step in steps(path)? {
        if place.is_null() && matches!(step, Step::Key(_)) {
            *place = Value::Object(Map::new());
        }
        place = match (&step, place) {
            (Step::Key(key), Value::Object(map)) => map.entry(&**key).or_insert(Value::Null),
            (Step::Index(index), Value::Array(items)) => {
                let count = items.len();
                items.get_mut(*index).ok_or_else(|| short(path, *index, count))?
            }
            (step, other) => return Err(other_kind(path, step, other)),
        };
    }
    *place = new.into();
    Ok(())
}

fn missing(path: &str, key: &str, map: &Map<String, Value>) -> Error {
    let near = did_you_mean(key, map.keys().map(String::as_str));
    Error::value(path, format!("not there: no key `{key}`{near}"), "a key of the configuration")
}

fn short(path: &str, index: usize, count: usize) -> Error {
    Error::value(path, format!("not there: index {index} of a list of {count}"), "a lower index")
}

fn other_kind(path: &str, step: &Step, found: &Value) -> Error {
    let (step, expected) = match step {
        Step::Key(key) => (format!("key `{key}`"), "a mapping there"),
        Step::Index(index) => (format!("index {index}"), "a list there"),
    };
    let found = super::node::Node::from(found).yaml;
    Error::value(path, format!("not there: {step} of {found}"), expected)
}

fn steps(path: &str) -> Result<Vec<Step>, Error> {
    let fail = |rest: &str| {
        let expected = "keys joined by dots and indices in brackets, such as \
                        `models[1].parameters.weight`";
        Error::value(path, format!("no key path from {rest:?} on"), expected)
    };
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let end = closing_quote(quoted).ok_or_else(|| fail(rest))?;
            // With the quotes around it.
            let json = &rest[1..end + 3];
            steps.push(Step::Key(serde_json::from_str(json).map_err(|_| fail(rest))?));
            rest = quoted[end + 1..].strip_prefix(']').ok_or_else(|| fail(rest))?;
        } else if let Some(inside) = rest.strip_prefix('[') {
            let (index, after) = inside.split_once(']').ok_or_else(|| fail(rest))?;
            steps.push(Step::Index(index.parse().map_err(|_| fail(rest))?));
            rest = after;
        } else {
            let word = if steps.is_empty() { Some(rest) } else { rest.strip_prefix('.') };
            let word = word.ok_or_else(|| fail(rest))?;
            let end = word.find(['.', '[']).unwrap_or(word.len());
            if end == 0 {
                return Err(fail(rest));
            }
            steps.push(Step::Key(word[..end].into()));
            rest = &word[end..];
        }
    }
    if steps.is_empty() { Err(fail(path)) } else { Ok(steps) }
}

/// Where the text of a JSON string ends, from after its first quote.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_come_back_from_their_steps() {
        for keys in [["a", "b"], ["<s>", "x.y"], ["\"", "\\"], ["\\\"]", ""], ["ä", "[0]"]] {
            let path = index(&key(&key("", keys[0]), keys[1]), 3);
            let wanted = [Step::Key(keys[0].into()), Step::Key(keys[1].into()), Step::Index(3)];
            assert_eq!(steps(&path).unwrap(), wanted, "{path}");
        }
    }

    #[test]
    fn values_are_got_and_set() {
        let mut value = json!({"parameters": {"t": [{"value": [0, 1]}, {"value": 0.5}]}});
        assert_eq!(*get(&value, "parameters.t[0].value[1]").unwrap(), json!(1));
        set(&mut value, "parameters.t[0].value[1]", 0.75).unwrap();
        set(&mut value, "models", json!([{"model": "a"}])).unwrap();
        set(&mut value, "models[0].parameters.weight", 2).unwrap();
        set(&mut value, "tokenizer.tokens[\"<s>\"].force", true).unwrap();
        let wanted = json!({
            "parameters": {"t": [{"value": [0, 0.75]}, {"value": 0.5}]},
            "models": [{"model": "a", "parameters": {"weight": 2}}],
            "tokenizer": {"tokens": {"<s>": {"force": true}}},
        });
        assert_eq!(value, wanted);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let mut value = json!({"parameters": {"weight": [1, 2]}});
        let error = |path| get(&value, path).unwrap_err().to_string();
        assert_eq!(
            error("parameters.weigth"),
            "`parameters.weigth` is not there: no key `weigth` (did you mean `weight`?), expected a \
             key of the configuration"
        );
        assert_eq!(
            error("parameters.weight[2]"),
            "`parameters.weight[2]` is not there: index 2 of a list of 2, expected a lower index"
        );
        assert!(error("parameters[0]").contains("index 0 of a mapping of weight"));
        assert!(error("parameters.weight[0].x").contains("key `x` of the number 1"));
        for path in
            ["", ".", "a.", "a..b", "a[", "a[x]", "a[-1]", "a[0]b", "[\"a", "[\"a\"", "a[\"\\u\"]"]
        {
            assert!(error(path).contains("no key path"), "{path}: {}", error(path));
        }
        assert!(set(&mut value, "parameters.weight[2]", 1).is_err());
        assert!(set(&mut value, "parameters.weight.x", 1).is_err());
    }
}
