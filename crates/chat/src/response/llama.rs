//! Llama 3: `{"name": ..., "parameters": {...}}`, bare or behind `<|python_tag|>`, and the calls of
//! built-in tools, `<|python_tag|>brave_search.call(query="...")`.

use posttrain_core::{Arguments, ToolCall};
use serde_json::{Map, Value};

use super::bare;
use super::blocks::{Block, first_of, is_name, skip_space};
use super::json_calls::{Place, read_calls};
use super::json_value::{Read, read};
use super::malformed::MalformedReason;

const TAG: &str = "<|python_tag|>";
const CALL: &str = ".call(";

/// The first block at or after `from`.
pub(super) fn next(text: &str, from: usize) -> Option<Block> {
    let limit = |at| first_of(text, at, &[TAG]);
    let tag = limit(from);
    bare::next(text, from, tag, limit).or_else(|| (tag < text.len()).then(|| tagged(text, tag)))
}

/// The block whose python tag stands at `start`.
fn tagged(text: &str, start: usize) -> Block {
    let limit = |at| first_of(text, at, &[TAG]);
    let mut block = Block::opening_at(start);
    let body = skip_space(text, start + TAG.len());
    if text[body..].starts_with(['{', '[']) {
        block.span.end = read_calls(text, body, Place::Marked, limit, &mut block);
        return block;
    }
    let stop = limit(body);
    block.span.end = stop;
    let name_end = first_of(&text[..stop], body, &[CALL]);
    let name = &text[body..name_end];
    if name_end < stop && is_name(name) {
        let at = name_end + CALL.len();
        let (arguments, end) = keywords(text, at).unwrap_or_else(|failed| {
            // The template escapes nothing, so a value may hold quotes and parentheses.
            let last = text[at..stop].rfind(')').filter(|_| failed == Failed::Elsewhere);
            block.cut = last.is_none() && stop == text.len();
            let raw = &text[at..last.map_or(stop, |offset| at + offset)];
            let end = last.map_or(stop, |offset| at + offset + 1);
            (Arguments::Text(raw.trim().to_owned()), end)
        });
        block.calls.push(ToolCall::new(name, arguments));
        block.span.end = end;
        return block;
    }
    // A single word may be the start of `name.call(`; anything else is code.
    block.cut = stop == text.len() && (name.is_empty() || is_name(name));
    block.leave_unread(text, body..stop, MalformedReason::unreadable(block.cut));
    block
}

/// Why keywords could not be read.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    /// The text ends inside.
    Cut,
    /// Something else stands there.
    Elsewhere,
}

/// Reads `key="value", ...)` from `at` on: the arguments and the offset behind the parenthesis.
fn keywords(text: &str, at: usize) -> Result<(Arguments, usize), Failed> {
    let mut arguments = Map::new();
    let mut at = skip_space(text, at);
    if text[at..].starts_with(')') {
        return Ok((Arguments::Object(arguments), at + 1));
    }
    loop {
        let equals = at + text[at..].find(['=', ')']).ok_or(Failed::Cut)?;
        let key = text[at..equals].trim();
        if !text[equals..].starts_with('=') || !is_name(key) {
            return Err(Failed::Elsewhere);
        }
        let (value, end) = keyword_value(text, skip_space(text, equals + 1))?;
        arguments.insert(key.to_owned(), value);
        at = skip_space(text, end);
        match text.as_bytes().get(at) {
            Some(b')') => return Ok((Arguments::Object(arguments), at + 1)),
            Some(b',') => at += 1,
            Some(_) => return Err(Failed::Elsewhere),
            None => return Err(Failed::Cut),
        }
    }
}

fn keyword_value(text: &str, at: usize) -> Result<(Value, usize), Failed> {
    if text[at..].starts_with(['"', '[', '{']) {
        return match read(text, at) {
            Read::Value(value, end) => Ok((value, end)),
            Read::Cut => Err(Failed::Cut),
            Read::Invalid => Err(Failed::Elsewhere),
        };
    }
    let end = at + text[at..].find([',', ')']).ok_or(Failed::Cut)?;
    let value = serde_json::from_str(&text[at..end]).map_err(|_| Failed::Elsewhere)?;
    Ok((value, end))
}

#[cfg(test)]
mod tests {
    use super::super::ResponseFormat::{Json, Llama3};
    use super::super::tests::{check_cuts, lines};

    #[test]
    fn bare_calls() {
        let text = r#"{"name": "f", "parameters": {"x": {"y": "}"}}}"#;
        assert_eq!(lines(Llama3, text), [r#"call f {"x":{"y":"}"}}"#]);
        assert_eq!(lines(Json, text), [r#"call f {"x":{"y":"}"}}"#]);
        let text = r#"{"name": "f", "parameters": {}}; {"name": "g", "parameters": null}"#;
        assert_eq!(lines(Llama3, text), ["call f {}", "call g {}"]);
        let text = "{\"name\": \"f\", \"parameters\": {}}\n\n{\"name\": \"é\", \"arguments\": {}}";
        assert_eq!(lines(Llama3, text), ["call f {}", "call é {}"]);
        let text = r#" [{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}] "#;
        assert_eq!(lines(Json, text), ["call f {}", "call g {}"]);
        let text = "Let me look.\n{\"name\": \"f\", \"parameters\": {}}; then\nmore";
        assert_eq!(lines(Llama3, text), ["content Let me look.\n; then\nmore", "call f {}"]);
        let text = "{\n  \"name\": \"f\",\n  \"parameters\": {\n    \"x\": 1\n  }\n}";
        assert_eq!(lines(Llama3, text), [r#"call f {"x":1}"#]);
    }

    #[test]
    fn json_that_is_no_call_is_content() {
        for text in [
            r#"{"name": "Ada", "age": 36}"#,
            r#"{"name": "f"}"#,
            r#"{"parameters": {}}"#,
            r#"{"name": 1, "parameters": {}}"#,
            r#"It is {"name": "f", "parameters": {}}"#,
            "```json\n{\"name\": \"f\", \"parameters\": {}}\n```",
            "{\"call\":\n{\"name\": \"f\", \"parameters\": {}}\n}",
            "[1,\n{\"name\": \"f\", \"parameters\": {}}\n]",
            r#"{"name": "f", "par"#,
            "{",
            "[",
            "[]",
            "<|python_tag",
        ] {
            assert_eq!(lines(Llama3, text), [format!("content {text}")]);
            assert_eq!(lines(Json, text), [format!("content {text}")]);
        }
        let text = "{\"name\": \"f\", \"parameters\": {}}\n{\"name\": \"Ada\"}";
        assert_eq!(lines(Llama3, text), [r#"content {"name": "Ada"}"#, "call f {}"]);
        let text = "```\nx\n```\n{\"name\": \"f\", \"parameters\": {}}";
        assert_eq!(lines(Llama3, text), ["content ```\nx\n```", "call f {}"]);
    }

    #[test]
    fn bare_calls_with_broken_arguments() {
        let text = r#"{"name": "f", "parameters": {bad}}"#;
        assert_eq!(lines(Llama3, text), ["text-call f {bad}"]);
        let text = r#"{"name": "f", "parameters": {"x": 1"#;
        assert_eq!(lines(Llama3, text), [r#"text-call f {"x": 1"#, "cut call"]);
        let text = r#"{"name": "f", "parameters": {"x": 1}"#;
        assert_eq!(lines(Json, text), [r#"call f {"x":1}"#, "cut call"]);
    }

    #[test]
    fn tagged_calls() {
        let text = r#"Hm. <|python_tag|>{"name": "f", "parameters": {"s": "<|python_tag|>"}}"#;
        assert_eq!(lines(Llama3, text), ["content Hm.", r#"call f {"s":"<|python_tag|>"}"#]);
        let text = r#"<|python_tag|>{"name": "f"}; {"name": "g", "parameters": {}} ok"#;
        assert_eq!(lines(Llama3, text), ["content ok", "call f {}", "call g {}"]);
        let text = "{\"name\": \"f\", \"parameters\": {}}<|python_tag|>{\"name\": \"g\"}";
        assert_eq!(lines(Llama3, text), ["call f {}", "call g {}"]);
        let text = r#"<|python_tag|>{"x": 1}"#;
        assert_eq!(
            lines(Llama3, text),
            [format!("content {text}"), format!("malformed NoName {text}")]
        );
        let text = "<|python_tag|>print(1)\nprint(2)";
        assert_eq!(
            lines(Llama3, text),
            [format!("content {text}"), format!("malformed Syntax {text}")]
        );
    }

    #[test]
    fn built_in_tools() {
        for (call, expected) in [
            (r#"brave_search.call(query="a, (b)")"#, r#"call brave_search {"query":"a, (b)"}"#),
            (
                r#"f.call(a="é\n", b=2, c=[1], d=null )"#,
                r#"call f {"a":"é\n","b":2,"c":[1],"d":null}"#,
            ),
            ("f.call()", "call f {}"),
            (r#"f.call(a="say "hi" (now)")"#, r#"text-call f a="say "hi" (now)""#),
            (r#"f.call("a")"#, r#"text-call f "a""#),
            (r"f.call(a='b')", r"text-call f a='b'"),
        ] {
            assert_eq!(lines(Llama3, &format!("<|python_tag|>{call}")), [expected]);
            let text = format!("<|python_tag|>{call} ok");
            assert_eq!(lines(Llama3, &text), ["content ok", expected]);
        }
    }

    #[test]
    fn cut_off_at_each_byte() {
        let text = r#"<|python_tag|>{"name": "f", "parameters": {"s": "ü}"}}"#;
        check_cuts(Llama3, text, "\"f\"", "ü}\"}");
        let text = r#"<|python_tag|>f.call(query="ü)")"#;
        assert_eq!(
            lines(Llama3, &text[..text.len() - 1]),
            [r#"text-call f query="ü)""#, "cut call"]
        );
        let text = r#"<|python_tag|>f.call(query="ü"#;
        assert_eq!(lines(Llama3, text), [r#"text-call f query="ü"#, "cut call"]);
        let text = "<|python_tag|>brave_sea";
        assert_eq!(
            lines(Llama3, text),
            [format!("content {text}"), format!("malformed CutOff {text}"), "cut call".into()]
        );
    }
}
