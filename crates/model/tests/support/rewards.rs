//! The folders of `tests/fixtures/reward`.

use std::path::{Path, PathBuf};

use posttrain_model::{Batch, Decoder};
use serde::Deserialize;

use super::{Expected, device};

/// The folder of a case.
pub(crate) fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/reward").join(case)
}

pub(crate) fn load(case: &str) -> Decoder {
    Decoder::load(folder(case), &device()).unwrap()
}

/// A padded batch, and what the reference says of it.
pub(crate) struct Case {
    pub(crate) batch: Batch,
    pub(crate) expected: Expected,
    ids: Vec<Vec<u32>>,
}

impl Case {
    pub(crate) fn open(case: &str) -> Self {
        let expected = Expected::read(&folder(case).join("expected.safetensors"));
        let ((ids, shape), (lengths, _)) = (expected.ids("ids"), expected.ids("lengths"));
        let rows = ids.chunks(shape[1]).zip(&lengths);
        let ids: Vec<Vec<u32>> = rows.map(|(row, &n)| row[..n as usize].to_vec()).collect();
        let rows: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        Self { batch: Batch::padded(&rows, 2).unwrap(), expected, ids }
    }

    /// The places that the head reads: the last token of each text, or every token.
    pub(crate) fn places(&self, model: &Decoder, last: bool) -> Vec<usize> {
        let time = self.batch.time();
        let rows = self.ids.iter().enumerate();
        rows.flat_map(|(row, ids)| {
            let from = if last { model.config().pooled(ids) } else { 0 };
            (from..ids.len()).map(move |place| row * time + place)
        })
        .collect()
    }

    /// The scores of the reference at these places.
    pub(crate) fn scores(&self, places: &[usize], last: bool) -> Vec<f32> {
        let (scores, shape) = self.expected.floats("scores");
        if last {
            return scores;
        }
        let labels = shape[2];
        places.iter().flat_map(|place| scores[place * labels..][..labels].to_vec()).collect()
    }
}

/// What a process reward model says of a solution.
#[derive(Debug, Deserialize)]
pub(crate) struct Reading {
    pub(crate) prompt: String,
    pub(crate) steps: Vec<String>,
    pub(crate) ids: Vec<u32>,
    pub(crate) places: Vec<usize>,
    pub(crate) scores: Vec<f64>,
}

pub(crate) fn readings(case: &str, file: &str) -> Vec<Reading> {
    serde_json::from_slice(&std::fs::read(folder(case).join(file)).unwrap()).unwrap()
}
