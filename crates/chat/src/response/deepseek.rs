//! DeepSeek: V2, V3 and R1 write
//! ``<｜tool▁call▁begin｜>function<｜tool▁sep｜>name\n```json\n{...}\n```<｜tool▁call▁end｜>``, V3.1
//! writes `<｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}<｜tool▁call▁end｜>`, both between
//! `<｜tool▁calls▁begin｜>` and `<｜tool▁calls▁end｜>`.

use super::blocks::skip_space;
use super::sections::{FENCE, Header, Markers};

pub(super) const MARKERS: Markers = Markers {
    section_open: "<｜tool▁calls▁begin｜>",
    section_close: "<｜tool▁calls▁end｜>",
    open: "<｜tool▁call▁begin｜>",
    separator: "<｜tool▁sep｜>",
    close: "<｜tool▁call▁end｜>",
    header,
};

/// Both forms are told apart by the word before the separator: `function` with a name behind it, or
/// the name itself, be it that very word.
fn header<'t>(head: &'t str, behind: &'t str) -> Header<'t> {
    let names_behind = head.trim() == "function" && !behind.trim_start().starts_with('{');
    let line_end = behind.find('\n').unwrap_or(behind.len());
    let line = &behind[..line_end];
    let (name, start) = if names_behind { (line, line_end) } else { (head, 0) };
    let mut arguments = skip_space(behind, start);
    let fenced = behind[arguments..].starts_with(FENCE);
    if fenced {
        arguments += FENCE.len();
        let language = behind[arguments..].strip_prefix("json");
        arguments = language.map_or(arguments, |rest| behind.len() - rest.len());
    }
    let whole = !names_behind || line_end < behind.len();
    Header { id: None, name: name.trim(), whole, arguments, fenced }
}
