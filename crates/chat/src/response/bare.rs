//! Calls written as JSON with no marker around them.

use serde::de::IgnoredAny;

use super::blocks::{Block, skip_space};
use super::json_calls::{Place, is_bare_call, read_calls};
use super::json_value::{Read, read};

/// The first calls that begin in `from..until`. Without a marker a call is known by its form alone:
/// an object with a name and arguments (or parameters), or a list of such, that starts a line
/// outside of code fences. `limit` says where the calls end at the latest when they stop being JSON.
pub(super) fn next(
    text: &str,
    from: usize,
    until: usize,
    limit: impl Fn(usize) -> usize,
) -> Option<Block> {
    let starts_line = from == 0 || text[..from].ends_with('\n');
    let mut line = if starts_line { Some(from) } else { next_line(text, from) };
    while let Some(mut at) = line.filter(|&at| at < until) {
        let start = text.len() - text[at..].trim_start_matches([' ', '\t']).len();
        if text[start..].starts_with(['{', '[']) {
            let listed = text[start..].starts_with('[');
            let first = if listed { skip_space(text, start + 1) } else { start };
            if is_bare_call(text, first) && !in_code_fence(&text[..start]) {
                let mut block = Block::opening_at(start);
                block.span.end = read_calls(text, start, Place::Bare, limit, &mut block);
                return Some(block);
            }
            // What is inside of other JSON is no call.
            if let Read::Value(_, end) = read::<IgnoredAny>(text, start) {
                at = end;
            }
        }
        line = next_line(text, at);
    }
    None
}

fn next_line(text: &str, at: usize) -> Option<usize> {
    text[at..].find('\n').map(|offset| at + offset + 1)
}

fn in_code_fence(before: &str) -> bool {
    before.lines().filter(|line| line.trim_start().starts_with("```")).count() % 2 == 1
}
