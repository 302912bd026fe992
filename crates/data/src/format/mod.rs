//! The forms in which data sets write rows, and how a row is read in each.

mod alpaca;
mod columns;
mod context;
mod detect;
mod implicit;
mod messages;
mod prompt;
mod sharegpt;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

pub(crate) use columns::Columns;
use columns::Fields;
pub(crate) use detect::{SAMPLE, detect};
pub(crate) use messages::Roles;

use crate::fault::Fault;
use crate::row::{Context, Example};

/// The form of a data set's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// `OpenAI`'s: `messages` with `role` and `content`, and optionally `tools`.
    Messages,
    /// `conversations` with `from` and `value`, and optionally `system` and `tools`.
    #[serde(rename = "sharegpt")]
    ShareGpt,
    /// `instruction`, `output`, and optionally `input`, `system` and `history`. Read as a conversation:
    /// the input follows its instruction on a line of its own.
    Alpaca,
    /// `prompt` and `completion`, texts or lists of messages.
    PromptCompletion,
    /// `chosen` and `rejected`, and optionally `prompt` and `margin`. Without a prompt it is what both
    /// answers begin with.
    Preference,
    /// `prompt`, `completion` and `label`, which says whether the answer is good.
    Unpaired,
    /// `prompt`, `completions` (or `steps`) and `labels`, one for each step.
    Steps,
    /// `prompt`, `completions` and `scores` (or `rewards`), one for each completion: the more the better.
    Ranked,
    /// `prompt` alone.
    Prompt,
    /// `text` alone.
    Text,
}

/// The columns of a format by their usual names. An alternative is written `a|b`.
pub(crate) struct Form {
    pub(crate) format: Format,
    name: &'static str,
    pub(crate) required: &'static [&'static str],
    pub(crate) optional: &'static [&'static str],
}

/// All formats. `tools`, `documents` and `chat_template_kwargs` go with each.
pub(crate) const FORMS: [Form; 10] = [
    form(Format::Messages, "OpenAI messages", &["messages"], &[]),
    form(Format::ShareGpt, "ShareGPT", &["conversations"], &["system"]),
    form(Format::Alpaca, "Alpaca", &["instruction", "output"], &["input", "system", "history"]),
    form(Format::PromptCompletion, "prompt and completion", &["prompt", "completion"], &[]),
    form(Format::Preference, "preference", &["chosen", "rejected"], &["prompt", "margin"]),
    form(Format::Unpaired, "unpaired", &["prompt", "completion", "label"], &[]),
    form(Format::Steps, "steps", &["prompt", "completions|steps", "labels"], &[]),
    form(Format::Ranked, "ranked", &["prompt", "completions", "scores|rewards"], &[]),
    form(Format::Prompt, "prompt", &["prompt"], &[]),
    form(Format::Text, "text", &["text"], &[]),
];

const fn form(
    format: Format,
    name: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
) -> Form {
    Form { format, name, required, optional }
}

/// The columns that go with each format.
pub(crate) const CONTEXT: [&str; 3] = ["tools", "documents", "chat_template_kwargs"];

impl Format {
    pub(crate) fn form(self) -> &'static Form {
        FORMS.iter().find(|form| form.format == self).unwrap_or(&FORMS[0])
    }

    /// Its name in configurations: `prompt_completion`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::ShareGpt => "sharegpt",
            Self::Alpaca => "alpaca",
            Self::PromptCompletion => "prompt_completion",
            Self::Preference => "preference",
            Self::Unpaired => "unpaired",
            Self::Steps => "steps",
            Self::Ranked => "ranked",
            Self::Prompt => "prompt",
            Self::Text => "text",
        }
    }

    /// Several by their names in configurations.
    pub(crate) fn list(formats: &[Self]) -> String {
        let names: Vec<&str> = formats.iter().map(|format| format.as_str()).collect();
        names.join(" and ")
    }

    /// All formats with their columns, for messages.
    pub(crate) fn forms() -> String {
        let forms: Vec<String> = FORMS.iter().map(Form::to_string).collect();
        forms.join("; ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.form().name)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.format.as_str(), self.required.join(", "))?;
        for column in self.optional {
            write!(f, "[, {column}]")?;
        }
        f.write_str(")")
    }
}

/// What a row says, the context of its template, and the other columns.
pub(crate) type Parsed = (Example, Context, Map<String, Json>);

/// Reads a row of a known format.
pub(crate) fn read_row(
    format: Format,
    object: Map<String, Json>,
    columns: &Columns,
    roles: &Roles,
) -> Result<Parsed, Fault> {
    let mut fields = Fields::new(object, columns);
    let example = match format {
        Format::Messages => messages::read(&mut fields, roles)?,
        Format::ShareGpt => sharegpt::read(&mut fields, roles)?,
        Format::Alpaca => alpaca::read(&mut fields)?,
        Format::PromptCompletion => prompt::completion(&mut fields, roles)?,
        Format::Preference => prompt::preference(&mut fields, roles)?,
        Format::Unpaired => prompt::unpaired(&mut fields, roles)?,
        Format::Steps => prompt::steps(&mut fields, roles)?,
        Format::Ranked => prompt::ranked(&mut fields, roles)?,
        Format::Prompt => Example::Prompt(prompt::prompt(&mut fields, roles)?),
        Format::Text => Example::Text(fields.text("text")?),
    };
    let context = context::read(&mut fields)?;
    Ok((example, context, fields.rest()))
}
