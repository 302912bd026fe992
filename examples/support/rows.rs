//! Rows of files as rows of a training run.

use std::error::Error;
use std::fmt::Display;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use posttrain::chat::{Builtin, ChatTemplate, ChatTokenizer, JsonChat};
use posttrain::data::{self, Body, Example, ReadOptions, Rows, Sequence};
use posttrain::train::config::{DataArguments, Paths};
use posttrain::train::data::{Row, RowCounts, RowId, RowOptions, Samples, encode};

/// The tokenizer of a model, with its own chat template, another one, or none where rows are texts.
pub(crate) fn tokenizer(
    folder: &Path,
    template: Option<&Path>,
) -> Result<ChatTokenizer, posttrain::chat::Error> {
    if let Some(path) = template {
        let template = if path.is_dir() {
            ChatTemplate::from_model(path)?
        } else {
            let read = |source| posttrain::chat::Error::Read { path: path.to_owned(), source };
            ChatTemplate::parse(&std::fs::read_to_string(path).map_err(read)?)?
        };
        return ChatTokenizer::from_model_with_template(folder, template);
    }
    match ChatTokenizer::from_model(folder) {
        Err(posttrain::chat::Error::NoTemplate { .. }) => {
            let plain = ChatTemplate::builtin(Builtin::Plain);
            ChatTokenizer::from_model_with_template(folder, plain)
        }
        found => found,
    }
}

/// Reads files and encodes their rows; says on standard error what was found. Bad rows, where some are
/// allowed, go to the file `bad_rows`.
pub(crate) fn read(
    paths: &Paths,
    arguments: &DataArguments,
    bad_rows: &Path,
    tokenizer: &ChatTokenizer,
    options: &RowOptions,
) -> Result<(Samples, RowCounts), Box<dyn Error>> {
    let format = arguments.data_format.as_deref().map(|name| {
        serde_json::from_value(name.into()).map_err(|error| format!("`data_format`: {error}"))
    });
    let reading = ReadOptions {
        format: format.transpose()?,
        columns: arguments.columns.clone(),
        roles: arguments.roles.clone(),
        max_bad_rows: arguments.max_bad_rows,
        bad_rows: (arguments.max_bad_rows > 0).then(|| bad_rows.to_owned()),
        ..ReadOptions::default()
    };
    let mut rows = Rows::open(paths.as_slice(), &reading)?;
    let style = ProgressStyle::with_template("{spinner} {pos} rows encoded, {per_sec}")?;
    let bar = ProgressBar::new_spinner().with_style(style);
    let each = rows.by_ref().map(|row| match row {
        Ok(row) => training_row(&row).map_err(|error| fault(&row.place, &error)),
        Err(error) => Err(fault(&paths.as_slice()[0].display(), &error)),
    });
    let encoded = encode(each, tokenizer, options, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    eprintln!("{}", rows.report());
    Ok(encoded)
}

/// A row of a file as supervised fine-tuning sees it.
fn training_row(row: &data::Row) -> Result<(RowId, Row<JsonChat>), data::Error> {
    let id = RowId::new(row.place.file.to_string_lossy(), row.place.line.unwrap_or(row.place.row));
    let row = match &row.example {
        Example::PromptCompletion {
            prompt: Body::Messages(prompt),
            completion: Body::Messages(completion),
        } => {
            let whole: Vec<_> = prompt.iter().chain(completion).cloned().collect();
            Row::ChatCompletion { prompt: row.chat(prompt)?, whole: row.chat(&whole)? }
        }
        _ => match row.sequence()? {
            Sequence::Chat(chat) => Row::Chat(chat),
            Sequence::Text { prompt, answer } if prompt.is_empty() => Row::Text(answer),
            Sequence::Text { prompt, answer } => Row::Completion { prompt, completion: answer },
        },
    };
    Ok((id, row))
}

fn fault(row: &dyn Display, reason: &data::Error) -> posttrain::train::Error {
    posttrain::train::Error::Data { row: row.to_string(), reason: reason.to_string() }
}

/// Paths, separated by commas.
pub(crate) fn list(paths: &Paths) -> String {
    let names = paths.as_slice().iter().map(|path| path.display().to_string());
    names.collect::<Vec<_>>().join(", ")
}
