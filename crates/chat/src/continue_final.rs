//! `continue_final_message`: the last message stays open, as transformers does it: a tag is put
//! behind the message's text and the rendered text is cut there.

use crate::error::{Error, Result};
use crate::jinja::{Dict, Value, is_space};
use crate::template::{ContinueFinal, REASONING_FIELDS};

const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Puts the tag behind the field of the last message; returns the text of the field.
pub(crate) fn tag<'a>(
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
    let Some(value) = last.get_str(field).cloned() else {
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
                let tagged = Value::string(format!("{}{TAG}", &**text));
                set(last, field, tagged);
            }
            Ok(text.to_string())
        }
        Value::List(parts) => {
            let mut parts = parts.to_vec();
            for part in parts.iter_mut().rev() {
                let Value::Dict(block) = part else { continue };
                let Some(Value::Str(text)) = block.get_str("text").cloned() else { continue };
                let mut block = (**block).clone();
                set(&mut block, "text", Value::string(format!("{}{TAG}", &*text)));
                *part = Value::dict(block);
                set(last, field, Value::list(parts));
                return Ok(text.to_string());
            }
            fail("the final message has no text to continue".into())
        }
        _ => fail(format!("the final message's {field:?} is not a text")),
    }
}

fn set<'a>(dict: &mut Dict<'a>, key: &str, value: Value<'a>) {
    if let Some((_, old)) = dict.entries.iter_mut().find(|(k, _)| k.equals_str(key)) {
        *old = value;
    }
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
