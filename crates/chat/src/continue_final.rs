//! `continue_final_message`: the last message stays open, as transformers does it: a tag is put
//! behind the message's text and the rendered text is cut there.

use bumpalo::Bump;

use crate::error::{Error, Result};
use crate::jinja::{Dict, DictBuilder, Value, is_space};
use crate::template::{ContinueFinal, REASONING_FIELDS};

const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Puts the tag behind the field of the last message; returns the text of the field.
pub(crate) fn tag<'a>(
    arena: &'a Bump,
    field: &'a ContinueFinal,
    source: &str,
    messages: &mut [Dict<'a>],
) -> Result<String> {
    let field = match field {
        ContinueFinal::Content => "content",
        ContinueFinal::Field(field) => field,
    };
    let fail = |reason: String| Err(Error::Continue(reason));
    let Some(last) = messages.last_mut() else { return Err(Error::EmptyConversation) };
    let Some(value) = last.get_str(field) else {
        return fail(format!("the final message has no {field:?} to continue"));
    };
    let mut fields = vec![field];
    if REASONING_FIELDS.contains(&field) {
        // The reasoning stands under several names; the template reads one of them.
        fields = REASONING_FIELDS.to_vec();
        fields.retain(|name| last.get_str(name).is_some_and(|other| other.equals(&value)));
    }
    if !fields.iter().any(|field| source.contains(field)) {
        return fail(format!("the template does not use the field {field:?}"));
    }
    match &value {
        Value::Str(text) => {
            for field in fields {
                let tagged = Value::string(arena, format!("{text}{TAG}"));
                *last = with(arena, *last, field, tagged);
            }
            Ok((*text).to_owned())
        }
        Value::List(parts) => {
            let mut parts = parts.to_vec();
            for part in parts.iter_mut().rev() {
                let Value::Dict(block) = part else { continue };
                let Some(Value::Str(text)) = block.get_str("text") else { continue };
                let tagged = Value::string(arena, format!("{text}{TAG}"));
                *part = Value::Dict(with(arena, *block, "text", tagged));
                *last = with(arena, *last, field, Value::list(arena, parts));
                return Ok(text.to_owned());
            }
            fail("the final message has no text to continue".into())
        }
        _ => fail(format!("the final message's {field:?} is not a text")),
    }
}

/// The dict with another value for one of its keys.
fn with<'a>(arena: &'a Bump, dict: Dict<'a>, key: &'a str, value: Value<'a>) -> Dict<'a> {
    let mut dict = DictBuilder::copy(arena, dict);
    dict.insert(Value::Str(key), value);
    dict.finish()
}

/// Cuts the rendered text where the tag stands.
pub(crate) fn cut(rendered: &str, final_text: &str) -> Result<String> {
    let tag = TAG.trim_end();
    let (Some(at), true) =
        (rendered.rfind(tag), rendered.contains(final_text.trim_matches(is_space)))
    else {
        return Err(Error::Continue(
            "the final message does not appear in the rendered chat: the template drops or changes \
             parts of it"
                .into(),
        ));
    };
    let kept = &rendered[..at];
    Ok(if rendered[at..].starts_with(TAG) {
        kept.to_owned()
    } else {
        kept.trim_end_matches(is_space).to_owned()
    })
}
