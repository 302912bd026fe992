//! Key paths into a configuration: `models[0].parameters.weight`, `parameters.t[1].value`. A key
//! with a dot or a bracket is written as a JSON string: `tokens["a.b"].source`.

use serde_json::Value;

use crate::Error;

/// One step down the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// The steps of a path.
pub(crate) fn parse(path: &str) -> Result<Vec<Step>, Error> {
    let broken = || Error::value(path, "not a key path", "such as `models[0].parameters.weight`");
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            if inner.starts_with('"') {
                let mut texts = serde_json::Deserializer::from_str(inner).into_iter::<String>();
                let key = texts.next().and_then(Result::ok).ok_or_else(broken)?;
                let after = &inner[texts.byte_offset()..];
                rest = after.strip_prefix(']').ok_or_else(broken)?;
                steps.push(Step::Key(key));
            } else {
                let (index, after) = inner.split_once(']').ok_or_else(broken)?;
                steps.push(Step::Index(index.parse().map_err(|_| broken())?));
                rest = after;
            }
        } else {
            let name =
                if steps.is_empty() { rest } else { rest.strip_prefix('.').ok_or_else(broken)? };
            let end = name.find(['.', '[']).unwrap_or(name.len());
            if end == 0 {
                return Err(broken());
            }
            steps.push(Step::Key(name[..end].to_owned()));
            rest = &name[end..];
        }
    }
    if steps.is_empty() { Err(broken()) } else { Ok(steps) }
}

/// `path` and one more key.
pub(crate) fn child(path: &str, key: &str) -> String {
    if key.is_empty() || key.contains(['.', '[', ']', '"']) {
        format!("{path}[{}]", Value::from(key))
    } else if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// What stands at the end of the steps.
pub(crate) fn get<'a>(tree: &'a Value, steps: &[Step]) -> Option<&'a Value> {
    steps.iter().try_fold(tree, |tree, step| match step {
        Step::Key(key) => tree.as_object()?.get(key),
        Step::Index(index) => tree.as_array()?.get(*index),
    })
}

/// The same, to be replaced.
pub(crate) fn get_mut<'a>(tree: &'a mut Value, steps: &[Step]) -> Option<&'a mut Value> {
    steps.iter().try_fold(tree, |tree, step| match step {
        Step::Key(key) => tree.as_object_mut()?.get_mut(key),
        Step::Index(index) => tree.as_array_mut()?.get_mut(*index),
    })
}

/// A finite number, also one that YAML 1.1 took for a text, such as `1e-3`.
pub(crate) fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

/// The paths of all numbers in a tree, in its order.
pub(crate) fn numbers(tree: &Value) -> Vec<String> {
    fn walk(tree: &Value, path: &str, found: &mut Vec<String>) {
        match tree {
            Value::Object(keys) => {
                for (key, value) in keys {
                    walk(value, &child(path, key), found);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    walk(item, &format!("{path}[{index}]"), found);
                }
            }
            leaf if number(leaf).is_some() => found.push(path.to_owned()),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(tree, "", &mut found);
    found
}

/// The first place where two trees differ: its path, what is in `a`, what is in `b`.
pub(crate) fn difference(a: &Value, b: &Value) -> Option<(String, String, String)> {
    fn walk(a: Option<&Value>, b: Option<&Value>, path: &str) -> Option<(String, String, String)> {
        match (a, b) {
            (Some(Value::Object(x)), Some(Value::Object(y))) => x
                .keys()
                .chain(y.keys().filter(|key| !x.contains_key(*key)))
                .find_map(|key| walk(x.get(key), y.get(key), &child(path, key))),
            (Some(Value::Array(x)), Some(Value::Array(y))) => (0..x.len().max(y.len()))
                .find_map(|i| walk(x.get(i), y.get(i), &format!("{path}[{i}]"))),
            _ if a == b => None,
            _ => {
                let show = |value: Option<&Value>| {
                    value.map_or_else(|| "absent".to_owned(), Value::to_string)
                };
                Some((path.to_owned(), show(a), show(b)))
            }
        }
    }
    walk(Some(a), Some(b), "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_their_values_and_back() {
        let tree = json!({
            "models": [{"parameters": {"weight": 0.5, "density": "1e-3"}}],
            "tokens": {"<a.b>": {"n": 3}, "q\"]": 4},
            "name": "code"
        });
        let found = numbers(&tree);
        assert_eq!(
            found,
            [
                "models[0].parameters.weight",
                "models[0].parameters.density",
                "tokens[\"<a.b>\"].n",
                "tokens[\"q\\\"]\"]"
            ]
        );
        let values: Vec<f64> = found
            .iter()
            .map(|path| number(get(&tree, &parse(path).expect("a path")).expect("there")))
            .collect::<Option<_>>()
            .expect("numbers");
        assert_eq!(values, [0.5, 1e-3, 3.0, 4.0]);
        for broken in ["", ".a", "a..b", "a[", "a[x]", "a[1]b", "a.", "a[\"b]", "[\"b\"x]"] {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn differences_name_the_first_place() {
        let a = json!({"x": [1, {"y": 2}], "z": 1});
        assert_eq!(difference(&a, &json!({"z": 1, "x": [1, {"y": 2}]})), None);
        let there = |b| difference(&a, &b).expect("different").0;
        assert_eq!(there(json!({"x": [1, {"y": 3}], "z": 1})), "x[1].y");
        assert_eq!(there(json!({"x": [1], "z": 1})), "x[1]");
        assert_eq!(there(json!({"x": [1, {"y": 2}], "z": 1, "w": 0})), "w");
    }
}
