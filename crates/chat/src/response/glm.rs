//! GLM-4.5 and later: `<tool_call>name\n<arg_key>key</arg_key>\n<arg_value>value</arg_value>\n
//! </tool_call>`, with or without the line breaks.

use posttrain_core::{Tool, ToolCall};

use super::blocks::{Block, first_of, is_name, skip_space};
use super::json_value::raw_arguments;
use super::malformed::MalformedReason;
use super::xml_values::{Pairs, closed_value};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const KEY: &str = "<arg_key>";
const KEY_END: &str = "</arg_key>";
const VALUE: &str = "<arg_value>";
const VALUE_END: &str = "</arg_value>";

/// The first block at or after `from`.
pub(super) fn next(text: &str, from: usize, tools: &[Tool]) -> Option<Block> {
    let start = from + text[from..].find(OPEN)?;
    let mut block = Block::opening_at(start);
    let name_start = skip_space(text, start + OPEN.len());
    let name_end = first_of(text, name_start, &["<", "\n"]);
    let name = text[name_start..name_end].trim();
    if name_end == text.len() || !is_name(name) {
        let mut end = name_start;
        if name_end == text.len() && is_name(name) {
            block.leave_unread(text, name_start..name_end, MalformedReason::CutOff);
            end = name_end;
        }
        return Some(block.close(text, end, OPEN, CLOSE));
    }
    let (arguments, end) = match read_arguments(text, name_end) {
        Ok(pairs) => (pairs.arguments(tools, name), pairs.end),
        Err(broken) => {
            let stop = first_of(text, broken, &[OPEN, CLOSE]);
            let cut = stop == text.len();
            (raw_arguments(text[name_end..stop].trim(), cut), stop)
        }
    };
    block.calls.push(ToolCall::new(name, arguments));
    Some(block.close(text, end, OPEN, CLOSE))
}

/// The keys and values from `at` to the closing tag, and where that stands. The error is where
/// something else stands, or the text ends.
fn read_arguments(text: &str, at: usize) -> Result<Pairs<'_>, usize> {
    let mut pairs = Vec::new();
    let mut at = at;
    loop {
        at = skip_space(text, at);
        let rest = &text[at..];
        if rest.starts_with(CLOSE) {
            return Ok(Pairs { pairs, end: at });
        }
        let key = rest.strip_prefix(KEY).and_then(|rest| rest.split_once(KEY_END));
        let (key, rest) = key.ok_or(at)?;
        let value = rest.trim_start().strip_prefix(VALUE).ok_or(at)?;
        let from = text.len() - value.len();
        let (value, end) = closed_value(text, from, VALUE_END, &[KEY, CLOSE]).ok_or(from)?;
        pairs.push((key.trim(), &text[value]));
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use posttrain_core::Tool;
    use serde_json::json;

    use super::super::ResponseFormat::Glm;
    use super::super::ResponseParser;
    use super::super::tests::{check_cuts, lines, lines_of};

    #[test]
    fn one_call_and_two() {
        let text = "\nLet me look.\n<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>a\n</arg_value>\n\
                    <arg_key>y z</arg_key>\n<arg_value></arg_value>\n</tool_call>\n<tool_call>g\n</tool_call>";
        assert_eq!(
            lines(Glm, text),
            ["content Let me look.", r#"call f {"x":"a\n","y z":""}"#, "call g {}"]
        );
        let text = "<tool_call>f<arg_key>x</arg_key><arg_value>}é\"</arg_value></tool_call><tool_call>g</tool_call>";
        assert_eq!(lines(Glm, text), [r#"call f {"x":"}é\""}"#, "call g {}"]);
    }

    #[test]
    fn values_are_typed_by_the_schema() {
        let schema = json!({"properties": {"x": {"type": "integer"}, "y": {"type": "string"}}});
        let tools = [Tool::function("f", "", schema)];
        let text = "<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>7</arg_value>\n\
                    <arg_key>y</arg_key>\n<arg_value>7</arg_value>\n</tool_call>";
        let parsed = ResponseParser::new(Glm).tools(&tools).parse(text);
        assert_eq!(lines_of(&parsed, text), [r#"call f {"x":7,"y":"7"}"#]);
    }

    #[test]
    fn values_may_hold_tags() {
        let text =
            "<tool_call>f<arg_key>x</arg_key><arg_value>a </arg_value> b</arg_value></tool_call>";
        assert_eq!(lines(Glm, text), [r#"call f {"x":"a </arg_value> b"}"#]);
    }

    #[test]
    fn other_bodies() {
        assert_eq!(lines(Glm, "<tool_call>f\n{\"x\": 1}\n</tool_call>"), [r#"call f {"x":1}"#]);
        assert_eq!(lines(Glm, "<tool_call>f\nx = 1\n</tool_call>"), ["text-call f x = 1"]);
        for (body, reason) in
            [("", "Empty"), ("\n{\"name\": \"f\"}\n", "Syntax"), ("a b\n", "Syntax")]
        {
            let text = format!("<tool_call>{body}</tool_call>");
            let expected = [format!("content {text}"), format!("malformed {reason} {text}")];
            assert_eq!(lines(Glm, &text), expected);
        }
    }

    #[test]
    fn cut_off_at_each_byte() {
        let text = "<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>ü</arg_value>\n</tool_call>";
        check_cuts(Glm, text, "f\n", "</tool_call>");
        let text = "<tool_call>get_wea";
        assert_eq!(
            lines(Glm, text),
            [format!("content {text}"), format!("malformed CutOff {text}"), "cut call".into()]
        );
    }
}
