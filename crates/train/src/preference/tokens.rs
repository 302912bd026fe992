//! Between the log-probabilities of tokens, which models know, and answers, which losses know.

use std::ops::Range;

use posttrain_chat::Truncation;
use posttrain_model::{Batch, Branches, Decoder, Targets};

use super::{Answer, AnswerGradient};
use crate::data::MicroBatch;
use crate::error::Error;

/// Log-probabilities of targets, without a gradient.
pub(super) fn logprobs(model: &Decoder, batch: &Batch, targets: &Targets) -> Vec<f32> {
    model.scored(model.forward(batch), targets, false).logprobs
}

/// For each text of a batch its targets among all.
fn ranges(batch: &Batch, targets: &Targets) -> Vec<Range<usize>> {
    let mut counts = vec![0; batch.texts().iter().map(Vec::len).sum()];
    for &text in targets.texts() {
        counts[text] += 1;
    }
    let mut end = 0;
    let range = |count| {
        end += count;
        end - count..end
    };
    counts.into_iter().map(range).collect()
}

/// For each text the length of the shortest answer of its row.
fn shared(batch: &Batch, ranges: &[Range<usize>]) -> Vec<usize> {
    let (mut all, mut start) = (Vec::with_capacity(ranges.len()), 0);
    for row in batch.texts() {
        let texts = &ranges[start..start + row.len()];
        let shortest = texts.iter().map(Range::len).min().unwrap_or(0);
        all.extend(std::iter::repeat_n(shortest, row.len()));
        start += row.len();
    }
    all
}

/// The answers of a batch, given the log-probabilities of its targets and, where a loss wants them, the
/// logarithms of their sums of squares.
pub(super) fn answers(
    batch: &Batch,
    targets: &Targets,
    logprobs: &[f32],
    log_sum_sq: Option<&[f32]>,
) -> Vec<Answer> {
    let ranges = ranges(batch, targets);
    let shared = shared(batch, &ranges);
    let answer = |(range, shared): (&Range<usize>, usize)| {
        let squares = log_sum_sq.map_or(&[][..], |all| &all[range.clone()]);
        let log_sum_sq = squares.iter().copied().map(f64::from).sum();
        Answer { log_sum_sq, ..Answer::of(&logprobs[range.clone()], shared) }
    };
    ranges.iter().zip(shared).map(answer).collect()
}

/// For each text how many of its targets had the highest probability.
pub(super) fn top1(batch: &Batch, targets: &Targets, flags: &[bool]) -> Vec<usize> {
    let ranges = ranges(batch, targets).into_iter();
    ranges.map(|range| flags[range].iter().filter(|&&top1| top1).count()).collect()
}

/// The gradient by each target, given the one by each answer; all times `share`.
pub(super) fn by_target(
    batch: &Batch,
    targets: &Targets,
    gradient: &[AnswerGradient],
    share: f64,
) -> Vec<f32> {
    let ranges = ranges(batch, targets);
    let shared = shared(batch, &ranges);
    let each = ranges.iter().zip(shared).zip(gradient);
    each.flat_map(|((range, shared), by)| by.by_token(range.len(), shared))
        .map(|slope| (share * slope) as f32)
        .collect()
}

/// The tokens of the prompt of the first text of each row.
pub(super) fn prompts(batch: &Batch, targets: &Targets) -> Targets {
    let (first, starts) = (first_of_rows(batch), answer_starts(batch, targets));
    Targets::of_texts(batch, |text, place| first[text] && place < starts[text])
}

/// Whether a text is the first of its row.
fn first_of_rows(batch: &Batch) -> Vec<bool> {
    batch.texts().iter().flat_map(|row| (0..row.len()).map(|index| index == 0)).collect()
}

/// The place in each text where its answer begins.
fn answer_starts(batch: &Batch, targets: &Targets) -> Vec<usize> {
    let lengths = batch.texts().iter().flatten();
    lengths.zip(ranges(batch, targets)).map(|(length, range)| length - range.len()).collect()
}

/// The prompt of each text with the answer of the one before it, and of the first with that of the last:
/// TRL's pairs for KTO's reference point. Answers to the same prompt are passed over while there are
/// others, which TRL leaves to the order of the rows. They are truncated as rows are.
pub(super) fn mismatched(
    MicroBatch { batch, targets, lost, .. }: &MicroBatch,
    max_length: usize,
    truncation: Truncation,
) -> Result<(Batch, Targets), Error> {
    let starts = answer_starts(batch, targets);
    let places = batch.places().into_iter().enumerate();
    let whole: Vec<(Vec<u32>, Vec<u32>)> = places
        .map(|(text, places)| {
            let mut prompt: Vec<u32> =
                places.into_iter().flatten().map(|place| batch.ids()[place]).collect();
            let mut answer = prompt.split_off(starts[text]);
            let lost = lost.get(text).map_or(&[][..], Vec::as_slice);
            match truncation {
                Truncation::KeepStart => answer.extend_from_slice(lost),
                Truncation::KeepEnd => prompt = [lost, &prompt[..]].concat(),
            }
            (prompt, answer)
        })
        .collect();
    let (mut rows, mut starts) = (Vec::with_capacity(whole.len()), Vec::new());
    for (index, (prompt, _)) in whole.iter().enumerate() {
        let before = |steps: usize| &whole[(index + whole.len() - steps) % whole.len()];
        let another = (1..whole.len()).map(before).find(|(other, _)| other != prompt);
        let (_, answer) = another.unwrap_or_else(|| before(1));
        let mut ids = [&prompt[..], &answer[..]].concat();
        let over = ids.len().saturating_sub(max_length);
        let mut start = prompt.len();
        match truncation {
            Truncation::KeepStart => ids.truncate(max_length),
            Truncation::KeepEnd => {
                ids.drain(..over);
                start = start.saturating_sub(over);
            }
        }
        rows.push(ids);
        starts.push(start);
    }
    let texts: Vec<[&[u32]; 1]> = rows.iter().map(|ids| [&ids[..]]).collect();
    let texts: Vec<Branches<'_>> = texts.iter().map(|text| (&[][..], &text[..])).collect();
    let batch = Batch::branched(&texts)?;
    let targets = Targets::of_texts(&batch, |text, place| place >= starts[text]);
    Ok((batch, targets))
}
