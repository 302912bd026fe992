//! Which characters of a rendered conversation are trained.
//!
//! A template with `{% generation %}` blocks says it itself. For the many without, the turns are
//! found by rendering prefixes: the first `i` messages with a generation prompt end where turn `i`
//! starts, the first `i + 1` messages end where it ends. That only holds when the prefixes really
//! are prefixes of the whole text, so each is compared; a template that rewrites earlier turns
//! (dropping old reasoning, say) is an error and not a wrong mask.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::arena;
use crate::chat::Chat;
use crate::error::{Error, Result};
use crate::jinja::is_space;
use crate::template::{ChatTemplate, Prepared, RenderOptions};

/// What of a conversation is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainedTurns {
    /// All assistant turns, except those whose message is flagged with weight 0 (`OpenAI`'s rule).
    #[default]
    Flagged,
    /// All assistant turns, whatever their flags say.
    All,
    /// Only the last assistant turn.
    Last,
    /// The whole text, whoever speaks: `assistant_only_loss: false` of TRL. Nothing is asked of the
    /// template then, and no stop token is looked for.
    Everything,
}

/// A rendered conversation with what of it is trained.
pub(crate) struct Trained {
    pub(crate) text: String,
    /// Byte ranges of the text.
    pub(crate) spans: Vec<Range<usize>>,
    /// Where trained turns end, as far as it is known: there the stop token is looked for.
    pub(crate) ends: Vec<usize>,
}

impl ChatTemplate {
    /// Renders a conversation with the byte ranges of the text that would be trained.
    ///
    /// The end-of-turn token is inside its turn, white space behind it is not, except where a
    /// `{% generation %}` block of the template says otherwise.
    ///
    /// ```
    /// use posttrain_chat::{Builtin, ChatTemplate, RenderOptions, TrainedTurns};
    /// use posttrain_core::{Conversation, Message};
    ///
    /// let template = ChatTemplate::builtin(Builtin::ChatMl);
    /// let chat = Conversation::new([Message::user("2+2?"), Message::assistant("4")]);
    /// let options = RenderOptions::default();
    /// let (text, spans) = template.trained_spans(&chat, &options, TrainedTurns::All)?;
    /// assert_eq!(&text[spans[0].clone()], "4<|im_end|>");
    /// # Ok::<(), posttrain_chat::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::EmptyMask`], [`Error::NotPrefixPreserving`] and [`Error::GenerationBlocks`], besides
    /// those of [`ChatTemplate::render`].
    pub fn trained_spans(
        &self,
        chat: &impl Chat,
        options: &RenderOptions,
        turns: TrainedTurns,
    ) -> Result<(String, Vec<Range<usize>>)> {
        let trained = self.trained(chat, options, turns)?;
        Ok((trained.text, trained.spans))
    }

    pub(crate) fn trained(
        &self,
        chat: &impl Chat,
        options: &RenderOptions,
        turns: TrainedTurns,
    ) -> Result<Trained> {
        if options.continue_final_message.is_some() {
            return Err(Error::Continue("a turn that is left open cannot be trained".into()));
        }
        let without = RenderOptions { add_generation_prompt: false, ..options.clone() };
        let with = RenderOptions { add_generation_prompt: true, ..options.clone() };
        arena::with(|arena| {
            let prepared = &self.prepare(arena, chat, options)?;
            let rendered = self.render_prepared(prepared, options)?;
            let text = rendered.text;
            if turns == TrainedTurns::Everything {
                let spans = std::iter::once(0..text.len()).collect();
                return Ok(Trained { text, spans, ends: Vec::new() });
            }
            let selected = select(&prepared.turns, turns)?;
            let prefixes = Prefixes { template: self, prepared, without: &without, with: &with };
            let (spans, ends) = if prepared.named.template.has_generation() {
                prefixes.generation(&text, rendered.generation, &selected)?
            } else {
                let spans = prefixes.spans(&text, &selected)?;
                let ends = spans.iter().map(|span| span.end).collect();
                (spans, ends)
            };
            Ok(Trained { text, spans, ends })
        })
    }
}

/// Finds turns by rendering prefixes of one conversation.
struct Prefixes<'c> {
    template: &'c ChatTemplate,
    prepared: &'c Prepared<'c>,
    /// The options without a generation prompt, and with one.
    without: &'c RenderOptions,
    with: &'c RenderOptions,
}

impl<'c> Prefixes<'c> {
    fn render(&self, options: &'c RenderOptions, count: usize) -> Result<String> {
        self.template.render_prefix(self.prepared, options, count)
    }

    /// The generation blocks of the selected turns, and the ends of those turns.
    fn generation(
        &self,
        whole: &str,
        blocks: Vec<Range<usize>>,
        selected: &[usize],
    ) -> Result<(Vec<Range<usize>>, Vec<usize>)> {
        let assistants = self.prepared.turns.iter().filter(|(assistant, _)| *assistant).count();
        let turn = |at: usize| self.prepared.turns[..at].iter().filter(|(a, _)| *a).count();
        let one_each = blocks.len() == assistants;
        let mut spans: Vec<Range<usize>> = if one_each {
            selected.iter().map(|&at| blocks[turn(at)].clone()).collect()
        } else if selected.len() == assistants {
            blocks
        } else {
            // Several blocks a turn, or one outside the turns: by the place where they start.
            let (found, turns) = (blocks.len(), assistants);
            let mut spans = Vec::new();
            for &at in selected {
                let fault = |_| Error::GenerationBlocks { spans: found, turns };
                let start = if at == 0 { 0 } else { self.end(whole, at).map_err(fault)? };
                let end = self.end(whole, at + 1).map_err(fault)?;
                spans.extend(blocks.iter().filter(|b| b.start >= start && b.start < end).cloned());
            }
            spans
        };
        spans.retain(|span| !span.is_empty());
        let Some(last) = spans.last() else {
            let reason = "the template's {% generation %} blocks wrote nothing".into();
            return Err(Error::EmptyMask { reason });
        };
        let ends = if one_each { spans.iter().map(|s| s.end).collect() } else { vec![last.end] };
        Ok((spans, ends))
    }

    fn spans(&self, whole: &str, selected: &[usize]) -> Result<Vec<Range<usize>>> {
        let mut spans = Vec::with_capacity(selected.len());
        for &at in selected {
            let start = self.start(whole, at)?;
            let mut end = self.end(whole, at + 1)?;
            // Some templates write the end token only when another message follows.
            if let Some(eos) =
                self.template.special_token("eos_token").filter(|eos| !eos.is_empty())
                && whole[end..].starts_with(eos)
                && !whole[..end].ends_with(eos)
            {
                end += eos.len();
            }
            // White space behind the end token is no part of the answer.
            if self.ends_with_token(at) {
                end = whole[..end].trim_end_matches(is_space).len();
            }
            if start >= end {
                let reason = format!("the template writes nothing for assistant message {at}");
                return Err(Error::EmptyMask { reason });
            }
            spans.push(start..end);
        }
        Ok(spans)
    }

    /// Where the text of message `at` starts, behind the header that a generation prompt writes.
    fn start(&self, whole: &str, at: usize) -> Result<usize> {
        let mut before = 0;
        if at > 0 {
            before = self.end(whole, at)?;
            let prompt = self.render(self.with, at)?;
            if prompt.len() > before && whole.starts_with(&prompt) {
                return Ok(prompt.len());
            }
        }
        // Either the template has no generation prompt, or its prompt opens something that the turn
        // does not have (a reasoning block). The same conversation with two other answers, which
        // differ from their first character on, shows where the header ends.
        // Where a turn that calls tools says nothing besides, the answers stand alone.
        let answered =
            |text| match self.template.render_replaced(self.prepared, self.without, at, text) {
                Ok(replaced) if replaced.contains(text) => Ok(replaced),
                _ => self.template.render_answered(self.prepared, self.without, at, text),
            };
        let (one, two) = (answered("\u{e000}")?, answered("\u{f8ff}")?);
        let header = common_prefix(&one[..common_prefix(&one, &two)], whole);
        if header < before {
            check_prefix(&one[..one.floor_char_boundary(before)], whole, || {
                format!("the start of assistant message {at}")
            })?;
        }
        Ok(header.max(before))
    }

    /// Where the first `count` messages end in the whole text.
    fn end(&self, whole: &str, count: usize) -> Result<usize> {
        let prefix = self.render(self.without, count)?;
        if !whole.starts_with(&prefix)
            // Without a generation prompt some templates close the text with the end token.
            && let Some(eos) = self.template.special_token("eos_token")
            && let Some(open) = prefix.strip_suffix(eos)
            && whole.starts_with(open)
        {
            return Ok(open.len());
        }
        check_prefix(&prefix, whole, || format!("the end of message {}", count - 1))?;
        Ok(prefix.len())
    }

    /// Whether the template writes more than white space behind an answer in place of message `at`.
    fn ends_with_token(&self, at: usize) -> bool {
        const ANSWER: &str = "\u{e000}\u{e000}";
        let text = self.template.render_answered(self.prepared, self.without, at, ANSWER);
        let tail = text.as_deref().ok().and_then(|text| text.rsplit_once(ANSWER));
        tail.is_some_and(|(_, tail)| !tail.trim_matches(is_space).is_empty())
    }
}

/// The messages to train.
fn select(turns: &[(bool, Option<bool>)], which: TrainedTurns) -> Result<Vec<usize>> {
    let flagged = turns.iter().position(|(assistant, flag)| !assistant && *flag == Some(true));
    if let (Some(at), TrainedTurns::Flagged) = (flagged, which) {
        return Err(Error::Form {
            what: format!("the weight of message {at}"),
            found: "1".into(),
            expected: "0 or none: only assistant turns can be trained",
        });
    }
    let mut selected: Vec<usize> = (0..turns.len()).filter(|&i| turns[i].0).collect();
    let all = selected.len();
    match which {
        TrainedTurns::All | TrainedTurns::Everything => {}
        TrainedTurns::Last => {
            selected.drain(..all.saturating_sub(1));
        }
        TrainedTurns::Flagged => selected.retain(|&i| turns[i].1 != Some(false)),
    }
    if selected.is_empty() {
        let reason = match all {
            0 => "the conversation has no assistant message".into(),
            all => format!("all {all} assistant messages have weight 0"),
        };
        return Err(Error::EmptyMask { reason });
    }
    Ok(selected)
}

/// Length of the common prefix, on a character border of both.
fn common_prefix(a: &str, b: &str) -> usize {
    a.char_indices()
        .zip(b.chars())
        .find(|((_, a), b)| a != b)
        .map_or(a.len().min(b.len()), |((at, _), _)| at)
}

pub(crate) fn check_prefix(prefix: &str, whole: &str, what: impl Fn() -> String) -> Result<()> {
    if whole.starts_with(prefix) {
        return Ok(());
    }
    let at = common_prefix(prefix, whole);
    let excerpt = |text: &str| text[at..].chars().take(40).collect();
    Err(Error::NotPrefixPreserving {
        what: what(),
        at: whole[..at].chars().count(),
        alone: excerpt(prefix),
        whole: excerpt(whole),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Builtin;
    use posttrain_core::{Conversation, Message};

    /// A template without generation blocks, as most models have.
    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
        {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    fn chat() -> Conversation {
        Conversation::new([
            Message::user("a?"),
            Message::assistant("A é"),
            Message::user("b?"),
            Message::assistant("B"),
        ])
    }

    fn trained(source: &str, chat: &Conversation, turns: TrainedTurns) -> Result<Vec<String>> {
        let template = ChatTemplate::parse(source)?;
        let (text, spans) = template.trained_spans(chat, &RenderOptions::default(), turns)?;
        Ok(spans.into_iter().map(|span| text[span].to_owned()).collect())
    }

    #[test]
    fn prefixes_find_the_turns_with_their_end_token() {
        let all = trained(CHATML, &chat(), TrainedTurns::All).unwrap();
        assert_eq!(all, ["A é<|im_end|>", "B<|im_end|>"]);
        assert_eq!(trained(CHATML, &chat(), TrainedTurns::Last).unwrap(), ["B<|im_end|>"]);
    }

    #[test]
    fn generation_blocks_and_prefixes_agree() {
        for builtin in Builtin::ALL {
            let source = builtin.source();
            let plain = source.replace("{%- generation %}", "").replace("{%- endgeneration %}", "");
            let with_tokens = |source: &str| {
                let template = ChatTemplate::parse(source).unwrap();
                builtin
                    .special_tokens()
                    .iter()
                    .fold(template, |t, (k, v)| t.with_special_token(k, v))
            };
            let options = RenderOptions::default();
            let own =
                with_tokens(source).trained_spans(&chat(), &options, TrainedTurns::All).unwrap();
            let found =
                with_tokens(&plain).trained_spans(&chat(), &options, TrainedTurns::All).unwrap();
            assert_eq!(own.0, found.0, "{}", builtin.name());
            // The leading space of Llama-2 and Mistral belongs to the answer only where a block says so.
            let texts = |(text, spans): &(String, Vec<Range<usize>>)| -> Vec<String> {
                spans.iter().map(|span| text[span.clone()].trim_start().to_owned()).collect()
            };
            assert_eq!(texts(&own), texts(&found), "{}", builtin.name());
        }
    }

    #[test]
    fn flags_choose_turns() {
        let mut chat = chat();
        chat.messages[1].train = Some(false);
        assert_eq!(trained(CHATML, &chat, TrainedTurns::Flagged).unwrap(), ["B<|im_end|>"]);
        assert_eq!(trained(CHATML, &chat, TrainedTurns::All).unwrap().len(), 2);
        let own = Builtin::ChatMl.source();
        assert_eq!(trained(own, &chat, TrainedTurns::Flagged).unwrap(), ["B<|im_end|>"]);
        chat.messages[3].train = Some(false);
        let error = trained(CHATML, &chat, TrainedTurns::Flagged).unwrap_err();
        assert!(error.to_string().contains("all 2 assistant messages have weight 0"), "{error}");
        chat.messages[0].train = Some(true);
        let error = trained(CHATML, &chat, TrainedTurns::Flagged).unwrap_err();
        assert!(error.to_string().starts_with("the weight of message 0 is 1"), "{error}");
    }

    #[test]
    fn a_prompt_that_opens_a_reasoning_block_is_no_part_of_the_turn() {
        let source = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}");
        let all = trained(&source, &chat(), TrainedTurns::All).unwrap();
        assert_eq!(all, ["A é<|im_end|>", "B<|im_end|>"]);
    }

    #[test]
    fn a_template_without_generation_prompt_still_has_headers() {
        let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}";
        assert_eq!(trained(source, &chat(), TrainedTurns::All).unwrap(), ["A é</s>", "B</s>"]);
        let first = Conversation::new([Message::assistant("A")]);
        assert_eq!(trained(source, &first, TrainedTurns::All).unwrap(), ["A</s>"]);
    }

    #[test]
    fn a_template_that_rewrites_earlier_turns_is_refused() {
        // Marks every turn but the last.
        let source = "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}(old)\
            {% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
            {% if add_generation_prompt %}assistant: {% endif %}";
        let error = trained(source, &chat(), TrainedTurns::All).unwrap_err();
        assert!(matches!(error, Error::NotPrefixPreserving { .. }), "{error}");
        assert!(error.to_string().contains("Train only the last turn"), "{error}");
        // The messages before the last turn are rewritten in both, so it can be trained.
        assert_eq!(trained(source, &chat(), TrainedTurns::Last).unwrap(), ["B\n"]);
    }

    #[test]
    fn a_conversation_without_answers_is_refused() {
        let chat = Conversation::new([Message::user("a?")]);
        for source in [CHATML, Builtin::ChatMl.source()] {
            let error = trained(source, &chat, TrainedTurns::All).unwrap_err();
            assert!(matches!(error, Error::EmptyMask { .. }), "{error}");
        }
    }
}
