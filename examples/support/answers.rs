//! Rows of files as rows of better and worse answers.

use std::error::Error;
use std::path::Path;

use posttrain::chat::{ChatTokenizer, JsonChat};
use posttrain::data::{self, Body, Example};
use posttrain::train::Error as TrainError;
use posttrain::train::config::{DataArguments, Paths};
use posttrain::train::data::{
    AnswerRow, Answers, RowCounts, RowId, RowKind, RowOptions, encode_answers,
};

use crate::rows::{answered, fault, id, with_rows};

/// Reads files and encodes their rows; says on standard error what was found. Bad rows, where some are
/// allowed, go to the file `bad_rows`.
pub(crate) fn read(
    paths: &Paths,
    arguments: &DataArguments,
    bad_rows: &Path,
    tokenizer: &ChatTokenizer,
    options: &RowOptions,
    kind: RowKind,
) -> Result<(Answers, RowCounts), Box<dyn Error>> {
    with_rows(paths, arguments, bad_rows, |rows, done| {
        let each = rows.flat_map(|row| match row.and_then(|row| answer_rows(&row, kind)) {
            Ok(rows) => rows.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        });
        Ok(encode_answers(each, tokenizer, options, done)?)
    })
}

type Found = (RowId, AnswerRow<JsonChat>);

/// A row as a loss wants it; a pair is two labelled answers where it wants labels.
fn answer_rows(row: &data::Row, kind: RowKind) -> Result<Vec<Found>, TrainError> {
    let text = |prompt: &Body, answer: &Body, values: Vec<f64>| {
        Ok::<_, TrainError>((answered(row, prompt, answer).map_err(fault(row))?, values))
    };
    let rows = match (&row.example, kind) {
        (Example::Preference { prompt, chosen, rejected, .. }, RowKind::Labelled) => {
            vec![vec![text(prompt, chosen, vec![1.0])?], vec![text(prompt, rejected, vec![0.0])?]]
        }
        (Example::Preference { prompt, chosen, rejected, margin }, _) => {
            let margin = if kind == RowKind::Pairs { *margin } else { None };
            let margin = margin.into_iter().collect();
            let mut texts = vec![text(prompt, chosen, margin)?, text(prompt, rejected, vec![])?];
            if kind == RowKind::Triples {
                texts.push(text(prompt, &gold(row, prompt)?, vec![])?);
            }
            vec![texts]
        }
        (Example::Unpaired { prompt, completion, label }, RowKind::Labelled) => {
            vec![vec![text(prompt, completion, vec![f64::from(u8::from(*label))])?]]
        }
        (Example::Ranked { prompt, completions, scores }, RowKind::Ranked) => {
            let texts = completions.iter().zip(scores);
            let texts = texts.map(|(answer, score)| text(prompt, answer, vec![*score]));
            vec![texts.collect::<Result<_, _>>()?]
        }
        (other, _) => {
            let expected = match kind {
                RowKind::Pairs => "a preference: `chosen` and `rejected`",
                RowKind::Triples => "a preference with the column `reference`",
                RowKind::Ranked => "a preference, or `completions` with `scores`",
                RowKind::Labelled => "a `completion` with a `label`, or a preference",
            };
            let reason = format!("{}, expected {expected} for this loss", other.name());
            return Err(TrainError::Data { row: row.place.to_string(), reason });
        }
    };
    Ok(rows.into_iter().map(|texts| (id(row), texts)).collect())
}

/// TRL's gold answer: the column `reference`, of the kind of the prompt.
fn gold(row: &data::Row, prompt: &Body) -> Result<Body, TrainError> {
    let found = row.metadata.get("reference");
    let body = match (prompt, found) {
        (Body::Text(_), Some(serde_json::Value::String(text))) => Some(Body::Text(text.clone())),
        (Body::Messages(_), Some(serde_json::Value::Array(items))) => {
            let messages = items.iter().map(|item| item.as_object().cloned());
            messages.collect::<Option<Vec<_>>>().map(Body::Messages)
        }
        _ => None,
    };
    body.filter(|body| !body.is_empty()).ok_or_else(|| TrainError::Data {
        row: row.place.to_string(),
        reason: "no gold answer: expected a column `reference` of the kind of the prompt (or \
                 `loss.tpo_alpha: 0`)"
            .into(),
    })
}
