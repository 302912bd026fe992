//! Laws that hold for every format, and the summary that the formats' own tests compare.

mod laws;
mod round_trip;

use posttrain_core::Arguments;

use super::{ParsedResponse, ResponseFormat, ResponseParser};

/// What was parsed, one line for each part: reasoning, content, calls, malformed calls, flags.
pub(super) fn lines_of(parsed: &ParsedResponse, text: &str) -> Vec<String> {
    let message = &parsed.message;
    let mut lines = Vec::new();
    lines.extend(message.reasoning().map(|reasoning| format!("reasoning {reasoning}")));
    lines.extend(message.content.as_ref().map(|_| format!("content {}", message.text())));
    for call in &message.tool_calls {
        let id = call.id.as_ref().map(|id| format!(" #{id}")).unwrap_or_default();
        let (kind, name) = match &call.function.arguments {
            Arguments::Object(_) => ("call", &call.function.name),
            Arguments::Text(_) => ("text-call", &call.function.name),
        };
        lines.push(format!("{kind}{id} {name} {}", call.function.arguments.to_text()));
    }
    for part in &parsed.malformed {
        lines.push(format!("malformed {:?} {}", part.reason, &text[part.span.clone()]));
    }
    lines.extend(parsed.truncated_reasoning.then(|| "cut reasoning".to_owned()));
    lines.extend(parsed.truncated_call.then(|| "cut call".to_owned()));
    lines
}

/// The lines of a text without tools and reasoning tags.
pub(super) fn lines(format: ResponseFormat, text: &str) -> Vec<String> {
    lines_of(&ResponseParser::new(format).no_reasoning().parse(text), text)
}

/// Whether cutting `text` at each byte keeps to this: nothing is known before byte `named`, from
/// there on there is one call `name`, whole from byte `whole` on, and closed at the end.
pub(super) fn check_cuts(format: ResponseFormat, text: &str, named: &str, whole: &str) {
    let after = |part: &str| text.find(part).unwrap() + part.len();
    let (named, whole) = (after(named), after(whole));
    for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
        let parsed = ResponseParser::new(format).parse(&text[..end]);
        let calls = &parsed.message.tool_calls;
        assert_eq!(calls.len(), usize::from(end >= named), "{:?}", &text[..end]);
        if let Some(call) = calls.first() {
            assert!(parsed.truncated_call, "{:?}", &text[..end]);
            assert_eq!(parsed.message.content, None, "{:?}", &text[..end]);
            let object = matches!(call.function.arguments, Arguments::Object(_));
            assert_eq!(object, end >= whole, "{:?}", &text[..end]);
        } else {
            assert_eq!(parsed.message.text(), text[..end].trim());
        }
    }
    let parsed = ResponseParser::new(format).parse(text);
    assert!(parsed.is_whole() && parsed.message.tool_calls.len() == 1, "{parsed:?}");
}
