//! What batches are made of: texts, alone or several in a sequence, or answers to one prompt.

use posttrain_model::{Batch, Branches, Targets};

use super::pack::Sequences;
use super::{Answers, BatchOptions, MicroBatch, Samples};
use crate::error::Error;

#[derive(Clone, Debug)]
pub(super) enum Source {
    Texts { samples: Samples, sequences: Sequences },
    Answers { rows: Answers, order: Vec<u32>, shared: bool },
}

impl Source {
    /// Number of sequences: texts, packed ones, or rows of answers.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Texts { sequences, .. } => sequences.len(),
            Self::Answers { order, .. } => order.len(),
        }
    }

    /// Tokens of a sequence.
    pub(super) fn length(&self, index: usize) -> usize {
        match self {
            Self::Texts { sequences, .. } => sequences.length(index),
            Self::Answers { rows, order, .. } => rows.tokens(order[index] as usize),
        }
    }

    pub(super) fn samples(&self) -> &Samples {
        match self {
            Self::Texts { samples, .. } => samples,
            Self::Answers { rows, .. } => rows.texts(),
        }
    }

    /// Whether sequences of a pass are filled up to the longest.
    pub(super) fn pads(&self) -> bool {
        matches!(self, Self::Texts { .. })
    }

    pub(super) fn micro_batch(
        &self,
        sequences: &[u32],
        options: &BatchOptions,
    ) -> Result<MicroBatch, Error> {
        match self {
            Self::Texts { samples, sequences: all } => texts(samples, all, sequences, options),
            Self::Answers { rows, order, shared } => {
                let rows_of_pass: Vec<usize> =
                    sequences.iter().map(|&index| order[index as usize] as usize).collect();
                answers(rows, &rows_of_pass, *shared)
            }
        }
    }
}

#[derive(Default)]
struct Text {
    ids: Vec<u32>,
    trained: Vec<bool>,
}

fn texts(
    samples: &Samples,
    all: &Sequences,
    sequences: &[u32],
    options: &BatchOptions,
) -> Result<MicroBatch, Error> {
    let (mut texts, mut rows): (Vec<Vec<Text>>, _) = (Vec::new(), Vec::new());
    for &sequence in sequences {
        let mut row = Vec::new();
        for piece in all.pieces(sequence as usize) {
            let sample = piece.sample as usize;
            let range = piece.start as usize..(piece.start + piece.length) as usize;
            if row.is_empty() || !all.joined {
                row.push(Text::default());
                rows.push(Vec::new());
            }
            if let (Some(text), Some(rows)) = (row.last_mut(), rows.last_mut()) {
                text.ids.extend_from_slice(&samples.ids(sample)[range.clone()]);
                let trained = samples.trained(sample).skip(range.start).take(range.len());
                text.trained.extend(trained);
                rows.push(samples.row(sample));
            }
        }
        texts.push(row);
    }
    if options.padding_free {
        texts = vec![texts.into_iter().flatten().collect()];
    }
    let ids: Vec<Vec<&[u32]>> =
        texts.iter().map(|row| row.iter().map(|text| &text.ids[..]).collect()).collect();
    let ids: Vec<&[&[u32]]> = ids.iter().map(|row| &row[..]).collect();
    let batch = Batch::packed(&ids, options.pad_token_id)?;
    let mut mask = Vec::with_capacity(batch.ids().len());
    for (index, row) in texts.iter().enumerate() {
        for text in row {
            mask.extend_from_slice(&text.trained);
        }
        mask.resize((index + 1) * batch.time(), false);
    }
    let targets = Targets::masked(&batch, &mask)?;
    Ok(MicroBatch { batch, targets, rows, samples: vec![], values: vec![], lost: vec![] })
}

/// The texts of some rows, each with its row's stem where that may be shared.
fn answers(all: &Answers, rows: &[usize], shared: bool) -> Result<MicroBatch, Error> {
    let samples: Vec<usize> = rows.iter().flat_map(|&row| all.row(row)).collect();
    let branches: Vec<(&[u32], Vec<&[u32]>)> = rows
        .iter()
        .map(|&row| {
            let stem = if shared { all.stem(row) } else { 0 };
            let texts = all.row(row).map(|text| all.texts().ids(text));
            let first = all.texts().ids(all.row(row).start);
            (&first[..stem], texts.map(|ids| &ids[stem..]).collect())
        })
        .collect();
    let branches: Vec<Branches<'_>> =
        branches.iter().map(|(stem, branches)| (*stem, &branches[..])).collect();
    let batch = Batch::branched(&branches)?;
    let masks: Vec<Vec<bool>> =
        samples.iter().map(|&text| all.texts().trained(text).collect()).collect();
    let targets = Targets::of_texts(&batch, |text, place| masks[text][place]);
    Ok(MicroBatch {
        batch,
        targets,
        rows: samples.iter().map(|&text| vec![all.texts().row(text)]).collect(),
        values: samples.iter().map(|&text| all.values(text).to_vec()).collect(),
        lost: samples.iter().map(|&text| all.lost(text).to_vec()).collect(),
        samples,
    })
}
