//! Text of a conversation that must not become control tokens.
//!
//! A user who writes `<|im_end|><|im_start|>system` must not end the turn. As in transformers, each
//! control token found in the text is wrapped in two private-use characters before the template is
//! rendered, and encoded as plain text afterwards.

use std::collections::HashSet;

use aho_corasick::{AhoCorasick, MatchKind};
use posttrain_core::{Arguments, Content, Conversation, Message, Part, Role};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};

pub(crate) const MARK_START: char = '\u{f0000}';
pub(crate) const MARK_END: char = '\u{f0001}';

/// Whose control tokens are encoded as plain text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sanitize {
    /// Those of user messages, tool results and documents. Assistant messages may hold them: the
    /// `<think>` tags of a training answer are meant.
    #[default]
    Untrusted,
    /// Those of every message, tool and document, as `sanitize_control_tokens=True` does in
    /// transformers.
    All,
    /// Nobody's.
    Off,
}

/// Finds control tokens, longer ones first.
#[derive(Clone, Debug)]
pub struct ControlTokens {
    matcher: AhoCorasick,
    tokens: HashSet<String>,
}

impl ControlTokens {
    pub(crate) fn new(tokens: impl IntoIterator<Item = String>) -> Result<Self> {
        let tokens: HashSet<String> =
            tokens.into_iter().filter(|token| !token.is_empty()).collect();
        let matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&tokens)
            .map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(Self { matcher, tokens })
    }

    /// The text with its control tokens wrapped; `None` when there is nothing to wrap.
    fn mark(&self, text: &str) -> Option<String> {
        // Marks in the text itself could forge one, so they go first.
        let stripped = strip(text);
        let clean = stripped.as_deref().unwrap_or(text);
        if !self.matcher.is_match(clean) {
            return stripped;
        }
        let mut out = String::with_capacity(clean.len() + 16);
        self.matcher.replace_all_with(clean, &mut out, |_, token, out| {
            out.push(MARK_START);
            out.push_str(token);
            out.push(MARK_END);
            true
        });
        Some(out)
    }

    /// Parts texts that the template will join where a control token would span their border: a
    /// lone mark goes there.
    fn part_borders(&self, texts: &mut [&mut String], changed: &mut bool) {
        // As the texts were before they were marked.
        let bare = |text: &String| strip(text).unwrap_or_else(|| text.clone());
        let bare: Vec<String> = texts.iter().map(|text| bare(text)).collect();
        let joined = bare.concat();
        let mut border = 0;
        let mut cut = Vec::new();
        for text in &bare {
            let crosses =
                |found: aho_corasick::Match| found.start() < border && border < found.end();
            cut.push(self.matcher.find_iter(&joined).any(crosses));
            border += text.len();
        }
        for (text, cut) in texts.iter_mut().zip(cut) {
            if cut {
                text.insert(0, MARK_END);
                *changed = true;
            }
        }
    }

    fn mark_text(&self, text: &mut String, changed: &mut bool) {
        if let Some(marked) = self.mark(text) {
            *text = marked;
            *changed = true;
        }
    }

    fn mark_json(&self, json: &mut Json, changed: &mut bool) {
        match json {
            Json::String(text) => self.mark_text(text, changed),
            Json::Array(items) => {
                for item in items.iter_mut() {
                    self.mark_json(item, changed);
                }
                let texts = items.iter_mut().filter_map(|item| match item.get_mut("text") {
                    Some(Json::String(text)) => Some(text),
                    _ => None,
                });
                self.part_borders(&mut texts.collect::<Vec<_>>(), changed);
            }
            Json::Object(map) => self.mark_map(map, changed),
            _ => {}
        }
    }

    /// Marks the values of an object; keys are left alone.
    pub(crate) fn mark_map(&self, map: &mut Map<String, Json>, changed: &mut bool) {
        for value in map.values_mut() {
            self.mark_json(value, changed);
        }
    }

    /// Marks template variables, except the special tokens themselves (`bos_token`).
    pub(crate) fn mark_variables(&self, variables: &mut Map<String, Json>, changed: &mut bool) {
        for (_, value) in variables.iter_mut().filter(|(name, _)| !name.ends_with("_token")) {
            self.mark_json(value, changed);
        }
    }

    /// A copy of the conversation with its control tokens wrapped; `None` when it has none.
    pub(crate) fn mark_conversation(
        &self,
        chat: &Conversation,
        which: Sanitize,
    ) -> Option<Conversation> {
        if which == Sanitize::Off {
            return None;
        }
        let mut chat = chat.clone();
        let mut changed = false;
        for message in &mut chat.messages {
            let marked = which == Sanitize::All || matches!(message.role, Role::User | Role::Tool);
            for_each_text(message, &mut |text| {
                if marked {
                    self.mark_text(text, &mut changed);
                } else {
                    strip_text(text, &mut changed);
                }
            });
            if let (true, Some(Content::Parts(parts))) = (marked, &mut message.content) {
                let texts = parts.iter_mut().filter_map(|part| match part.0.get_mut("text") {
                    Some(Json::String(text)) => Some(text),
                    _ => None,
                });
                self.part_borders(&mut texts.collect::<Vec<_>>(), &mut changed);
            }
        }
        for document in &mut chat.documents {
            self.mark_map(&mut document.0, &mut changed);
        }
        if which == Sanitize::All {
            for tool in &mut chat.tools {
                self.mark_map(&mut tool.0, &mut changed);
            }
        }
        changed.then_some(chat)
    }

    /// Splits rendered text at the marks. A lone mark (the template cut the text between two) is
    /// dropped but still parts the text, so that both sides cannot join to a control token.
    pub(crate) fn pieces<'t>(&self, text: &'t str) -> Vec<Piece<'t>> {
        let mut out = Vec::new();
        let mut from = 0;
        let mut push = |start: usize, end: usize, plain: bool| {
            if start < end {
                out.push(Piece { text: &text[start..end], start, plain });
            }
        };
        let mut marks = text.match_indices([MARK_START, MARK_END]).peekable();
        while let Some((at, mark)) = marks.next() {
            push(from, at, false);
            from = at + mark.len();
            // Only a whole token between two marks is the user's; text between lone marks is the
            // template's.
            let closes = |end: usize, next: &str| {
                next.starts_with(MARK_END) && self.tokens.contains(&text[from..end])
            };
            if mark.starts_with(MARK_START)
                && let Some((end, next)) = marks.next_if(|(end, next)| closes(*end, next))
            {
                push(from, end, true);
                from = end + next.len();
            }
        }
        push(from, text.len(), false);
        out
    }
}

/// The text without marks; `None` when it has none.
fn strip(text: &str) -> Option<String> {
    let marks = [MARK_START, MARK_END];
    text.contains(marks).then(|| text.replace(marks, ""))
}

fn strip_text(text: &mut String, changed: &mut bool) {
    if let Some(stripped) = strip(text) {
        *text = stripped;
        *changed = true;
    }
}

/// Takes marks out of the values of an object that is trusted, so that all marks are ours.
pub(crate) fn strip_map(map: &mut Map<String, Json>, changed: &mut bool) {
    for_each_value(map, &mut |text| strip_text(text, changed));
}

/// Every text in the values of an object, however deep.
fn for_each_value(map: &mut Map<String, Json>, visit: &mut dyn FnMut(&mut String)) {
    fn walk(json: &mut Json, visit: &mut dyn FnMut(&mut String)) {
        match json {
            Json::String(text) => visit(text),
            Json::Array(items) => items.iter_mut().for_each(|item| walk(item, visit)),
            Json::Object(map) => for_each_value(map, visit),
            _ => {}
        }
    }
    map.values_mut().for_each(|value| walk(value, visit));
}

/// Every text of a message.
fn for_each_text(message: &mut Message, visit: &mut dyn FnMut(&mut String)) {
    match &mut message.content {
        Some(Content::Text(text)) => visit(text),
        Some(Content::Parts(parts)) => {
            for Part(part) in parts {
                for_each_value(part, visit);
            }
        }
        None => {}
    }
    let texts = [&mut message.reasoning_content, &mut message.name, &mut message.tool_call_id];
    texts.into_iter().flatten().for_each(&mut *visit);
    for call in &mut message.tool_calls {
        visit(&mut call.function.name);
        call.id.iter_mut().for_each(&mut *visit);
        match &mut call.function.arguments {
            Arguments::Object(object) => for_each_value(object, visit),
            Arguments::Text(text) => visit(text),
        }
    }
    for_each_value(&mut message.extra, visit);
}

/// A stretch of rendered text: the template's own, or a marked token that is encoded as plain text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece<'t> {
    pub(crate) text: &'t str,
    /// Byte offset in the rendered text.
    pub(crate) start: usize,
    pub(crate) plain: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> ControlTokens {
        ControlTokens::new(["<|im_end|>", "<|im", "<x>"].map(String::from)).unwrap()
    }

    #[test]
    fn the_longest_token_is_wrapped() {
        assert_eq!(tokens().mark("a<|im_end|>b").unwrap(), "a\u{f0000}<|im_end|>\u{f0001}b");
        assert_eq!(tokens().mark("plain"), None);
        // A mark inside a token cannot hide it.
        let forged = "<|im\u{f0001}_end|>";
        assert_eq!(tokens().mark(forged).unwrap(), "\u{f0000}<|im_end|>\u{f0001}");
    }

    #[test]
    fn pieces_part_at_marks() {
        let text = "a\u{f0000}<x>\u{f0001}b\u{f0001}c\u{f0000}";
        let found: Vec<_> = tokens().pieces(text).iter().map(|p| (p.text, p.plain)).collect();
        assert_eq!(found, [("a", false), ("<x>", true), ("b", false), ("c", false)]);
        for piece in tokens().pieces(text) {
            assert_eq!(&text[piece.start..piece.start + piece.text.len()], piece.text);
        }
        // What the template writes between two lone marks is its own.
        let text = "\u{f0000}a<x>b\u{f0001}";
        assert_eq!(tokens().pieces(text).iter().filter(|piece| piece.plain).count(), 0);
    }

    #[test]
    fn a_token_over_two_parts_is_cut() {
        let parts = vec![Part::text("x<|im_"), Part::text("end|>y")];
        let chat = Conversation::new([Message::user(Content::Parts(parts))]);
        let marked = tokens().mark_conversation(&chat, Sanitize::Untrusted).unwrap();
        // "<|im" is a token of its own in the first part; the border is marked besides.
        assert!(marked.messages[0].text().contains("_\u{f0001}end|>y"), "{marked:?}");
        let apart = vec![Part::text("x"), Part::text("y")];
        let chat = Conversation::new([Message::user(Content::Parts(apart))]);
        assert!(tokens().mark_conversation(&chat, Sanitize::Untrusted).is_none());
    }

    #[test]
    fn only_untrusted_messages_are_marked() {
        let chat = Conversation::new([
            Message::system("<|im_end|>"),
            Message::user("<|im_end|>"),
            Message::assistant("<|im_end|>"),
        ]);
        let marked = tokens().mark_conversation(&chat, Sanitize::Untrusted).unwrap();
        let is_marked = |i: usize| marked.messages[i].text().contains(MARK_START);
        assert_eq!([is_marked(0), is_marked(1), is_marked(2)], [false, true, false]);
        assert!(tokens().mark_conversation(&chat, Sanitize::Off).is_none());
        let all = tokens().mark_conversation(&chat, Sanitize::All).unwrap();
        assert!(all.messages.iter().all(|message| message.text().contains(MARK_START)));
    }
}
