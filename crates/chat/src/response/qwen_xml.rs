//! Qwen3-Coder, Qwen3.5 and Nemotron 3: `<tool_call>\n<function=name>\n<parameter=key>\nvalue\n
//! </parameter>\n</function>\n</tool_call>`. Seed-OSS writes the same between `<seed:tool_call>`
//! and `</seed:tool_call>`.

use std::ops::Range;

use posttrain_core::{Tool, ToolCall};

use super::blocks::{Block, first_of, is_name, skip_space};
use super::json_value::raw_arguments;
use super::malformed::MalformedReason;
use super::xml_values::{Pairs, closed_value};

const TAGS: [(&str, &str); 2] =
    [("<tool_call>", "</tool_call>"), ("<seed:tool_call>", "</seed:tool_call>")];
const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";

/// The first block at or after `from`.
pub(super) fn next(text: &str, from: usize, tools: &[Tool]) -> Option<Block> {
    let start = first_of(text, from, &TAGS.map(|(open, _)| open));
    let (open, close) = TAGS.into_iter().find(|(open, _)| text[start..].starts_with(open))?;
    let mut block = Block::opening_at(start);
    let mut end = start + open.len();
    loop {
        let at = skip_space(text, end);
        let rest = &text[at..];
        if !rest.starts_with(FUNCTION) {
            if !rest.is_empty() && FUNCTION.starts_with(rest) && block.calls.is_empty() {
                block.leave_unread(text, at..text.len(), MalformedReason::CutOff);
                end = text.len();
            }
            break;
        }
        end = read_function(text, at, (open, close), tools, &mut block);
    }
    Some(block.close(text, end, open, close))
}

/// Reads the function whose tag stands at `start` into `block`; the offset behind it.
fn read_function(
    text: &str,
    start: usize,
    (open, close): (&str, &str),
    tools: &[Tool],
    block: &mut Block,
) -> usize {
    let name_start = start + FUNCTION.len();
    let name_end = first_of(text, name_start, &[">", "\n"]);
    let name = text[name_start..name_end].trim();
    if !text[name_end..].starts_with('>') || !is_name(name) {
        let stop = first_of(text, name_start, &[open, close]);
        block.cut |= name_end == text.len();
        let reason = match name {
            "" if name_end < text.len() => MalformedReason::NoName,
            _ => MalformedReason::unreadable(block.cut),
        };
        block.leave_unread(text, start..stop, reason);
        return stop;
    }
    let body = name_end + 1;
    let (arguments, end) = match read_parameters(text, body, close) {
        Ok(pairs) => (pairs.arguments(tools, name), pairs.end),
        Err(broken) => {
            let stop = first_of(text, broken, &[FUNCTION_END, open, close]);
            let cut = stop == text.len();
            block.cut |= cut;
            let closed = text[stop..].starts_with(FUNCTION_END);
            let end = if closed { stop + FUNCTION_END.len() } else { stop };
            (raw_arguments(text[body..stop].trim(), cut), end)
        }
    };
    block.calls.push(ToolCall::new(name, arguments));
    end
}

/// The parameters from `at` on, and the offset behind the function. The error is where something
/// else stands, or the text ends.
fn read_parameters<'t>(text: &'t str, at: usize, close: &str) -> Result<Pairs<'t>, usize> {
    let mut pairs = Vec::new();
    let mut at = at;
    loop {
        at = skip_space(text, at);
        let rest = &text[at..];
        if rest.starts_with(FUNCTION_END) {
            return Ok(Pairs { pairs, end: at + FUNCTION_END.len() });
        }
        if rest.starts_with(close) {
            return Ok(Pairs { pairs, end: at });
        }
        let (key, value_start) = parameter_key(text, at).ok_or(at)?;
        let (value, end) = parameter_value(text, value_start, close).ok_or(value_start)?;
        pairs.push((key, without_line_breaks(&text[value])));
        at = end;
    }
}

fn parameter_key(text: &str, at: usize) -> Option<(&str, usize)> {
    let rest = text[at..].strip_prefix(PARAMETER)?;
    let (key, value) = rest.split_once('>')?;
    (!key.contains('\n')).then(|| (key.trim(), text.len() - value.len()))
}

/// The value that starts at `from`, and the offset behind its closing tag. Models forget that tag;
/// then the value goes on to the end of the function.
fn parameter_value(text: &str, from: usize, close: &str) -> Option<(Range<usize>, usize)> {
    closed_value(text, from, PARAMETER_END, &[PARAMETER, FUNCTION_END, close]).or_else(|| {
        let stop = first_of(text, from, &[FUNCTION_END, close]);
        (stop < text.len()).then_some((from..stop, stop))
    })
}

/// The template writes one line break before the value and one behind it.
fn without_line_breaks(value: &str) -> &str {
    let value = value.strip_prefix('\n').unwrap_or(value);
    value.strip_suffix('\n').unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use posttrain_core::Tool;
    use serde_json::json;

    use super::super::ResponseFormat::QwenXml;
    use super::super::tests::{check_cuts, lines, lines_of};
    use super::super::{ResponseParser, tests};

    fn call(body: &str) -> String {
        format!("<tool_call>\n<function=f>\n{body}</function>\n</tool_call>")
    }

    fn parameter(value: &str) -> String {
        call(&format!("<parameter=x>\n{value}\n</parameter>\n"))
    }

    #[test]
    fn one_call_and_two() {
        assert_eq!(lines(QwenXml, &parameter("a\n b ")), [r#"call f {"x":"a\n b "}"#]);
        assert_eq!(lines(QwenXml, &call("")), ["call f {}"]);
        let text = "Let me look.\n\n<tool_call>\n<function=f>\n<parameter=x>\n{\"é\": \"}\"}\n</parameter>\n\
                    <parameter=y z>\n\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n\
                    <function=g>\n</function>\n</tool_call> Done.";
        assert_eq!(
            lines(QwenXml, text),
            [
                "content Let me look.\nDone.",
                r#"call f {"x":"{\"é\": \"}\"}","y z":""}"#,
                "call g {}"
            ]
        );
    }

    #[test]
    fn values_are_typed_by_the_schema() {
        let properties = json!({
            "s": {"type": "string"}, "i": {"type": "integer"}, "b": {"type": "boolean"},
            "o": {"type": "object"}, "n": {"type": ["number", "null"]},
        });
        let tools = [Tool::function("f", "", json!({"type": "object", "properties": properties}))];
        let written = [
            ("s", "7"),
            ("i", "7"),
            ("b", "True"),
            ("o", "{\"a\": [1]}"),
            ("n", "None"),
            ("u", "7"),
        ];
        let body =
            written.map(|(key, value)| format!("<parameter={key}>\n{value}\n</parameter>\n"));
        let text = call(&body.concat());
        let parsed = ResponseParser::new(QwenXml).tools(&tools).parse(&text);
        assert_eq!(
            lines_of(&parsed, &text),
            [r#"call f {"s":"7","i":7,"b":true,"o":{"a":[1]},"n":null,"u":"7"}"#]
        );
        assert_eq!(
            tests::lines(QwenXml, &text),
            [r#"call f {"s":"7","i":"7","b":"True","o":"{\"a\": [1]}","n":"None","u":"7"}"#]
        );
    }

    #[test]
    fn values_may_hold_tags() {
        let text = parameter("</parameter> and </function> and </tool_call>");
        assert_eq!(
            lines(QwenXml, &text),
            [r#"call f {"x":"</parameter> and </function> and </tool_call>"}"#]
        );
        let text = parameter("\n<tool_call>\n");
        assert_eq!(lines(QwenXml, &text), [r#"call f {"x":"\n<tool_call>\n"}"#]);
    }

    #[test]
    fn missing_closing_tags() {
        let text = "<tool_call>\n<function=f>\n<parameter=x>\n1\n</function>\n</tool_call>";
        assert_eq!(lines(QwenXml, text), [r#"call f {"x":"1"}"#]);
        let text = "<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n</tool_call> ok";
        assert_eq!(lines(QwenXml, text), ["content ok", r#"call f {"x":"1"}"#]);
        let text = "<tool_call><function=f><parameter=x>1</parameter></function>";
        assert_eq!(lines(QwenXml, text), [r#"call f {"x":"1"}"#, "cut call"]);
    }

    #[test]
    fn other_bodies() {
        assert_eq!(lines(QwenXml, &call("{\"x\": 1}\n")), [r#"call f {"x":1}"#]);
        assert_eq!(lines(QwenXml, &call("x = 1\n")), ["text-call f x = 1"]);
        assert_eq!(lines(QwenXml, &call("null")), ["call f {}"]);
        let text =
            "<tool_call>\n<function=f>\n</function>\n<function=g>\n</function>\nhm\n</tool_call>";
        assert_eq!(
            lines(QwenXml, text),
            ["content hm", "call f {}", "call g {}", "malformed Syntax hm"]
        );
        let text =
            "<tool_call>\n<function=f>\nx\n<tool_call>\n<function=g>\n</function>\n</tool_call>";
        assert_eq!(lines(QwenXml, text), ["text-call f x", "call g {}"]);
    }

    #[test]
    fn seed_writes_its_own_outer_tags() {
        let text = "Sure.\n<seed:tool_call>\n<function=f>\n<parameter=x>a\nb</parameter>\n</function>\n\
                    </seed:tool_call>";
        assert_eq!(lines(QwenXml, text), ["content Sure.", r#"call f {"x":"a\nb"}"#]);
    }

    #[test]
    fn what_holds_no_call_stays_content() {
        for (body, reason) in [
            ("", "Empty"),
            ("\nf(1)\n", "Syntax"),
            ("<function=>\n</function>", "NoName"),
            ("<function=a b>\n</function>", "Syntax"),
            ("<function=f\n</function>", "Syntax"),
            ("{\"name\": \"f\"}", "Syntax"),
        ] {
            let text = format!("a <tool_call>{body}</tool_call> b");
            let expected = [
                format!("content {text}"),
                format!("malformed {reason} <tool_call>{body}</tool_call>"),
            ];
            assert_eq!(lines(QwenXml, &text), expected);
        }
    }

    #[test]
    fn cut_off_at_each_byte() {
        check_cuts(QwenXml, &parameter("ü"), "f>", "</function>");
        let text = "<tool_call>\n<function=f>\n<parameter=x>\nü";
        assert_eq!(lines(QwenXml, text), ["text-call f <parameter=x>\nü", "cut call"]);
        for text in ["<tool_call>\n<fun", "<tool_call>\n<function=ge"] {
            let expected =
                [format!("content {text}"), format!("malformed CutOff {text}"), "cut call".into()];
            assert_eq!(lines(QwenXml, text), expected);
        }
    }
}
