//! Calls between special tokens, inside of a section: DeepSeek and Kimi.

use posttrain_core::ToolCall;
use serde_json::Value;

use super::blocks::{Block, first_of, is_name, skip_space};
use super::json_value::{Read, arguments_of, raw_arguments, read};
use super::malformed::MalformedReason;

/// The special tokens of a format.
#[derive(Debug)]
pub(super) struct Markers {
    pub(super) section_open: &'static str,
    pub(super) section_close: &'static str,
    pub(super) open: &'static str,
    pub(super) separator: &'static str,
    pub(super) close: &'static str,
    /// Reads the name from the text before the separator and the text behind it.
    pub(super) header: for<'t> fn(&'t str, &'t str) -> Header<'t>,
}

/// What stands before the arguments.
#[derive(Debug)]
pub(super) struct Header<'t> {
    pub(super) id: Option<&'t str>,
    pub(super) name: &'t str,
    /// The name is followed by something, so it is whole.
    pub(super) whole: bool,
    /// Where the arguments start, in the text behind the separator.
    pub(super) arguments: usize,
    /// The arguments stand in a code fence.
    pub(super) fenced: bool,
}

pub(super) const FENCE: &str = "```";

/// The first block at or after `from`.
pub(super) fn next(text: &str, from: usize, markers: &Markers) -> Option<Block> {
    let start = first_of(text, from, &[markers.section_open, markers.open]);
    let mut block = Block::opening_at(start);
    let in_section = text[start..].starts_with(markers.section_open);
    if start == text.len() {
        return None;
    }
    let mut end = if in_section { start + markers.section_open.len() } else { start };
    loop {
        let at = skip_space(text, end);
        if text[at..].starts_with(markers.open) {
            end = read_call(text, at + markers.open.len(), markers, &mut block);
        } else if text[at..].starts_with(markers.section_close) {
            end = at + markers.section_close.len();
            break;
        } else if !in_section {
            break;
        } else if markers.section_close.starts_with(&text[at..]) {
            block.cut = true;
            end = text.len();
            break;
        } else {
            // The section may go on behind something that does not belong there.
            let stops = [markers.open, markers.section_close, markers.section_open];
            let stop = first_of(text, at, &stops);
            if stop == text.len() || text[stop..].starts_with(markers.section_open) {
                break;
            }
            block.leave_unread(text, at..stop, MalformedReason::Syntax);
            end = stop;
        }
    }
    block.span.end = end;
    Some(block)
}

/// Reads the call whose opening token ends at `at` into `block`; the offset behind it.
fn read_call(text: &str, at: usize, markers: &Markers, block: &mut Block) -> usize {
    let limit = |at| first_of(text, at, &[markers.close, markers.open, markers.section_close]);
    let past_close = |at: usize| {
        if text[at..].starts_with(markers.close) { at + markers.close.len() } else { at }
    };
    let stop = limit(at);
    let head_end = first_of(&text[..stop], at, &[markers.separator]);
    let behind = (head_end + markers.separator.len()).min(stop);
    let header = (markers.header)(&text[at..head_end], &text[behind..stop]);
    let cut = stop == text.len();
    if head_end == stop || !is_name(header.name) || (cut && !header.whole) {
        block.cut |= cut;
        let reason = if cut { MalformedReason::CutOff } else { MalformedReason::NoName };
        block.leave_unread(text, at..stop, reason);
        return past_close(stop);
    }

    let start = behind + header.arguments;
    let (arguments, end) = if let Read::Value(value, end) = read::<Value>(text, start) {
        (arguments_of(value, text[start..end].trim()), end)
    } else {
        let stop = limit(start);
        let raw = text[start..stop].trim();
        let unfenced = raw.strip_suffix(FENCE).filter(|_| header.fenced);
        let raw = unfenced.unwrap_or(raw).trim_end();
        (raw_arguments(raw, stop == text.len()), stop)
    };
    let id = header.id.map(str::to_owned);
    block.calls.push(ToolCall { id, ..ToolCall::new(header.name, arguments) });

    let mut end = skip_space(text, end);
    if header.fenced && text[end..].starts_with(FENCE) {
        end = skip_space(text, end + FENCE.len());
    }
    let rest = &text[end..];
    if markers.close.starts_with(rest) || (header.fenced && FENCE.starts_with(rest)) {
        block.cut |= !text[end..].starts_with(markers.close);
        return text.len();
    }
    let stop = limit(end);
    if end < stop {
        block.cut |= stop == text.len();
        block.leave_unread(text, end..stop, MalformedReason::Syntax);
    }
    past_close(stop)
}

#[cfg(test)]
mod tests {
    use super::super::ResponseFormat::{DeepSeek, Kimi};
    use super::super::tests::{check_cuts, lines};

    /// DeepSeek's tokens in letters.
    fn deepseek(text: &str) -> String {
        text.replace("[[", "<｜tool▁calls▁begin｜>")
            .replace("]]", "<｜tool▁calls▁end｜>")
            .replace("((", "<｜tool▁call▁begin｜>")
            .replace("))", "<｜tool▁call▁end｜>")
            .replace("||", "<｜tool▁sep｜>")
    }

    /// Kimi's tokens in letters.
    fn kimi(text: &str) -> String {
        text.replace("[[", "<|tool_calls_section_begin|>")
            .replace("]]", "<|tool_calls_section_end|>")
            .replace("((", "<|tool_call_begin|>")
            .replace("))", "<|tool_call_end|>")
            .replace("||", "<|tool_call_argument_begin|>")
    }

    fn deepseek_lines(text: &str) -> Vec<String> {
        lines(DeepSeek, &deepseek(text))
    }

    #[test]
    fn deepseek_v3() {
        let text = "[[((function||f\n```json\n{\"s\": \"```)) é\"}\n```))\n((function||g\n```json\n{}\n```))]]";
        assert_eq!(
            deepseek_lines(text),
            [r#"call f {"s":"```<｜tool▁call▁end｜> é"}"#.to_owned(), "call g {}".to_owned()]
        );
        let text = "Let me.[[((function||f\n```json\n{\n  \"x\": 1\n}\n```\n))]] Done.";
        assert_eq!(deepseek_lines(text), ["content Let me.\nDone.", r#"call f {"x":1}"#]);
        for (arguments, expected) in [
            ("\n```json\n{bad}\n```", "text-call f {bad}"),
            ("\n```\n{\"x\": 1}\n```", r#"call f {"x":1}"#),
            ("\n{\"x\": 1}", r#"call f {"x":1}"#),
            ("\n```json\nnull\n```", "call f {}"),
            ("\n```json\n\"{\\\"x\\\": 1}\"\n```", r#"call f {"x":1}"#),
            ("\n```json\n```", "call f {}"),
            ("", "call f {}"),
        ] {
            assert_eq!(deepseek_lines(&format!("[[((function||f{arguments}))]]")), [expected]);
        }
    }

    #[test]
    fn deepseek_v31() {
        let text = "Let me.[[((f||{\"s\": \"}))\"}))((g||{}))]]";
        assert_eq!(
            deepseek_lines(text),
            ["content Let me.", r#"call f {"s":"}<｜tool▁call▁end｜>"}"#, "call g {}"]
        );
        assert_eq!(deepseek_lines("[[((function||{\"x\": 1}))]]"), [r#"call function {"x":1}"#]);
        assert_eq!(deepseek_lines("[[((f||{bad}))((g||))]]"), ["text-call f {bad}", "call g {}"]);
        assert_eq!(deepseek_lines("((f||{}))"), ["call f {}"]);
        assert_eq!(
            deepseek_lines("a ((f||{}))((g||{}))]] b"),
            ["content a\nb", "call f {}", "call g {}"]
        );
        assert_eq!(deepseek_lines("[[((f||{}((g||{}))]]"), ["call f {}", "call g {}"]);
    }

    #[test]
    fn kimi_ids_hold_the_name() {
        let text = kimi("Sure.[[((functions.f:0||{\"s\": \"))\"}))((functions.g.h:12||{}))]] ok");
        assert_eq!(
            lines(Kimi, &text),
            [
                "content Sure.\nok",
                r#"call #functions.f:0 f {"s":"<|tool_call_end|>"}"#,
                "call #functions.g.h:12 g.h {}"
            ]
        );
        assert_eq!(lines(Kimi, &kimi("[[((f||{bad}))]]")), ["text-call #f f {bad}"]);
        assert_eq!(lines(Kimi, &kimi("[[((a:b||null))]]")), ["call #a:b a:b {}"]);
    }

    #[test]
    fn what_holds_no_call_stays_content() {
        for (text, reason) in [
            ("[[]]", "Empty"),
            ("[[((f))]]", "NoName"),
            ("[[((||{}))]]", "NoName"),
            ("[[((a b||{}))]]", "NoName"),
            ("[[ some text ]]", "Syntax"),
        ] {
            let text = deepseek(text);
            let expected = [format!("content {text}"), format!("malformed {reason} {text}")];
            assert_eq!(lines(DeepSeek, &text), expected);
        }
        let text = "[[((f||{}}))x((g||{}))]]";
        assert_eq!(
            deepseek_lines(text),
            ["content }\nx", "call f {}", "call g {}", "malformed Syntax }", "malformed Syntax x"]
        );
        let text = "[[((f||{})) and then[[((g||{}))]]";
        assert_eq!(deepseek_lines(text), ["content and then", "call f {}", "call g {}"]);
    }

    #[test]
    fn cut_off_at_each_byte() {
        let text = deepseek("[[((function||f\n```json\n{\"s\": \"ü}\"}\n```))]]");
        check_cuts(DeepSeek, &text, "f\n", "ü}\"}");
        let text = deepseek("[[((f||{\"s\": \"ü}\"}))]]");
        check_cuts(DeepSeek, &text, "sep｜>", "ü}\"}");
        let text = kimi("[[((functions.f:0||{\"s\": \"ü}\"}))]]");
        check_cuts(Kimi, &text, "argument_begin|>", "ü}\"}");
        let text = deepseek("[[((function||get_wea");
        assert_eq!(
            lines(DeepSeek, &text),
            [format!("content {text}"), format!("malformed CutOff {text}"), "cut call".into()]
        );
    }
}
