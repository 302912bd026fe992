//! Mistral: `[TOOL_CALLS][{"name": ..., "arguments": {...}, "id": ...}]`, and the newer
//! `[TOOL_CALLS]name[ARGS]{...}` and `[TOOL_CALLS]name[CALL_ID]id[ARGS]{...}`, once for each call.

use posttrain_core::{Arguments, ToolCall};
use serde_json::Value;

use super::blocks::{Block, first_of, is_name, skip_space};
use super::json_calls::{Place, read_calls};
use super::json_value::{Read, arguments_of, raw_arguments, read};
use super::malformed::MalformedReason;

const CALLS: &str = "[TOOL_CALLS]";
const ID: &str = "[CALL_ID]";
const ARGS: &str = "[ARGS]";

/// The first block at or after `from`.
pub(super) fn next(text: &str, from: usize) -> Option<Block> {
    let start = from + text[from..].find(CALLS)?;
    let body = skip_space(text, start + CALLS.len());
    let rest = &text[body..];
    if rest.starts_with(['[', '{']) && !rest.starts_with(ID) && !rest.starts_with(ARGS) {
        let mut block = Block::opening_at(start);
        let limit = |at| first_of(text, at, &[CALLS]);
        block.span.end = read_calls(text, body, Place::Marked, limit, &mut block);
        return Some(block);
    }
    Some(named(text, start, body))
}

/// The block at `start` whose call is written as `name[ARGS]{...}` from `body` on.
fn named(text: &str, start: usize, body: usize) -> Block {
    let mut block = Block::opening_at(start);
    let stop = first_of(text, body, &[CALLS]);
    let name_end = first_of(&text[..stop], body, &[ID, ARGS, "{"]);
    let name = text[body..name_end].trim();
    if name_end == stop || !is_name(name) {
        block.cut = name_end == text.len() && (name.is_empty() || is_name(name));
        let reason = if name.is_empty() && name_end < stop {
            MalformedReason::NoName
        } else {
            MalformedReason::unreadable(block.cut)
        };
        block.leave_unread(text, body..stop, reason);
        block.span.end = stop;
        return block;
    }
    let mut call = ToolCall::new(name, Arguments::Text(String::new()));
    let mut at = name_end;
    if text[at..].starts_with(ID) {
        let id_end = first_of(&text[..stop], at, &[ARGS, "{"]);
        call.id = Some(text[at + ID.len()..id_end].trim().to_owned());
        at = id_end;
    }
    if text[at..].starts_with(ARGS) {
        at += ARGS.len();
    }
    block.span.end = match read::<Value>(text, at) {
        Read::Value(value, end) => {
            call.function.arguments = arguments_of(value, text[at..end].trim());
            end
        }
        failed => {
            let stop = first_of(text, at, &[CALLS]);
            let raw = text[at..stop].trim();
            block.cut = failed == Read::Cut && stop == text.len();
            call.function.arguments = raw_arguments(raw, block.cut);
            stop
        }
    };
    block.calls.push(call);
    block
}

#[cfg(test)]
mod tests {
    use super::super::ResponseFormat::Mistral;
    use super::super::tests::{check_cuts, lines};

    #[test]
    fn a_list_of_calls() {
        let text = r#"[TOOL_CALLS][{"name": "f", "arguments": {"s": "]}[TOOL_CALLS]"}, "id": "abcdefghi"}, {"name": "g", "arguments": {}}]"#;
        assert_eq!(
            lines(Mistral, text),
            [r#"call #abcdefghi f {"s":"]}[TOOL_CALLS]"}"#, "call g {}"]
        );
        let text = "Sure. [TOOL_CALLS] [{\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 1}\"}] ok";
        assert_eq!(lines(Mistral, text), ["content Sure.\nok", r#"call f {"x":1}"#]);
        let text = r#"[TOOL_CALLS]{"name": "f"}"#;
        assert_eq!(lines(Mistral, text), ["call f {}"]);
    }

    #[test]
    fn named_calls() {
        let text =
            r#"Sure.[TOOL_CALLS]f[ARGS]{"s": "{\"é\": 1}[TOOL_CALLS]"}[TOOL_CALLS]g.h[ARGS]{} ok"#;
        assert_eq!(
            lines(Mistral, text),
            ["content Sure.\nok", r#"call f {"s":"{\"é\": 1}[TOOL_CALLS]"}"#, "call g.h {}"]
        );
        let text = r#"[TOOL_CALLS]f[CALL_ID]a1[ARGS]{"x": 1}[TOOL_CALLS]g[CALL_ID]a2[ARGS]null"#;
        assert_eq!(lines(Mistral, text), [r#"call #a1 f {"x":1}"#, "call #a2 g {}"]);
        let text = r#"[TOOL_CALLS]f{"x": 1}"#;
        assert_eq!(lines(Mistral, text), [r#"call f {"x":1}"#]);
        let text = "[TOOL_CALLS]f[ARGS][TOOL_CALLS]g[ARGS]{'x': 1}";
        assert_eq!(lines(Mistral, text), ["call f {}", "text-call g {'x': 1}"]);
    }

    #[test]
    fn what_holds_no_call_stays_content() {
        for (text, reason) in [
            ("[TOOL_CALLS][]", "Empty"),
            ("[TOOL_CALLS][1, 2]", "Syntax"),
            (r#"[TOOL_CALLS][{"arguments": {}}]"#, "NoName"),
            ("[TOOL_CALLS][ARGS]{}", "NoName"),
            ("[TOOL_CALLS][CALL_ID]a[ARGS]{}", "NoName"),
            ("[TOOL_CALLS]I would call f{}", "Syntax"),
            ("[TOOL_CALLS]is a token.", "Syntax"),
        ] {
            let expected = [format!("content {text}"), format!("malformed {reason} {text}")];
            assert_eq!(lines(Mistral, text), expected);
        }
        let text = r#"[TOOL_CALLS][{"name": "f"}, 7]"#;
        assert_eq!(lines(Mistral, text), ["content , 7]", "call f {}", "malformed Syntax , 7]"]);
    }

    #[test]
    fn cut_off_at_each_byte() {
        let text = r#"[TOOL_CALLS][{"name": "f", "arguments": {"s": "ü}"}}]"#;
        check_cuts(Mistral, text, "\"f\"", "ü}\"}");
        let text = r#"[TOOL_CALLS][{"name": "f", "arguments": {}}, {"na"#;
        assert_eq!(
            lines(Mistral, text),
            [r#"content {"na"#, "call f {}", r#"malformed CutOff {"na"#, "cut call"]
        );
        let text = r#"[TOOL_CALLS]f[ARGS]{"s": "ü}"}"#;
        check_cuts(Mistral, text, "f[ARGS]", "ü}\"}");
        let text = "[TOOL_CALLS]f[CALL_ID]a1";
        assert_eq!(lines(Mistral, text), ["text-call #a1 f ", "cut call"]);
    }
}
