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

/// Which assistant turns are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainedTurns {
    /// All, except those whose message is flagged with weight 0 (`OpenAI`'s rule).
    #[default]
    Flagged,
    /// All, whatever their flags say.
    All,
    /// Only the last.
    Last,
}

/// Tokens that end a turn in common templates. The end token of the tokenizer is added to them.
const END_TOKENS: [&str; 16] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|eot|>",
    "<end_of_turn>",
    "<turn|>",
    "</s>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
    "<|end_of_sentence|>",
    "<|eos|>",
];

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
        if options.continue_final_message.is_some() {
            return Err(Error::Continue("a turn that is left open cannot be trained".into()));
        }
        let without = RenderOptions { add_generation_prompt: false, ..options.clone() };
        let with = RenderOptions { add_generation_prompt: true, ..options.clone() };
        arena::with(|arena| {
            let prepared = self.prepare(arena, chat, options)?;
            let rendered = self.render_prepared(&prepared, options)?;
            let selected = select(&prepared.turns, turns)?;
            let assistants = prepared.turns.iter().filter(|(assistant, _)| *assistant).count();
            let spans = if prepared.named.template.has_generation() {
                let mut spans = rendered.generation;
                spans.retain(|span| !span.is_empty());
                if spans.is_empty() {
                    let reason = "the template's {% generation %} blocks wrote nothing".into();
                    return Err(Error::EmptyMask { reason });
                }
                if selected.len() < assistants {
                    if spans.len() != assistants {
                        let (spans, turns) = (spans.len(), assistants);
                        return Err(Error::GenerationBlocks { spans, turns });
                    }
                    let turn =
                        |at: &usize| prepared.turns[..*at].iter().filter(|(a, _)| *a).count();
                    spans = selected.iter().map(|at| spans[turn(at)].clone()).collect();
                }
                spans
            } else {
                let prepared = &prepared;
                let prefixes =
                    Prefixes { template: self, prepared, without: &without, with: &with };
                prefixes.spans(&rendered.text, &selected)?
            };
            Ok((rendered.text, spans))
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
    fn render(
        &self,
        options: &'c RenderOptions,
        count: usize,
        sentinel: Option<&'c str>,
    ) -> Result<String> {
        self.template.render_prefix(self.prepared, options, count, sentinel)
    }

    fn spans(&self, whole: &str, selected: &[usize]) -> Result<Vec<Range<usize>>> {
        let mut spans = Vec::with_capacity(selected.len());
        for &at in selected {
            let start = self.turn_start(whole, at)?;
            let until = self.render(self.without, at + 1, None)?;
            check_prefix(&until, whole, || format!("the end of assistant message {at}"))?;
            let end = self.without_trailing_space(&whole[..until.len()], start);
            if start >= end {
                let reason = format!("the template writes nothing for assistant message {at}");
                return Err(Error::EmptyMask { reason });
            }
            spans.push(start..end);
        }
        Ok(spans)
    }

    /// Where the text of message `at` starts, behind the header that a generation prompt writes.
    fn turn_start(&self, whole: &str, at: usize) -> Result<usize> {
        let what = || format!("the start of assistant message {at}");
        if at > 0 {
            let before = self.render(self.without, at, None)?;
            let prompt = self.render(self.with, at, None)?;
            if prompt != before && whole.starts_with(&prompt) {
                return Ok(prompt.len());
            }
            check_prefix(&before, whole, what)?;
        }
        // Either the template has no generation prompt, or its prompt opens something that the turn
        // does not have (a reasoning block). Two turns that differ from their first character on
        // show where the header ends.
        let one = self.render(self.without, at, Some("\u{e000}"))?;
        let two = self.render(self.without, at, Some("\u{f8ff}"))?;
        let header = &one[..common_prefix(&one, &two)];
        check_prefix(header, whole, what)?;
        Ok(header.len())
    }

    /// The end of a turn, without the white space behind its end token.
    fn without_trailing_space(&self, text: &str, start: usize) -> usize {
        let trimmed = text.trim_end_matches(is_space);
        let eos = self.template.special_token("eos_token");
        let ends = END_TOKENS.into_iter().chain(eos).any(|token| trimmed.ends_with(token));
        if ends && trimmed.len() > start { trimmed.len() } else { text.len() }
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
        TrainedTurns::All => {}
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
