//! Values and texts as HTML, for the report and for what others put into it.

use std::fmt::Write as _;

use serde_json::Value as Json;

pub use super::chart::escape;
use super::chart::{SCRIPT, STYLE};

/// A page of its own that needs no network, with what charts need; `title` is text, `body` is HTML.
///
/// ```
/// use posttrain_train::watch::html::page;
/// assert!(page("a & b", "<h1>c</h1>").contains("<title>a &amp; b</title>"));
/// ```
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{}</title><style>{STYLE}{}</style></head>\
         <body>{body}<footer>posttrain {}</footer><script>{SCRIPT}</script></body></html>\n",
        escape(title),
        include_str!("page.css"),
        env!("CARGO_PKG_VERSION"),
    )
}

/// A table of names and values.
///
/// ```
/// use posttrain_train::watch::html::table;
/// assert!(table([("rows", "7,473"), ("files", "a & b")]).contains("<th>files</th><td>a &amp; b</td>"));
/// ```
pub fn table<N: AsRef<str>, V: AsRef<str>>(rows: impl IntoIterator<Item = (N, V)>) -> String {
    let mut out = String::from("<table>");
    for (name, value) in rows {
        let (name, value) = (escape(name.as_ref()), escape(value.as_ref()));
        _ = write!(out, "<tr><th>{name}</th><td>{value}</td></tr>");
    }
    out.push_str("</table>");
    out
}

/// A JSON value as a table of its leaves, with dotted names: `lora.r`.
///
/// ```
/// use posttrain_train::watch::html::leaves;
/// let value = serde_json::json!({"lora": {"r": 16, "target_modules": ["q_proj", "v_proj"]}});
/// let html = leaves(&value);
/// assert!(html.contains("<th>lora.r</th><td>16</td>"));
/// assert!(html.contains("<th>lora.target_modules</th><td>q_proj, v_proj</td>"));
/// ```
pub fn leaves(value: &Json) -> String {
    let mut rows = Vec::new();
    collect(value, String::new(), &mut rows);
    table(rows)
}

fn collect(value: &Json, name: String, rows: &mut Vec<(String, String)>) {
    match value {
        Json::Object(map) if !map.is_empty() => {
            for (key, inner) in map {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                collect(inner, name, rows);
            }
        }
        Json::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (i, inner) in items.iter().enumerate() {
                collect(inner, format!("{name}[{i}]"), rows);
            }
        }
        Json::Array(items) => {
            rows.push((name, items.iter().map(plain).collect::<Vec<_>>().join(", ")));
        }
        leaf => rows.push((name, plain(leaf))),
    }
}

fn plain(leaf: &Json) -> String {
    match leaf {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_leaf_has_a_row() {
        let value = json!({"a": [{"b": null}, [1, 2]], "c": {}, "d": [], "e": "<x>"});
        assert_eq!(
            leaves(&value),
            "<table><tr><th>a[0].b</th><td>null</td></tr><tr><th>a[1]</th><td>1, 2</td></tr>\
             <tr><th>c</th><td>{}</td></tr><tr><th>d</th><td></td></tr><tr><th>e</th><td>&lt;x&gt;</td></tr></table>"
        );
    }
}
