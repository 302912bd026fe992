//! Kimi K2: `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{...}<|tool_call_end|>`
//! between `<|tool_calls_section_begin|>` and `<|tool_calls_section_end|>`. The text before the
//! arguments is the id of the call; the name is a part of it.

use super::sections::{Header, Markers};

pub(super) const MARKERS: Markers = Markers {
    section_open: "<|tool_calls_section_begin|>",
    section_close: "<|tool_calls_section_end|>",
    open: "<|tool_call_begin|>",
    separator: "<|tool_call_argument_begin|>",
    close: "<|tool_call_end|>",
    header,
};

fn header<'t>(head: &'t str, _behind: &'t str) -> Header<'t> {
    let id = head.trim();
    let name = id.strip_prefix("functions.").unwrap_or(id);
    let name = match name.rsplit_once(':') {
        Some((name, index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    };
    Header { id: Some(id), name, whole: true, arguments: 0, fenced: false }
}
