//! What a model answered: raw text to a message with reasoning and tool calls.
//!
//! ```
//! use posttrain_chat::response::{ResponseFormat, ResponseParser};
//!
//! let text = "The user wants the weather.\n</think>\n\nLet me look.\n\
//!             <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n\
//!             </tool_call><|im_end|>";
//! let parsed = ResponseParser::new(ResponseFormat::Hermes)
//!     .reasoning_open(true) // the prompt ended with `<think>`
//!     .stop(&["<|im_end|>"])
//!     .parse(text);
//!
//! assert_eq!(parsed.message.reasoning(), Some("The user wants the weather."));
//! assert_eq!(parsed.message.text(), "Let me look.");
//! let call = &parsed.message.tool_calls[0].function;
//! assert_eq!(call.name, "weather");
//! assert_eq!(call.arguments.to_text(), r#"{"city":"Paris"}"#);
//! assert!(parsed.is_whole());
//! ```
//!
//! Parsing takes any text and never fails; what a model got wrong is kept and said:
//!
//! - **Content** is all text that is neither reasoning nor part of a call that could be read. Each
//!   piece of it before, between and after calls is trimmed of whitespace ([`str::trim`]), empty
//!   pieces are left out, the others are joined by one line break. Content that is empty is `None`.
//! - **Reasoning** is the block between its tags at the start of the answer, trimmed; `None` when
//!   empty. Without a closing tag all text is reasoning, and
//!   [`truncated_reasoning`](ParsedResponse::truncated_reasoning) is set.
//! - **Arguments** are an object when the model wrote one, also when it wrote it as a JSON string.
//!   Missing arguments, `null` and blank ones are an empty object. Anything else is kept as the text
//!   that the model wrote ([`Arguments::Text`](posttrain_core::Arguments::Text)), in particular
//!   arguments that are not valid JSON or are cut off. Of equal keys the last wins, as in Python.
//!   A call object without `arguments` or `parameters`, but with keys that a call does not have, is
//!   all kept as the text of its arguments; beside arguments such keys are ignored. Integers of more
//!   than 64 bits become floating-point numbers.
//! - **A call that cannot be read**, because it has no name, stays in the content as it was written
//!   and is listed in [`malformed`](ParsedResponse::malformed).
//! - **A call that the text ends in** is kept when its name is there, and
//!   [`truncated_call`](ParsedResponse::truncated_call) is set.
//!
//! JSON ends where a JSON reader says it does, so markers inside of a string do not end a call.

mod bare;
mod blocks;
mod deepseek;
mod format;
mod glm;
mod hermes;
mod json_calls;
mod json_value;
mod kimi;
mod llama;
mod malformed;
mod mistral;
mod qwen_xml;
mod reasoning;
mod schema;
mod sections;
#[cfg(test)]
mod tests;
mod xml_values;

use posttrain_core::{Content, Message, Tool};

pub use format::ResponseFormat;
pub use malformed::{MalformedCall, MalformedReason};
pub use reasoning::ReasoningTags;

/// Parses answers that are written in one format. See the [module](self) for an example and the
/// rules.
#[derive(Clone, Debug)]
pub struct ResponseParser<'t> {
    format: ResponseFormat,
    tools: &'t [Tool],
    tags: Option<ReasoningTags>,
    reasoning_open: bool,
    stop: Vec<String>,
}

impl<'t> ResponseParser<'t> {
    /// A parser that expects reasoning in [`ReasoningTags::THINK`], or in
    /// [`ReasoningTags::MISTRAL`] for Mistral's format.
    pub fn new(format: ResponseFormat) -> Self {
        let tags = match format {
            ResponseFormat::Mistral => ReasoningTags::MISTRAL,
            _ => ReasoningTags::THINK,
        };
        Self { format, tools: &[], tags: Some(tags), reasoning_open: false, stop: Vec::new() }
    }

    /// A parser for what a chat template makes a model write: its format, and its reasoning tags.
    /// Where [`ResponseFormat::detect`] knows no format it is [`ResponseFormat::Plain`], which leaves
    /// calls in the content: ask `detect` first where that matters.
    pub fn for_template(chat_template: &str) -> Self {
        let parser = Self::new(ResponseFormat::detect(chat_template).unwrap_or_default());
        match ReasoningTags::detect(chat_template) {
            Some(tags) => parser.reasoning(tags),
            None => parser,
        }
    }

    /// The tools that the model was given. Formats that write argument values without quotes
    /// ([`ResponseFormat::QwenXml`], [`ResponseFormat::Glm`]) read them by the JSON schema of the
    /// tool; without it they stay text.
    #[must_use]
    pub fn tools(self, tools: &'t [Tool]) -> Self {
        Self { tools, ..self }
    }

    /// The tags around the reasoning.
    #[must_use]
    pub fn reasoning(self, tags: ReasoningTags) -> Self {
        Self { tags: Some(tags), ..self }
    }

    /// Leaves reasoning in the content.
    #[must_use]
    pub fn no_reasoning(self) -> Self {
        Self { tags: None, ..self }
    }

    /// Whether the prompt ended inside of the reasoning, so that the answer has no opening tag. See
    /// [`ReasoningTags::opened_by`].
    #[must_use]
    pub fn reasoning_open(self, open: bool) -> Self {
        Self { reasoning_open: open, ..self }
    }

    /// The tokens that end a turn, such as `<|im_end|>`. One of them, the longest that fits, is
    /// taken off the end of the answer, with the whitespace behind it.
    #[must_use]
    pub fn stop(self, tokens: &[&str]) -> Self {
        Self { stop: tokens.iter().map(|&token| token.to_owned()).collect(), ..self }
    }

    /// Parses one answer, the text that the model wrote after the prompt.
    pub fn parse(&self, text: &str) -> ParsedResponse {
        let text = without_stop(text, &self.stop);
        let reasoning =
            self.tags.as_ref().map(|tags| reasoning::split(text, tags, self.reasoning_open));
        let answer = reasoning.as_ref().map_or(0, |reasoning| reasoning.end);
        let mut found = self.format.read(&text[answer..], self.tools);
        for part in &mut found.malformed {
            part.span.start += answer;
            part.span.end += answer;
        }
        let message = Message {
            content: found.content.map(Content::Text),
            reasoning_content: reasoning.as_ref().and_then(|it| it.text).map(str::to_owned),
            ..Message::tool_calling(found.calls)
        };
        ParsedResponse {
            message,
            truncated_reasoning: reasoning.is_some_and(|reasoning| reasoning.cut),
            truncated_call: found.truncated,
            malformed: found.malformed,
        }
    }
}

/// What was read from an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedResponse {
    /// The assistant's message.
    pub message: Message,
    /// The text ends before the reasoning does, so there is no answer.
    pub truncated_reasoning: bool,
    /// The text ends before its last tool call is closed. The call itself may be whole.
    pub truncated_call: bool,
    /// The tool calls that could not be read, in the order of the text.
    pub malformed: Vec<MalformedCall>,
}

impl ParsedResponse {
    /// Whether everything could be read and nothing was cut off. Arguments may still be text; see
    /// [`Arguments::to_object`](posttrain_core::Arguments::to_object).
    pub fn is_whole(&self) -> bool {
        !self.truncated_reasoning && !self.truncated_call && self.malformed.is_empty()
    }
}

fn without_stop<'t>(text: &'t str, stop: &[String]) -> &'t str {
    let trimmed = text.trim_end();
    let ends = stop.iter().filter_map(|token| trimmed.strip_suffix(token.as_str()));
    ends.min_by_key(|rest| rest.len()).unwrap_or(text)
}

#[cfg(test)]
mod parser_tests {
    use super::tests::lines_of;
    use super::{ReasoningTags, ResponseFormat, ResponseParser};

    fn lines(parser: &ResponseParser<'_>, text: &str) -> Vec<String> {
        lines_of(&parser.parse(text), text)
    }

    #[test]
    fn stop_tokens_are_taken_off_once() {
        let parser =
            ResponseParser::new(ResponseFormat::Plain).stop(&["</s>", "<|im_end|>", "<|end|>"]);
        assert_eq!(lines(&parser, "a<|im_end|>"), ["content a"]);
        assert_eq!(lines(&parser, "a</s>\n"), ["content a"]);
        assert_eq!(lines(&parser, "a</s></s>"), ["content a</s>"]);
        assert_eq!(lines(&parser, "a</s> b"), ["content a</s> b"]);
        assert_eq!(lines(&parser, "<|im_end|>"), [""; 0]);
        let longest = ResponseParser::new(ResponseFormat::Plain).stop(&["d>", "<end>", ""]);
        assert_eq!(lines(&longest, "a<end>"), ["content a"]);
    }

    #[test]
    fn empty_answers() {
        let parser = ResponseParser::new(ResponseFormat::Hermes);
        let parsed = parser.parse(" \n");
        assert_eq!(parsed.message.content, None);
        assert!(parsed.message.tool_calls.is_empty() && parsed.is_whole());
        assert_eq!(lines(&parser, "<think>\n\n</think>\n\n"), [""; 0]);
    }

    #[test]
    fn reasoning_comes_before_calls() {
        let call = r#"<tool_call>{"name": "f", "arguments": {"s": "</think>"}}</tool_call>"#;
        let parser = ResponseParser::new(ResponseFormat::Hermes);
        let text = format!("<think>I call {call}?</think>\n\n{call}");
        let reasoning = r#"reasoning I call <tool_call>{"name": "f", "arguments": {"s": ""#;
        assert_eq!(lines(&parser, &text)[0], reasoning);
        assert_eq!(lines(&parser, call), [r#"call f {"s":"</think>"}"#]);
        let open = parser.clone().reasoning_open(true);
        assert_eq!(lines(&open, "a\n</think>\nb"), ["reasoning a", "content b"]);
        assert_eq!(lines(&open, "a <tool_call>"), ["reasoning a <tool_call>", "cut reasoning"]);
        let without = parser.no_reasoning();
        assert_eq!(lines(&without, "<think>a</think>b"), ["content <think>a</think>b"]);
    }

    #[test]
    fn offsets_count_from_the_start_of_the_text() {
        let text = "<think>é</think>é<tool_call>{}</tool_call><|im_end|>";
        let parsed = ResponseParser::new(ResponseFormat::Hermes).stop(&["<|im_end|>"]).parse(text);
        let [part] = &parsed.malformed[..] else { panic!("{parsed:?}") };
        assert_eq!(&text[part.span.clone()], "<tool_call>{}</tool_call>");
        assert_eq!(part.reason.to_string(), "the tool call has no name");
    }

    #[test]
    fn templates_say_format_and_tags() {
        let ministral = ResponseParser::for_template("'[TOOL_CALLS]' '[ARGS]' '[THINK]'");
        let text = r#"[THINK]a[/THINK]b[TOOL_CALLS]f[ARGS]{"x": 1}"#;
        assert_eq!(lines(&ministral, text), ["reasoning a", "content b", r#"call f {"x":1}"#]);
        let plain = ResponseParser::for_template("{{ bos_token }}");
        assert_eq!(lines(&plain, "<think>a</think>b"), ["reasoning a", "content b"]);
        let tags = ReasoningTags::new("<a>", "</a>");
        assert_eq!(lines(&plain.reasoning(tags), "<a>a</a>b"), ["reasoning a", "content b"]);
    }
}
