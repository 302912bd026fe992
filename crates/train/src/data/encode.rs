//! Many rows to token ids, on all cores, in their order.

use posttrain_chat::{Chat, ChatTokenizer};
use rayon::prelude::*;

use super::counts::{Counted, RowCounts};
use super::tokenize::{Cut, Encoder, Refused, Tokens};
use super::{AnswerRow, Answers, BadRows, Reason, Row, RowId, RowOptions, Sample, Samples};
use crate::error::Error;

/// Rows that are encoded before the next are read.
const CHUNK: usize = 2048;

/// Encodes rows. The result does not depend on the number of threads.
///
/// `progress` hears after every few thousand rows how many are done.
///
/// ```
/// use std::path::Path;
/// use posttrain_chat::ChatTokenizer;
/// use posttrain_core::Conversation;
/// use posttrain_train::data::{Row, RowId, RowOptions, encode};
///
/// # fn run(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
/// let tokenizer = ChatTokenizer::from_model(folder)?;
/// let row = Row::<Conversation>::Completion { prompt: "6 times 7 is".into(), completion: " 42".into() };
/// let rows = [Ok((RowId::new("rows.jsonl", 1), row))];
/// let (samples, counts) = encode(rows, &tokenizer, &RowOptions::default(), &mut |_| {})?;
/// assert_eq!((samples.len(), counts.truncated.rows), (1, 0));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The first error among the rows; [`Error::Data`] for the first row that cannot be trained on,
/// unless they are dropped, and when all are; [`Error::Config`] for an end token that the tokenizer
/// does not have.
pub fn encode<C: Chat + Send + Sync>(
    rows: impl IntoIterator<Item = Result<(RowId, Row<C>), Error>>,
    tokenizer: &ChatTokenizer,
    options: &RowOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<(Samples, RowCounts), Error> {
    let encoder = Encoder::new(tokenizer, options)?;
    let mut samples = Samples::default();
    let work = |row: &Row<C>| encoder.encode(row);
    let counts = each_row(rows, work, options.bad_rows, progress, |row, tokens, counts| {
        samples.push(&counted(row, tokens, counts).0)
    })?;
    if samples.is_empty() {
        return Err(nothing_left(&counts));
    }
    Ok((samples, counts))
}

/// Encodes rows of answers, each with what the data says of its texts (see [`Answers::push`]). A row
/// is refused with any of its texts, and where two of them are the same tokens.
///
/// # Errors
/// Those of [`encode`].
pub fn encode_answers<C: Chat + Send + Sync>(
    rows: impl IntoIterator<Item = Result<(RowId, AnswerRow<C>), Error>>,
    tokenizer: &ChatTokenizer,
    options: &RowOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<(Answers, RowCounts), Error> {
    let encoder = Encoder::new(tokenizer, options)?;
    let mut answers = Answers::default();
    let work = |row: &AnswerRow<C>| {
        let texts = row.iter().map(|(text, values)| Ok((encoder.encode(text)?, values.clone())));
        let mut texts: Vec<(Tokens, Vec<f64>)> = texts.collect::<Result<_, _>>()?;
        begin_together(&mut texts);
        let twins = |i: usize| texts[..i].iter().any(|(text, _)| text.ids == texts[i].0.ids);
        if (1..texts.len()).any(twins) {
            let (detail, cut) = ("two of its answers are the same tokens", " after truncation");
            let cut = if texts.iter().any(|(text, _)| text.cut.is_some()) { cut } else { "" };
            return Err(Refused::new(Reason::SameAnswers, format!("{detail}{cut}")));
        }
        Ok(texts)
    };
    let counts = each_row(rows, work, options.bad_rows, progress, |row, texts, counts| {
        let (mut kept, first) = (Vec::new(), answers.texts().len());
        let mut lost = Vec::new();
        let (cut_before, stops_before) = (counts.truncated.rows, counts.stop_trained);
        for (index, (tokens, values)) in texts.into_iter().enumerate() {
            let (sample, cut) = counted(row.clone(), tokens, counts);
            kept.push((sample, values));
            lost.extend(cut.map(|cut| (first + index, cut.tokens)));
        }
        // A row is counted once, however many of its texts it is counted for.
        counts.truncated.rows = counts.truncated.rows.min(cut_before + 1);
        counts.stop_trained = counts.stop_trained.min(stops_before + 1);
        answers.push(&kept)?;
        for (text, tokens) in lost {
            answers.truncated(text, tokens);
        }
        Ok(())
    })?;
    if answers.is_empty() {
        return Err(nothing_left(&counts));
    }
    Ok((answers, counts))
}

/// Lets all answers of a row begin where the first of them begins, as TRL does: where tokens merge over
/// the end of the prompt, prompts may be of several lengths.
fn begin_together(texts: &mut [(Tokens, Vec<f64>)]) {
    let start = |tokens: &Tokens| tokens.trained.iter().position(|&trained| trained);
    let Some(first) = texts.iter().filter_map(|(tokens, _)| start(tokens)).min() else { return };
    let same_start = |tokens: &Tokens| tokens.cut.as_ref().is_none_or(|cut| cut.at_end);
    if texts.iter().all(|(tokens, _)| same_start(tokens)) {
        for (tokens, _) in texts {
            let end = start(tokens).unwrap_or(first);
            tokens.trained[first..end].fill(true);
        }
    }
}

/// Works on rows on all cores and keeps the results in their order.
pub(crate) fn each_row<R: Send + Sync, T: Send>(
    rows: impl IntoIterator<Item = Result<(RowId, R), Error>>,
    work: impl Fn(&R) -> Result<T, Refused> + Sync,
    bad_rows: BadRows,
    progress: &mut dyn FnMut(u64),
    mut keep: impl FnMut(RowId, T, &mut RowCounts) -> Result<(), Error>,
) -> Result<RowCounts, Error> {
    let mut counts = RowCounts::default();
    let mut rows = rows.into_iter();
    loop {
        // What was read before an error is encoded, so that the first fault of all is told.
        let mut fault = None;
        let mut chunk = Vec::with_capacity(CHUNK);
        for row in rows.by_ref().take(CHUNK) {
            match row {
                Ok(row) => chunk.push(row),
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            }
        }
        if chunk.is_empty() && fault.is_none() {
            return Ok(counts);
        }
        let done: Vec<_> = chunk.into_par_iter().map(|(id, row)| (id, work(&row))).collect();
        for (row, result) in done {
            counts.read += 1;
            match result {
                Ok(found) => keep(row, found, &mut counts)?,
                Err(refused) => refuse(&row, refused, bad_rows, &mut counts)?,
            }
        }
        progress(counts.read);
        if let Some(error) = fault {
            return Err(error);
        }
    }
}

/// A text of a row and what it lost, with what is to be counted of it.
fn counted(row: RowId, tokens: Tokens, counts: &mut RowCounts) -> (Sample, Option<Cut>) {
    let Tokens { ids, trained, notes, cut, stops } = tokens;
    for note in notes {
        counts.warnings.entry(note.kind).or_default().add(&row, || note.detail);
    }
    if let Some(cut) = &cut {
        let truncated = &mut counts.truncated;
        truncated.rows += 1;
        truncated.tokens += cut.tokens.len() as u64;
        truncated.trained_tokens += cut.trained as u64;
        truncated.ends_lost += u64::from(cut.end_lost);
        if truncated.examples.len() < Counted::EXAMPLES {
            truncated.examples.push(row.clone());
        }
    }
    counts.stop_trained += u64::from(stops);
    (Sample { ids, trained, row }, cut)
}

fn refuse(
    row: &RowId,
    refused: Refused,
    bad_rows: BadRows,
    counts: &mut RowCounts,
) -> Result<(), Error> {
    let Refused { reason, detail } = refused;
    match bad_rows {
        BadRows::Error => {
            let reason = format!("{reason}: {detail}");
            Err(Error::Data { row: row.to_string(), reason })
        }
        BadRows::Drop => {
            counts.dropped.entry(reason).or_default().add(row, || detail);
            Ok(())
        }
    }
}

pub(crate) fn nothing_left(counts: &RowCounts) -> Error {
    let why = counts.dropped.iter().map(|(reason, counted)| {
        let first = counted.examples.first();
        let first = first.map_or(String::new(), |e| format!(" ({}: {})", e.row, e.detail));
        format!("{} {reason}{first}", counted.rows)
    });
    let why: Vec<String> = why.collect();
    let reason = match counts.read {
        0 => "there are none".into(),
        read => format!("all {read} were dropped: {}", why.join("; ")),
    };
    Error::Data { row: "the training rows".into(), reason }
}
