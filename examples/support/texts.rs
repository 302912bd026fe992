//! Rows of files as texts and conversations to learn from.

use std::error::Error;
use std::path::Path;

use posttrain::chat::{ChatTokenizer, JsonChat};
use posttrain::data::{self, Example, Sequence};
use posttrain::train::config::{DataArguments, Paths};
use posttrain::train::data::{Row, RowCounts, RowId, RowOptions, Samples, encode};

use crate::rows::{answered, fault, id, with_rows};

/// Reads files and encodes their rows; says on standard error what was found. Bad rows, where some are
/// allowed, go to the file `bad_rows`.
pub(crate) fn read(
    paths: &Paths,
    arguments: &DataArguments,
    bad_rows: &Path,
    tokenizer: &ChatTokenizer,
    options: &RowOptions,
) -> Result<(Samples, RowCounts), Box<dyn Error>> {
    with_rows(paths, arguments, bad_rows, |rows, done| {
        let each = rows.map(|row| row.and_then(|row| training_row(&row).map_err(fault(&row))));
        Ok(encode(each, tokenizer, options, done)?)
    })
}

/// A row of a file as supervised fine-tuning sees it.
fn training_row(row: &data::Row) -> Result<(RowId, Row<JsonChat>), data::Error> {
    let training = match &row.example {
        Example::PromptCompletion { prompt, completion } => answered(row, prompt, completion)?,
        _ => match row.sequence()? {
            Sequence::Chat(chat) => Row::Chat(chat),
            Sequence::Text { prompt, answer } if prompt.is_empty() => Row::Text(answer),
            Sequence::Text { prompt, answer } => Row::Completion { prompt, completion: answer },
        },
    };
    Ok((id(row), training))
}
