//! What is wrong with a tokenizer and its template, before a training run shows it.

use std::fmt;

use posttrain_core::{Conversation, Message, Role};

use crate::chat::ArgumentForm;
use crate::error::Result;
use crate::jinja::is_space;
use crate::mask::{TrainedTurns, check_prefix};
use crate::probe;
use crate::response::ResponseFormat;
use crate::template::{ChatTemplate, RenderOptions};
use crate::tokenize::{ChatTokenizer, EncodeOptions};

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Fine,
    /// Works, but has a consequence to know.
    Warning,
    /// Training or generation will go wrong.
    Problem,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked: `bos`, `end of turn`, `prefixes`, ...
    pub check: &'static str,
    /// How serious it is.
    pub level: Level,
    /// What was found, and what to do about it.
    pub message: String,
}

/// The report of [`ChatTemplate::diagnose`] and [`ChatTokenizer::diagnose`]; prints a line a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// The findings, in the order of the checks.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// The most serious level.
    pub fn worst(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Fine)
    }

    /// The findings of one check.
    pub fn of<'d>(&'d self, check: &'d str) -> impl Iterator<Item = &'d Finding> {
        self.findings.iter().filter(move |finding| finding.check == check)
    }

    fn add(&mut self, check: &'static str, level: Level, message: impl Into<String>) {
        self.findings.push(Finding { check, level, message: message.into() });
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, level, message } in &self.findings {
            let level = match level {
                Level::Fine => "fine",
                Level::Warning => "warning",
                Level::Problem => "PROBLEM",
            };
            writeln!(f, "{level:8} {check:18} {message}")?;
        }
        Ok(())
    }
}

impl ChatTemplate {
    /// Checks what a template alone can tell: roles, generation prompt, prefix preservation, mask
    /// coverage, tools.
    ///
    /// ```
    /// use posttrain_chat::{Builtin, ChatTemplate, Level};
    ///
    /// let diagnosis = ChatTemplate::builtin(Builtin::ChatMl).diagnose();
    /// assert_eq!(diagnosis.worst(), Level::Fine, "{diagnosis}");
    /// ```
    pub fn diagnose(&self) -> Diagnosis {
        let mut report = Diagnosis::default();
        check_roles(self, &mut report);
        check_generation_prompt(self, &mut report);
        check_prefixes(self, &mut report);
        check_mask(self, &mut report);
        check_tools(self, &mut report);
        check_clock(self, &mut report);
        report
    }

    fn plain(&self, chat: &Conversation) -> Result<String> {
        self.render(chat, &RenderOptions::default())
    }
}

impl ChatTokenizer {
    /// Checks the template as [`ChatTemplate::diagnose`] does, and with the tokenizer: double or
    /// missing BOS, whether the end of a turn stops the generation, the pad token, and control
    /// tokens that the tokenizer does not know.
    pub fn diagnose(&self) -> Diagnosis {
        let mut report = self.template().diagnose();
        check_bos(self, &mut report);
        check_end_of_turn(self, &mut report);
        check_pad(self, &mut report);
        check_control_tokens(self, &mut report);
        report
    }
}

fn check_roles(template: &ChatTemplate, report: &mut Diagnosis) {
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
    match refused.is_empty() {
        true => {
            report.add("roles", Level::Fine, "system, developer, user and assistant are rendered")
        }
        false => report.add("roles", Level::Warning, refused.join("; ")),
    }
}

fn check_generation_prompt(template: &ChatTemplate, report: &mut Diagnosis) {
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
            documents: Vec::new(),
        };
        let Ok(alone) = template.plain(&part) else { continue };
        if let Err(error) = check_prefix(&alone, &whole, || format!("message {}", count - 1)) {
            return Ok(Some(error.to_string()));
        }
    }
    Ok(None)
}

fn check_prefixes(template: &ChatTemplate, report: &mut Diagnosis) {
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

fn check_mask(template: &ChatTemplate, report: &mut Diagnosis) {
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

fn check_tools(template: &ChatTemplate, report: &mut Diagnosis) {
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
            report.add("tools", Level::Warning, format!("tools raise {:?}", error.to_string()))
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

fn check_clock(template: &ChatTemplate, report: &mut Diagnosis) {
    let source = template.source(None, false).unwrap_or_default();
    if source.contains("strftime_now") {
        let message = "the text holds the date of the day: set a clock where runs must repeat";
        report.add("clock", Level::Warning, message);
    }
}

fn check_bos(tokenizer: &ChatTokenizer, report: &mut Diagnosis) {
    let inner = tokenizer.tokenizer();
    let template = tokenizer.template();
    let Ok(text) = template.plain(&probe::two_turns()) else { return };
    let first = |special| inner.encode(&*text, special).ok().map(|e| e.get_ids().to_vec());
    let (Some(with), Some(without)) = (first(true), first(false)) else { return };
    // What the tokenizer puts in front is what it has before the text's own ids.
    let adds =
        with.len() > without.len() && with.first().is_some() && with.get(1) == without.first();
    let bos = template.special_token("bos_token").and_then(|token| inner.token_to_id(token));
    let bos = if adds { with.first().copied() } else { bos };
    let name = bos.and_then(|id| inner.id_to_token(id)).unwrap_or_else(|| "BOS".into());
    let written = bos.map_or(0, |bos| without.iter().take_while(|&&id| id == bos).count());
    match (written, adds) {
        (0, false) => report.add("bos", Level::Fine, "neither template nor tokenizer adds a BOS token"),
        (0, true) => report.add(
            "bos",
            Level::Warning,
            format!("the tokenizer adds {name} to plain text, the template does not write it: chats start without"),
        ),
        (1, false) => report.add("bos", Level::Fine, format!("the template writes {name} once")),
        (1, true) => report.add(
            "bos",
            Level::Warning,
            format!(
                "the template writes {name} and the tokenizer adds it too: rendered text must be encoded \
                 without special tokens, as this crate does"
            ),
        ),
        (times, _) => {
            report.add("bos", Level::Problem, format!("the template writes {name} {times} times"));
        }
    }
}

fn check_end_of_turn(tokenizer: &ChatTokenizer, report: &mut Diagnosis) {
    let check = "end of turn";
    let chat = Conversation::new([Message::user("Quokka?"), Message::assistant("Wombat.")]);
    let inner = tokenizer.tokenizer();
    let name = |id: u32| inner.id_to_token(id).unwrap_or_else(|| id.to_string());
    let stops: Vec<String> = tokenizer.stop_token_ids().iter().map(|&id| name(id)).collect();
    if stops.is_empty() {
        report.add(check, Level::Problem, "no stop token: set eos_token or eos_token_id");
        return;
    }
    let Ok(encoded) = tokenizer.encode(&chat, &EncodeOptions::default()) else { return };
    let trained = encoded.ids.iter().zip(&encoded.mask).filter(|(_, trained)| **trained);
    let trained: Vec<u32> = trained.map(|(&id, _)| id).collect();
    let blank = |id: u32| inner.decode(&[id], false).is_ok_and(|text| text.chars().all(is_space));
    let last = trained.iter().rev().copied().find(|&id| !blank(id));
    match last {
        Some(id) if tokenizer.stop_token_ids().contains(&id) => {
            report.add(
                check,
                Level::Fine,
                format!("{} ends a turn, stops generation and is trained", name(id)),
            );
        }
        _ => {
            let written = template_end(tokenizer);
            let message = format!(
                "turns end with {written:?}, but generation stops at {stops:?}: the model will not stop \
                 where a turn ends. Add the end token to eos_token_id in generation_config.json"
            );
            report.add(check, Level::Problem, message);
        }
    }
}

/// What the template writes behind an answer.
fn template_end(tokenizer: &ChatTokenizer) -> String {
    let chat = Conversation::new([Message::user("Quokka?"), Message::assistant("Wombat.")]);
    let text = tokenizer.template().plain(&chat).unwrap_or_default();
    text.rsplit_once("Wombat.").map(|(_, end)| end.to_owned()).unwrap_or_default()
}

fn check_pad(tokenizer: &ChatTokenizer, report: &mut Diagnosis) {
    let template = tokenizer.template();
    let pad = template.special_token("pad_token");
    match (pad, template.special_token("eos_token")) {
        (None, _) => {
            report.add("pad", Level::Warning, "no pad token: choose one that no text holds")
        }
        (Some(pad), Some(eos)) if pad == eos => {
            let message = format!(
                "the pad token is the end token {eos}: whoever hides padding by its id also hides the end \
                 of every answer from training. This crate masks by position"
            );
            report.add("pad", Level::Warning, message);
        }
        (Some(pad), _) if tokenizer.tokenizer().token_to_id(pad).is_none() => {
            report.add(
                "pad",
                Level::Problem,
                format!("the pad token {pad} is not in the vocabulary"),
            );
        }
        (Some(pad), _) => report.add("pad", Level::Fine, format!("{pad}, not the end token")),
    }
}

/// Control tokens that the template writes and the tokenizer cuts into pieces.
fn check_control_tokens(tokenizer: &ChatTokenizer, report: &mut Diagnosis) {
    let Ok(text) = tokenizer.template().plain(&probe::two_turns()) else { return };
    let mut split = Vec::new();
    let mut known = 0;
    for token in control_like(&text) {
        if tokenizer.tokenizer().token_to_id(token).is_some() {
            known += 1;
        } else if !split.contains(&token) {
            split.push(token);
        }
    }
    if split.is_empty() {
        let message = if known > 0 {
            "all that the template writes are single tokens"
        } else {
            "none written"
        };
        report.add("control tokens", Level::Fine, message);
    } else {
        let message = format!(
            "the template writes {split:?}, which the tokenizer cuts into several tokens: add them to the \
             vocabulary and train their embeddings, or use a template of this model"
        );
        report.add("control tokens", Level::Problem, message);
    }
}

/// Texts like `<|im_end|>`, `</s>` and `[INST]`.
fn control_like(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, open) in text.match_indices(['<', '[']) {
        let close = if open == "<" { '>' } else { ']' };
        let Some(len) = text[at..].find(close) else { continue };
        let token = &text[at..=at + len];
        let inner = &token[1..len];
        let named = inner.chars().all(|c| c.is_alphanumeric() || "_|/｜▁".contains(c));
        let upper = open == "<" || inner.chars().all(|c| c.is_uppercase() || "_/".contains(c));
        if !inner.is_empty() && inner.len() <= 40 && named && upper {
            found.push(token);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Builtin;

    #[test]
    fn control_tokens_are_told_from_text() {
        let text = "<s>[INST] a < b > c [1] <|im_end|> [/INST]<｜User｜> list[INDEX] </s>";
        assert_eq!(
            control_like(text),
            ["<s>", "[INST]", "<|im_end|>", "[/INST]", "<｜User｜>", "[INDEX]", "</s>"]
        );
    }

    #[test]
    fn built_in_templates_have_no_problems() {
        for builtin in Builtin::ALL {
            let diagnosis = ChatTemplate::builtin(builtin).diagnose();
            assert!(diagnosis.worst() < Level::Problem, "{}:\n{diagnosis}", builtin.name());
        }
    }

    #[test]
    fn faults_are_found() {
        let rewrites = "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}(old)\
            {% endif %}{{ m.content }}\n{% endfor %}";
        let diagnosis = ChatTemplate::parse(rewrites).unwrap().diagnose();
        assert!(diagnosis.of("prefixes").any(|f| f.level == Level::Warning), "{diagnosis}");
        assert!(diagnosis.of("mask").any(|f| f.level == Level::Problem), "{diagnosis}");
        assert!(diagnosis.of("tools").any(|f| f.message.contains("left out")), "{diagnosis}");
        let leaking =
            "{% generation %}{% for m in messages %}{{ m.content }}{% endfor %}{% endgeneration %}";
        let diagnosis = ChatTemplate::parse(leaking).unwrap().diagnose();
        assert!(
            diagnosis.of("mask").any(|f| f.message.contains("questions are trained")),
            "{diagnosis}"
        );
    }
}
