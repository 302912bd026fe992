//! What a template alone can tell.

use posttrain_core::{Conversation, Message, Role};

use super::{Diagnosis, Level};
use crate::chat::ArgumentForm;
use crate::error::Result;
use crate::mask::{TrainedTurns, check_prefix};
use crate::probe;
use crate::response::ResponseFormat;
use crate::template::{ChatTemplate, RenderOptions};

/// The template with the special tokens that it uses; stand-ins for those that nobody has set.
pub(super) fn with_special_tokens(template: &ChatTemplate, report: &mut Diagnosis) -> ChatTemplate {
    let source = template.source(None, false).unwrap_or_default();
    let mut checked = template.clone();
    let mut missing = Vec::new();
    for (name, stand_in) in [("bos_token", "<s>"), ("eos_token", "</s>")] {
        if source.contains(name) && template.special_token(name).is_none() {
            checked = checked.with_special_token(name, stand_in);
            missing.push(format!("{name} (checked with {stand_in})"));
        }
    }
    if !missing.is_empty() {
        let message = format!("used by the template and not set: {}", missing.join(", "));
        report.add("special tokens", Level::Warning, message);
    }
    checked
}

pub(super) fn check_roles(template: &ChatTemplate, report: &mut Diagnosis) {
    let user = || [Message::user("Quokka?"), Message::assistant("Wombat.")];
    if let Err(error) = template.plain(&Conversation::new(user())) {
        report.add("roles", Level::Problem, format!("a question and its answer raise: {error}"));
        return;
    }
    let mut refused = Vec::new();
    for role in [Role::System, Role::Developer] {
        let messages = [Message::new(role, "Numbat.")].into_iter().chain(user());
        match template.plain(&Conversation::new(messages)) {
            Ok(text) if text.contains("Numbat.") => {}
            Ok(_) => refused.push(format!("{role} is left out silently")),
            Err(error) => refused.push(format!("{role} raises {:?}", error.to_string())),
        }
    }
    // A template without the newer role is not at fault.
    if refused.is_empty() {
        report.add("roles", Level::Fine, "system, developer, user and assistant are rendered");
    } else {
        report.add("roles", Level::Warning, refused.join("; "));
    }
}

pub(super) fn check_generation_prompt(template: &ChatTemplate, report: &mut Diagnosis) {
    let asked = Conversation::new([Message::user("Quokka?")]);
    let answered = Conversation::new([Message::user("Quokka?"), Message::assistant("Wombat.")]);
    let prompt = template.render(&asked, &RenderOptions::generation_prompt());
    let (Ok(bare), Ok(prompt), Ok(whole)) =
        (template.plain(&asked), prompt, template.plain(&answered))
    else {
        return;
    };
    let check = "generation prompt";
    let Some(added) = prompt.strip_prefix(&*bare) else {
        report.add(
            check,
            Level::Warning,
            "add_generation_prompt changes the text before the prompt",
        );
        return;
    };
    if added.is_empty() {
        let message = "add_generation_prompt adds nothing: fine where an answer needs no header";
        report.add(check, Level::Fine, message);
    } else if whole.starts_with(&prompt) {
        report.add(check, Level::Fine, format!("adds {added:?}, with which answers start"));
    } else {
        let message = format!(
            "adds {added:?}, but finished answers do not start so: what the model is trained on and what \
             it is asked with differ"
        );
        report.add(check, Level::Warning, message);
    }
}

/// Whether the messages up to each turn render to a prefix of the whole.
fn prefix_fault(template: &ChatTemplate, chat: &Conversation) -> Result<Option<String>> {
    let whole = template.plain(chat)?;
    for count in 1..chat.messages.len() {
        let part = Conversation {
            messages: chat.messages[..count].to_vec(),
            tools: chat.tools.clone(),
            ..Conversation::default()
        };
        let Ok(alone) = template.plain(&part) else { continue };
        if let Err(error) = check_prefix(&alone, &whole, || format!("message {}", count - 1)) {
            return Ok(Some(error.to_string()));
        }
    }
    Ok(None)
}

pub(super) fn check_prefixes(template: &ChatTemplate, report: &mut Diagnosis) {
    let mut reasoning = probe::two_turns();
    for message in &mut reasoning.messages {
        if message.role == Role::Assistant {
            message.reasoning_content = Some("Bilby.".into());
        }
    }
    let kinds = [
        ("plain turns", probe::two_turns()),
        ("turns with reasoning", reasoning),
        ("tool calls", probe::tool_call()),
    ];
    let mut kept = Vec::new();
    for (kind, chat) in kinds {
        match prefix_fault(template, &chat) {
            Ok(None) => kept.push(kind),
            Ok(Some(fault)) => {
                report.add(
                    "prefixes",
                    Level::Warning,
                    format!("{kind} are rewritten later: {fault}"),
                );
            }
            // Not every template takes tools; `tools` reports it.
            Err(_) => {}
        }
    }
    if !kept.is_empty() {
        let message = format!("{} stay as they are when more follows", kept.join(", "));
        report.add("prefixes", Level::Fine, message);
    }
}

pub(super) fn check_mask(template: &ChatTemplate, report: &mut Diagnosis) {
    let chat = probe::two_turns();
    let options = RenderOptions::default();
    let Ok((_, generation)) = template.render_spans(&chat, &options) else { return };
    let how = if generation.is_some() { "{% generation %} blocks" } else { "comparing prefixes" };
    let (text, spans) = match template.trained_spans(&chat, &options, TrainedTurns::All) {
        Ok(found) => found,
        Err(error) => {
            report.add("mask", Level::Problem, error.to_string());
            return;
        }
    };
    let trained: Vec<&str> = spans.iter().map(|span| &text[span.clone()]).collect();
    let covered = ["Wombat one.", "Wombat two."]
        .iter()
        .all(|answer| trained.iter().any(|t| t.contains(answer)));
    let leaked = trained.iter().any(|text| text.contains("Quokka"));
    match (covered, leaked) {
        (true, false) => {
            let message = format!("found by {how}; an answer is trained as {:?}", trained[0]);
            report.add("mask", Level::Fine, message);
        }
        (_, true) => {
            report.add(
                "mask",
                Level::Problem,
                format!("by {how}, questions are trained: {trained:?}"),
            );
        }
        (false, false) => {
            report.add(
                "mask",
                Level::Problem,
                format!("by {how}, answers are missing: {trained:?}"),
            );
        }
    }
}

pub(super) fn check_tools(template: &ChatTemplate, report: &mut Diagnosis) {
    let offered = Conversation {
        tools: vec![probe::tool()],
        ..Conversation::new([Message::user("Quokka?")])
    };
    match template.plain(&offered) {
        Ok(text) if text.contains("get_tide_table") => {
            report.add("tools", Level::Fine, "tools are described in the prompt");
        }
        Ok(_) => {
            report.add(
                "tools",
                Level::Warning,
                "tools are left out silently: the model never sees them",
            );
        }
        Err(error) => {
            report.add("tools", Level::Warning, format!("tools raise {:?}", error.to_string()));
        }
    }
    let called = probe::tool_call();
    match template.plain(&called) {
        Ok(text) if text.contains("Zanzibar") && text.contains("06:12") => {
            let form = template.select(None, true).map(|named| template.argument_form(named));
            let form = match form {
                Ok(ArgumentForm::Text) => "as text",
                _ => "as an object",
            };
            let source = template.source(None, true).unwrap_or_default();
            let parser = match ResponseFormat::detect(source) {
                Some(format) => format!("answers are parsed as {format:?}"),
                None => "the format of the calls is not known to the response parser".into(),
            };
            let message = format!("calls and results are rendered, arguments {form}; {parser}");
            report.add("tool calls", Level::Fine, message);
        }
        Ok(text) => {
            let what = match (text.contains("Zanzibar"), text.contains("06:12")) {
                (false, false) => "calls and results are",
                (false, true) => "calls are",
                _ => "results are",
            };
            report.add("tool calls", Level::Warning, format!("{what} left out silently"));
        }
        Err(error) => {
            report.add(
                "tool calls",
                Level::Warning,
                format!("calls raise {:?}", error.to_string()),
            );
        }
    }
}

pub(super) fn check_clock(template: &ChatTemplate, report: &mut Diagnosis) {
    let source = template.source(None, false).unwrap_or_default();
    if source.contains("strftime_now") {
        let message = "the text holds the date of the day: set a clock where runs must repeat";
        report.add("clock", Level::Warning, message);
    }
}
