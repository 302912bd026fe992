//! Rows of files as solutions in labelled steps.

use std::error::Error;
use std::path::Path;

use posttrain::data::{self, Example};
use posttrain::model::reward::{Convention, RewardTokenizer};
use posttrain::train::Error as TrainError;
use posttrain::train::config::{Paths, RewardConfig};
use posttrain::train::data::{Answers, RowCounts, RowId};
use posttrain::train::reward::{StepRow, encode_steps};

use crate::rows::{fault, id, with_rows};

/// Reads files and encodes their rows; says on standard error what was found. Bad rows, where some are
/// allowed, go to the file `bad_rows`.
pub(crate) fn read(
    paths: &Paths,
    config: &RewardConfig,
    bad_rows: &Path,
    tokenizer: &RewardTokenizer,
    convention: &Convention,
) -> Result<(Answers, RowCounts), Box<dyn Error>> {
    with_rows(paths, &config.data, bad_rows, |rows, done| {
        let each = rows.map(|row| row.and_then(|row| step_row(&row)));
        Ok(encode_steps(each, tokenizer, convention, config, done)?)
    })
}

fn step_row(row: &data::Row) -> Result<(RowId, StepRow), TrainError> {
    let Example::Steps { prompt, steps, labels } = &row.example else {
        let reason = format!(
            "{}, expected `prompt`, `completions` (or `steps`) and `labels`",
            row.example.name()
        );
        return Err(TrainError::Data { row: row.place.to_string(), reason });
    };
    let prompt = row.prompt(prompt).map_err(fault(row))?;
    Ok((id(row), StepRow { prompt, steps: steps.clone(), labels: labels.clone() }))
}
