//! Calls written as JSON objects: `{"name": ..., "arguments": {...}}`.

use std::ops::Range;

use posttrain_core::{Arguments, ToolCall};
use serde_json::{Map, Value};

use super::blocks::{Block, skip_space};
use super::json_value::{Read, arguments_of, read};
use super::malformed::MalformedReason;

/// A call object as far as it could be read. The last of equal keys wins, as in Python.
#[derive(Debug, Default)]
struct CallObject {
    id: Option<String>,
    name: Option<String>,
    arguments: Option<Arguments>,
    /// The key of the arguments is there, whatever became of its value.
    names_arguments: bool,
    /// There are keys that a call does not have.
    has_others: bool,
}

impl CallObject {
    fn set(&mut self, key: &str, value: Value, raw: &str) {
        match (key, value) {
            ("name", Value::String(name)) => self.name = Some(name).filter(|name| !name.is_empty()),
            ("name", _) => self.name = None,
            ("id", Value::String(id)) => self.id = Some(id),
            ("id", Value::Number(id)) => self.id = Some(id.to_string()),
            (key, value) if is_arguments(key) => self.arguments = Some(arguments_of(value, raw)),
            ("id" | "type", _) => {}
            _ => self.has_others = true,
        }
    }

    /// Whether it is a call even where no marker says so.
    const fn speaks_for_itself(&self) -> bool {
        self.name.is_some() && self.names_arguments
    }

    /// The call, with `missing` for arguments that were not read; `None` without a name.
    fn call(self, missing: Arguments) -> Option<ToolCall> {
        let arguments = self.arguments.unwrap_or(missing);
        Some(ToolCall { id: self.id, ..ToolCall::new(self.name?, arguments) })
    }
}

fn is_arguments(key: &str) -> bool {
    matches!(key, "arguments" | "parameters")
}

/// Where the reading of an object ended.
#[derive(Debug)]
enum End {
    /// Behind its closing brace.
    Closed(usize),
    /// At something that is not JSON, or, when `cut`, at the end of the text.
    Broken { at: usize, cut: bool },
}

/// Reads the object whose brace stands at `at`, member by member, so that a name that came before
/// the text broke off is not lost.
fn read_object(text: &str, at: usize) -> (CallObject, End) {
    let mut object = CallObject::default();
    let byte = |at: usize| text.as_bytes().get(at).copied();
    let broken = |at, cut| End::Broken { at, cut };
    let mut at = skip_space(text, at + 1);
    if byte(at) == Some(b'}') {
        return (object, End::Closed(at + 1));
    }
    loop {
        let (key, colon) = match read::<String>(text, at) {
            Read::Value(key, end) => (key, skip_space(text, end)),
            failed => return (object, broken(at, failed == Read::Cut)),
        };
        if byte(colon) != Some(b':') {
            return (object, broken(at, colon == text.len()));
        }
        let start = skip_space(text, colon + 1);
        let of_arguments = is_arguments(&key);
        if of_arguments {
            object.names_arguments = true;
            object.arguments = None;
        }
        let end = match read(text, start) {
            Read::Value(value, end) => {
                object.set(&key, value, &text[start..end]);
                skip_space(text, end)
            }
            failed => {
                let at = if of_arguments { start } else { at };
                return (object, broken(at, failed == Read::Cut));
            }
        };
        match byte(end) {
            Some(b',') => at = skip_space(text, end + 1),
            Some(b'}') => return (object, End::Closed(end + 1)),
            other => return (object, broken(end, other.is_none())),
        }
    }
}

/// Whether the object at `at` is a call even where no marker says so: it has a name and the key of
/// the arguments.
pub(super) fn is_bare_call(text: &str, at: usize) -> bool {
    text[at..].starts_with('{') && read_object(text, at).0.speaks_for_itself()
}

/// Where calls stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind a marker: every object should be a call.
    Marked,
    /// In the open: the first object that is no call ends them.
    Bare,
}

/// Reads call objects into `block`, starting at `at`: one, several with whitespace, `,` or `;`
/// between them, or a list. Gives the offset behind them. `limit` says where the calls end at the
/// latest when they stop being JSON at an offset.
pub(super) fn read_calls(
    text: &str,
    at: usize,
    place: Place,
    limit: impl Fn(usize) -> usize,
    block: &mut Block,
) -> usize {
    let mut end = at;
    let mut next = skip_space(text, at);
    let listed = text[next..].starts_with('[');
    if listed {
        end = next + 1;
        next = skip_space(text, end);
    }
    while text[next..].starts_with('{') {
        let (object, object_end) = read_object(text, next);
        if place == Place::Bare && !object.speaks_for_itself() {
            break;
        }
        match object_end {
            End::Closed(closed) => {
                // Arguments under another key are not none: they are kept as text.
                let missing = if object.has_others {
                    Arguments::Text(text[next..closed].to_owned())
                } else {
                    Arguments::Object(Map::new())
                };
                match object.call(missing) {
                    Some(call) => block.calls.push(call),
                    None => block.leave_unread(text, next..closed, MalformedReason::NoName),
                }
                end = closed;
                next = skip_separator(text, end);
            }
            End::Broken { at, cut } => {
                let stop = limit(at);
                block.cut |= cut && stop == text.len();
                keep_broken(text, object, next, at..stop, listed, block);
                return stop;
            }
        }
    }
    if listed {
        end = end_list(text, next, limit, block);
    }
    end
}

/// Keeps what is known of an object that opens at `start` and stops being JSON in `rest`.
fn keep_broken(
    text: &str,
    object: CallObject,
    start: usize,
    rest: Range<usize>,
    listed: bool,
    block: &mut Block,
) {
    let reason = MalformedReason::unreadable(block.cut);
    let from = if object.has_others && object.arguments.is_none() { start } else { rest.start };
    let mut raw = text[from..rest.end].trim_end();
    if !block.cut {
        // The last brackets close the list and the call, not the arguments.
        let closers: &[char] = if listed { &[']', '}'] } else { &['}'] };
        for &closer in closers {
            raw = raw.strip_suffix(closer).unwrap_or(raw).trim_end();
        }
    }
    let read = object.arguments.is_some();
    match object.call(Arguments::Text(raw.to_owned())) {
        None => block.leave_unread(text, start..rest.end, reason),
        Some(call) => {
            block.calls.push(call);
            if read && !raw.is_empty() {
                block.leave_unread(text, rest.start..rest.start + raw.len(), reason);
            }
        }
    }
}

/// Ends a list at `at`, behind its last element.
fn end_list(text: &str, at: usize, limit: impl Fn(usize) -> usize, block: &mut Block) -> usize {
    if text[at..].starts_with(']') {
        return at + 1;
    }
    if at == text.len() {
        block.cut = true;
        return at;
    }
    let stop = limit(at);
    block.leave_unread(text, at..stop, MalformedReason::Syntax);
    stop
}

/// The offset of what follows a call: the next call behind a separator, or whatever stands there.
fn skip_separator(text: &str, at: usize) -> usize {
    let at = skip_space(text, at);
    if !text[at..].starts_with([',', ';']) {
        return at;
    }
    let next = skip_space(text, at + 1);
    if next == text.len() || text[next..].starts_with('{') { next } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read_as_far_as_they_go() {
        let broken = |text| match read_object(text, 0) {
            (object, End::Broken { at, cut }) => (object.name, &text[at..], cut),
            (_, End::Closed(end)) => panic!("closed at {end}"),
        };
        let f = || Some("f".to_owned());
        assert_eq!(broken(r#"{"name": "f", "arguments": {"x"#), (f(), r#"{"x"#, true));
        assert_eq!(broken(r#"{"name": "f", "arguments": {x}}"#), (f(), "{x}}", false));
        assert_eq!(broken(r#"{"name": "f", "other": {x}}"#), (f(), r#""other": {x}}"#, false));
        assert_eq!(broken(r#"{"name": "f""#), (f(), "", true));
        assert_eq!(broken(r#"{"name": "f"]"#), (f(), "]", false));
        assert_eq!(broken(r#"{"name": "f",}"#), (f(), "}", false));
        assert_eq!(broken(r#"{"name" "f"}"#), (None, r#""name" "f"}"#, false));
        assert_eq!(broken(r#"{"name": "#), (None, r#""name": "#, true));
        assert_eq!(broken("{"), (None, "", true));
    }
}
