//! Hermes and Qwen: `<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>`.

use super::blocks::{Block, first_of};
use super::json_calls::{Place, read_calls};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// The first block at or after `from`.
pub(super) fn next(text: &str, from: usize) -> Option<Block> {
    let start = from + text[from..].find(OPEN)?;
    let mut block = Block::opening_at(start);
    let limit = |at| first_of(text, at, &[OPEN, CLOSE]);
    let end = read_calls(text, start + OPEN.len(), Place::Marked, limit, &mut block);
    Some(block.close(text, end, OPEN, CLOSE))
}

#[cfg(test)]
mod tests {
    use super::super::ResponseFormat::Hermes;
    use super::super::tests::{check_cuts, lines};

    #[test]
    fn one_call_and_two() {
        let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>";
        assert_eq!(lines(Hermes, text), [r#"call f {"x":1}"#]);
        let text = "Let me look.\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n\
                    <tool_call>\n{\"name\": \"g\", \"arguments\": {\"y\": [1, {\"z\": null}]}}\n\
                    </tool_call>\n Done. ";
        assert_eq!(
            lines(Hermes, text),
            ["content Let me look.\nDone.", "call f {}", r#"call g {"y":[1,{"z":null}]}"#]
        );
    }

    #[test]
    fn text_between_calls_is_content() {
        let text = "a<tool_call>{\"name\": \"f\"}</tool_call> b\nc <tool_call>{\"name\": \"g\"}</tool_call>d";
        assert_eq!(lines(Hermes, text), ["content a\nb\nc\nd", "call f {}", "call g {}"]);
    }

    #[test]
    fn markers_in_strings_do_not_end_a_call() {
        let text = r#"<tool_call>{"name": "f", "arguments": {"s": "}}</tool_call><tool_call>{\"é☃"}}</tool_call>"#;
        assert_eq!(lines(Hermes, text), [r#"call f {"s":"}}</tool_call><tool_call>{\"é☃"}"#]);
    }

    #[test]
    fn arguments_of_every_kind() {
        for (written, expected) in [
            (r#""arguments": {}"#, "call f {}"),
            (r#""arguments": null"#, "call f {}"),
            (r#""arguments": """#, "call f {}"),
            (r#""arguments": "{\"x\": 1}""#, r#"call f {"x":1}"#),
            (r#""arguments": "{\"x\": 1""#, r#"text-call f {"x": 1"#),
            (r#""arguments": "x = 1""#, "text-call f x = 1"),
            (r#""arguments": [1,  2]"#, "text-call f [1,  2]"),
            (r#""arguments": {'x': 1}"#, "text-call f {'x': 1}"),
            (r#""arguments": {"x": 1,}"#, r#"text-call f {"x": 1,}"#),
            (r#""arguments": {"x": 1}, "arguments": {"x": 2}"#, r#"call f {"x":2}"#),
            (r#""arguments": {"x": 1, "x": 2}"#, r#"call f {"x":2}"#),
            (r#""parameters": {"x": 1}, "id": "a1""#, r#"call #a1 f {"x":1}"#),
            (r#""id": 7, "type": "function""#, "call #7 f {}"),
            (r#""args": {"x": 1}"#, r#"text-call f {"name": "f", "args": {"x": 1}}"#),
            (r#""thought": "x", "arguments": {"x": 1}"#, r#"call f {"x":1}"#),
            (r#"arguments: {"x": 1}"#, r#"text-call f arguments: {"x": 1}"#),
        ] {
            let text = format!("<tool_call>\n{{\"name\": \"f\", {written}}}\n</tool_call>");
            assert_eq!(lines(Hermes, &text), [expected]);
        }
    }

    #[test]
    fn calls_that_share_a_block() {
        let text = r#"<tool_call>[{"name": "f"}, {"name": "g"}]</tool_call>"#;
        assert_eq!(lines(Hermes, text), ["call f {}", "call g {}"]);
        let text = "<tool_call>\n{\"name\": \"f\"}\n{\"name\": \"g\"}\n</tool_call>";
        assert_eq!(lines(Hermes, text), ["call f {}", "call g {}"]);
        let text = r#"<tool_call>{"name": "f"}{"x": 1}{"name": "g"}</tool_call>"#;
        assert_eq!(
            lines(Hermes, text),
            [r#"content {"x": 1}"#, "call f {}", "call g {}", r#"malformed NoName {"x": 1}"#]
        );
    }

    #[test]
    fn one_bracket_too_many_or_too_few() {
        let text = "<tool_call>{\"name\": \"f\", \"arguments\": {}}}\n</tool_call> x";
        assert_eq!(lines(Hermes, text), ["content }\nx", "call f {}", "malformed Syntax }"]);
        let text = "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1}\n</tool_call> x";
        assert_eq!(lines(Hermes, text), ["content x", r#"call f {"x":1}"#]);
        let text = r#"<tool_call>[{"name": "f", "arguments": {"x": 1}]</tool_call>"#;
        assert_eq!(lines(Hermes, text), [r#"call f {"x":1}"#]);
        let text = r#"<tool_call>{"name": "f", "arguments": {"x": "1}}</tool_call>"#;
        assert_eq!(lines(Hermes, text), [r#"text-call f {"x": "1}"#]);
    }

    #[test]
    fn blocks_that_hold_no_call_stay_content() {
        for (body, reason) in [
            ("", "Empty"),
            ("\n", "Empty"),
            ("[]", "Empty"),
            ("f(1)", "Syntax"),
            ("{name: f}", "Syntax"),
            ("{\"name\" \"f\"}", "Syntax"),
            ("{}", "NoName"),
            (r#"{"name": ""}"#, "NoName"),
            (r#"{"name": 7, "arguments": {}}"#, "NoName"),
            (r#"{"name": "f", "name": null}"#, "NoName"),
            (r#"{"function": "f", "arguments": {"a": "</tool_call>"}}"#, "NoName"),
        ] {
            let text = format!("é <tool_call>{body}</tool_call> b");
            let expected = [
                format!("content {text}"),
                format!("malformed {reason} <tool_call>{body}</tool_call>"),
            ];
            assert_eq!(lines(Hermes, &text), expected);
        }
    }

    #[test]
    fn the_tag_in_prose_is_content() {
        let text = "The <tool_call> tag opens a call.";
        assert_eq!(
            lines(Hermes, text),
            [
                "content The <tool_call> tag opens a call.",
                "malformed Syntax <tool_call> tag opens a call."
            ]
        );
    }

    #[test]
    fn a_missing_closing_tag() {
        let text = "<tool_call>{\"name\": \"f\"}\n<tool_call>{\"name\": \"g\"}";
        assert_eq!(lines(Hermes, text), ["call f {}", "call g {}", "cut call"]);
    }

    #[test]
    fn cut_off_at_each_byte() {
        let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"ü}\"}}\n</tool_call>";
        check_cuts(Hermes, text, "\"f\"", "ü}\"}");
        let text = "<tool_call>\n{\"na";
        assert_eq!(
            lines(Hermes, text),
            [format!("content {text}"), format!("malformed CutOff {text}"), "cut call".into()]
        );
        let text = "<tool_call>\n{\"name\": \"f\", \"args\": {\"x\": 1}";
        let expected = [r#"text-call f {"name": "f", "args": {"x": 1}"#, "cut call"];
        assert_eq!(lines(Hermes, text), expected);
        let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": [1, 2";
        assert_eq!(lines(Hermes, text), [r#"text-call f {"x": [1, 2"#, "cut call"]);
    }
}
