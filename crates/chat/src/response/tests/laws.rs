//! Laws that hold for any text: parsing never panics, and nothing of the text is lost.

use posttrain_core::Arguments;

use super::super::{ParsedResponse, ReasoningTags, ResponseFormat, ResponseParser};

pub(super) const FORMATS: [ResponseFormat; 9] = [
    ResponseFormat::Plain,
    ResponseFormat::Json,
    ResponseFormat::Hermes,
    ResponseFormat::QwenXml,
    ResponseFormat::Glm,
    ResponseFormat::Llama3,
    ResponseFormat::Mistral,
    ResponseFormat::DeepSeek,
    ResponseFormat::Kimi,
];

/// Pieces that answers are made of, for random texts.
const PIECES: &[&str] = &[
    "<think>",
    "</think>",
    "[THINK]",
    "[/THINK]",
    "<tool_call>",
    "</tool_call>",
    "<seed:tool_call>",
    "</seed:tool_call>",
    "<function=f>",
    "<function=",
    "</function>",
    "<parameter=x>",
    "<parameter=",
    "</parameter>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<|python_tag|>",
    "f.call(",
    "x=\"a\"",
    ")",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "function",
    "```json\n",
    "```",
    "\n```",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_end|>",
    "<|tool_call_argument_begin|>",
    "functions.f:0",
    "{\"name\": \"f\", \"arguments\": {}}",
    "{\"name\": \"g\", \"parameters\": {\"x\": 1}}",
    "{\"name\": \"",
    "\"arguments\": ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ",",
    ";",
    ":",
    ">",
    "<",
    " ",
    "\n",
    "f",
    "é",
    "☃",
    "\u{a0}",
    "\0",
    "1",
    "null",
    "<|im_end|>",
];

/// Whole answers.
const SAMPLES: &[&str] = &[
    "<think>\nHm é.\n</think>\n\nHello <b>world</b>.<|im_end|>",
    "Let me.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"}</tool_call>é\", \"n\": [1, -2.5e3]}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\"}\n</tool_call> Done.",
    "<tool_call>\n<function=f>\n<parameter=x>\na\nb\n</parameter>\n<parameter=y>\n{\"é\": 1}\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>",
    "<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>a b</arg_value>\n</tool_call>\n<tool_call>g\n</tool_call>",
    "{\"name\": \"f\", \"parameters\": {\"x\": \"é;\"}}; {\"name\": \"g\", \"parameters\": {}}\nDone.",
    "<|python_tag|>brave_search.call(query=\"é, (b)\", n=2) ok",
    "Sure. [TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"x\": 1}, \"id\": \"abcdefghi\"}, {\"name\": \"g\", \"arguments\": {}}]</s>",
    "[THINK]é[/THINK]b[TOOL_CALLS]f[CALL_ID]a1[ARGS]{\"x\": \"[ARGS]\"}[TOOL_CALLS]g[ARGS]{}</s>",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"x\": \"é\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"x\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜> ok",
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"x\": 1}<|tool_call_end|><|tool_calls_section_end|>",
];

/// A small generator of random numbers (xorshift64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    pub(super) fn pick<'t>(&mut self, pieces: &[&'t str]) -> &'t str {
        pieces[self.below(pieces.len())]
    }
}

/// Takes what was kept out of the text, piece by piece; what is over must be markers, and the names
/// and arguments of the calls.
fn check_laws(parsed: &ParsedResponse, text: &str) {
    let message = &parsed.message;
    let content = message.text();
    assert_eq!(message.content.is_none(), content.is_empty(), "{text:?}");
    assert_eq!(content, content.trim(), "{text:?}");
    assert!(message.reasoning() != Some(""), "{text:?}");

    let rest = match message.reasoning() {
        Some(reasoning) => {
            let at = text.find(reasoning).unwrap_or_else(|| panic!("reasoning of {text:?}"));
            &text[at + reasoning.len()..]
        }
        None => text,
    };
    if parsed.truncated_reasoning {
        assert!(content.is_empty() && message.tool_calls.is_empty(), "{text:?}");
        return;
    }
    if message.tool_calls.is_empty() {
        // No call took anything: the content is the end of the text.
        assert!(rest.trim_end().ends_with(&*content), "{text:?}");
    }
    let mut over = rest;
    for line in content.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let at = over.find(line).unwrap_or_else(|| panic!("{line:?} of {text:?}"));
        over = &over[at + line.len()..];
    }
    for call in &message.tool_calls {
        assert!(!call.function.name.is_empty(), "{text:?}");
        if let Arguments::Text(raw) = &call.function.arguments {
            // A text that was written as a JSON string is escaped in the answer.
            let escaped = serde_json::to_string(raw).unwrap();
            let inner = &escaped[1..escaped.len() - 1];
            assert!(rest.contains(raw.as_str()) || rest.contains(inner), "{raw:?} of {text:?}");
        }
    }
    let mut end = 0;
    for part in &parsed.malformed {
        assert!(end <= part.span.start && part.span.start <= part.span.end, "{text:?}");
        end = part.span.end;
        for line in text[part.span.clone()].lines().map(str::trim) {
            assert!(content.contains(line), "{line:?} of {text:?}");
        }
    }
    // A snowman is in the content or in a call, unless it was in a key that calls do not have, or in
    // a value that a later one of the same key replaced.
    let snowmen = |text: &str| text.matches('☃').count();
    let in_calls = message.tool_calls.iter().map(|call| {
        let arguments = snowmen(&call.function.arguments.to_text());
        arguments + snowmen(&call.function.name) + call.id.as_deref().map_or(0, snowmen)
    });
    let kept = snowmen(&content) + in_calls.sum::<usize>();
    let repeats = ["<parameter=", "<arg_key>"].iter().any(|key| rest.matches(key).count() > 1);
    let in_key = rest.split('☃').skip(1).any(|after| {
        let quote = after.find('"');
        quote.is_some_and(|quote| after[quote + 1..].trim_start().starts_with(':'))
    });
    assert!(kept >= snowmen(rest) || repeats || in_key, "{text:?} gave {parsed:?}");
}

fn check_all(text: &str) {
    for format in FORMATS {
        let parser = ResponseParser::new(format);
        check_laws(&parser.parse(text), text);
        check_laws(&parser.clone().reasoning_open(true).parse(text), text);
        check_laws(&parser.clone().no_reasoning().parse(text), text);
        let stopped = parser.clone().stop(&["<|im_end|>", "</s>"]).parse(text);
        let at =
            ["<|im_end|>", "</s>"].iter().find_map(|token| text.trim_end().strip_suffix(token));
        assert_eq!(stopped, parser.parse(at.unwrap_or(text)));
    }
}

#[test]
fn every_prefix_and_suffix() {
    for sample in SAMPLES {
        for (at, _) in sample.char_indices() {
            check_all(&sample[..at]);
            check_all(&sample[at..]);
        }
        check_all(sample);
    }
}

#[test]
fn random_texts() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..4000 {
        let pieces = random.below(24);
        let text: String = (0..pieces).map(|_| random.pick(PIECES)).collect();
        check_all(&text);
    }
}

#[test]
fn mutated_answers() {
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    for _ in 0..400 {
        for sample in SAMPLES {
            let mut chars: Vec<String> = sample.chars().map(String::from).collect();
            for _ in 0..=random.below(4) {
                let at = random.below(chars.len());
                match random.below(3) {
                    0 => drop(chars.remove(at)),
                    1 => chars.insert(at, random.pick(PIECES).to_owned()),
                    _ => chars[at] = random.pick(PIECES).to_owned(),
                }
            }
            check_all(&chars.concat());
        }
    }
}

#[test]
fn prefixes_know_no_more_than_the_whole() {
    // Once a call is whole, more text does not change it.
    for sample in SAMPLES {
        for format in FORMATS {
            let parser = ResponseParser::new(format);
            let calls = parser.parse(sample).message.tool_calls;
            for (at, _) in sample.char_indices() {
                let parsed = parser.parse(&sample[..at]);
                let known = parsed.message.tool_calls;
                assert!(known.len() <= calls.len(), "{format:?} {:?}", &sample[..at]);
                let whole = known.len() - usize::from(parsed.truncated_call && !known.is_empty());
                for (known, call) in known[..whole].iter().zip(&calls) {
                    // A cut string that holds a marker looks like a broken call.
                    let broken = matches!(known.function.arguments, Arguments::Text(_));
                    assert!(broken || known == call, "{format:?} {:?}", &sample[..at]);
                }
            }
        }
    }
}

#[test]
fn deep_and_long_texts_are_read() {
    for piece in ["{\"name\":\"f\",\"arguments\":", "[", "{", "<tool_call>", "[TOOL_CALLS]", "{\n"]
    {
        let text = piece.repeat(5_000);
        for format in FORMATS {
            let parsed = ResponseParser::new(format).parse(&text);
            assert!(parsed.message.content.is_some() || !parsed.message.tool_calls.is_empty());
        }
    }
    let tags = ReasoningTags::new("", "");
    assert_eq!(
        ResponseParser::new(ResponseFormat::Plain).reasoning(tags).parse("a").message.text(),
        "a"
    );
}
