//! What is wrong with a tokenizer and its template, before a training run shows it.

mod template;
mod tokenizer;

use std::fmt;

use posttrain_core::Conversation;

use crate::error::Result;
use crate::template::{ChatTemplate, RenderOptions};
use crate::tokenize::ChatTokenizer;

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
        let checked = template::with_special_tokens(self, &mut report);
        template::check_roles(&checked, &mut report);
        template::check_generation_prompt(&checked, &mut report);
        template::check_prefixes(&checked, &mut report);
        template::check_mask(&checked, &mut report);
        template::check_tools(&checked, &mut report);
        template::check_clock(&checked, &mut report);
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
        tokenizer::check_bos(self, &mut report);
        tokenizer::check_end_of_turn(self, &mut report);
        tokenizer::check_pad(self, &mut report);
        tokenizer::check_control_tokens(self, &mut report);
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Builtin;

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
