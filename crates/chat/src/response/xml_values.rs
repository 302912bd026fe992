//! Arguments between tags that escape nothing.

use std::ops::Range;

use posttrain_core::{Arguments, Tool};

use super::blocks::skip_space;
use super::schema::cast;

/// The keys and values of a call as they were written, and the offset behind them.
#[derive(Debug)]
pub(super) struct Pairs<'t> {
    pub(super) pairs: Vec<(&'t str, &'t str)>,
    pub(super) end: usize,
}

impl Pairs<'_> {
    /// The arguments of the tool `name`, their types as its schema declares them.
    pub(super) fn arguments(&self, tools: &[Tool], name: &str) -> Arguments {
        let typed = |&(key, value): &(&str, &str)| (key.to_owned(), cast(value, tools, name, key));
        Arguments::Object(self.pairs.iter().map(typed).collect())
    }
}

/// The value that starts at `from` and ends at `close`, with the offset behind that tag. A value may
/// hold the tag itself, so the tag counts only before one of `followers` or the end of the text.
pub(super) fn closed_value(
    text: &str,
    from: usize,
    close: &str,
    followers: &[&str],
) -> Option<(Range<usize>, usize)> {
    text[from..].match_indices(close).find_map(|(offset, _)| {
        let end = from + offset + close.len();
        let rest = &text[skip_space(text, end)..];
        let ends = rest.is_empty() || followers.iter().any(|tag| rest.starts_with(tag));
        ends.then_some((from..from + offset, end))
    })
}
