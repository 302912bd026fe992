//! Rows of files as rows of a training run.

use std::error::Error;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use posttrain::chat::{Builtin, ChatTemplate, ChatTokenizer, JsonChat};
use posttrain::data::{self, Body, ReadOptions, Rows, Sequence};
use posttrain::train::Error as TrainError;
use posttrain::train::config::{DataArguments, Paths};
use posttrain::train::data::{Row, RowId};

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

/// Reads files: `work` gets their rows, and says how many are done.
pub(crate) fn with_rows<T>(
    paths: &Paths,
    arguments: &DataArguments,
    bad_rows: &Path,
    work: impl FnOnce(
        &mut dyn Iterator<Item = Result<data::Row, TrainError>>,
        &mut dyn FnMut(u64),
    ) -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
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
    let unread = |error: data::Error| TrainError::Data {
        row: paths.as_slice()[0].display().to_string(),
        reason: error.to_string(),
    };
    let found = work(&mut rows.by_ref().map(|row| row.map_err(unread)), &mut |done| {
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    eprintln!("{}", rows.report());
    Ok(found)
}

/// The name of a row.
pub(crate) fn id(row: &data::Row) -> RowId {
    RowId::new(row.place.file.to_string_lossy(), row.place.line.unwrap_or(row.place.row))
}

/// A prompt of a row with an answer to it.
pub(crate) fn answered(
    row: &data::Row,
    prompt: &Body,
    answer: &Body,
) -> Result<Row<JsonChat>, data::Error> {
    if let (Body::Messages(prompt), Body::Messages(answer)) = (prompt, answer) {
        let whole: Vec<_> = prompt.iter().chain(answer).cloned().collect();
        return Ok(Row::ChatCompletion { prompt: row.chat(prompt)?, whole: row.chat(&whole)? });
    }
    Ok(match row.answered(prompt, answer)? {
        Sequence::Chat(chat) => Row::Chat(chat),
        Sequence::Text { prompt, answer } => Row::Completion { prompt, completion: answer },
    })
}

/// An error of a row, with its place.
pub(crate) fn fault(row: &data::Row) -> impl Fn(data::Error) -> TrainError {
    let place = row.place.to_string();
    move |reason| TrainError::Data { row: place.clone(), reason: reason.to_string() }
}

/// Paths, separated by commas.
pub(crate) fn list(paths: &Paths) -> String {
    let names = paths.as_slice().iter().map(|path| path.display().to_string());
    names.collect::<Vec<_>>().join(", ")
}
