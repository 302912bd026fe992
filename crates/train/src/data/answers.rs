//! Rows of answers to one prompt: pairs, rankings, labelled answers, answers in labelled steps.

use std::collections::BTreeMap;
use std::ops::Range;

use super::hash::fold;
use super::{RowId, Sample, Samples};
use crate::error::Error;

/// What the answers of a row are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// A better and a worse answer.
    Pairs,
    /// The same, and a gold answer behind them.
    Triples,
    /// Any number of answers with scores, or pairs.
    Ranked,
    /// An answer with a label.
    Labelled,
}

/// Rows of one or more texts that answer the same prompt. Of each text the answer is trained, and the
/// prompt is not.
///
/// ```
/// use posttrain_train::data::{Answers, RowId, Sample};
/// let text = |ids: &[u32], prompt| Sample {
///     ids: ids.to_vec(),
///     trained: (0..ids.len()).map(|place| place >= prompt).collect(),
///     row: RowId::index(0),
/// };
/// let mut pairs = Answers::default();
/// pairs.push(&[(text(&[5, 6, 7, 8], 2), vec![]), (text(&[5, 6, 7, 9, 9], 2), vec![])])?;
/// // Both answers begin with the token 7, too.
/// assert_eq!((pairs.len(), pairs.stem(0), pairs.tokens(0)), (1, 3, 6));
/// # Ok::<(), posttrain_train::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Answers {
    texts: Samples,
    /// Where each row ends in `texts`.
    ends: Vec<usize>,
    values: Vec<Vec<f64>>,
    /// Of rows whose prompt cannot be told from the tokens a hash of it.
    asked: BTreeMap<usize, u64>,
    /// By text the tokens that truncation took from it.
    lost: BTreeMap<usize, Vec<u32>>,
}

impl Answers {
    /// Appends a row: its texts, each with what the data says of it. That is the margin, if there is
    /// one, of the better answer of a pair; 1 or 0 of a labelled answer; the score of an answer of a
    /// ranking; the labels of the steps of an answer in steps, whose marks are the trained tokens.
    ///
    /// # Errors
    /// [`Error::Data`] for a row without texts, and those of [`Samples::push`].
    pub fn push(&mut self, texts: &[(Sample, Vec<f64>)]) -> Result<(), Error> {
        if texts.is_empty() {
            let (row, reason) = ("a row of answers".into(), "it has none".into());
            return Err(Error::Data { row, reason });
        }
        for (sample, values) in texts {
            self.texts.push(sample)?;
            self.values.push(values.clone());
        }
        self.ends.push(self.texts.len());
        Ok(())
    }

    /// Remembers what the last row asks: of an answer in steps also the steps are not trained.
    pub(crate) fn asks(&mut self, hash: u64) {
        self.asked.insert(self.ends.len() - 1, hash);
    }

    /// Remembers what truncation took from a text: KTO pairs prompts and answers anew.
    pub(super) fn truncated(&mut self, text: usize, lost: Vec<u32>) {
        self.lost.insert(text, lost);
    }

    /// What truncation took from a text.
    pub(super) fn lost(&self, text: usize) -> &[u32] {
        self.lost.get(&text).map_or(&[], Vec::as_slice)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The texts of all rows, row after row.
    pub fn texts(&self) -> &Samples {
        &self.texts
    }

    /// Which of the texts are those of a row.
    pub fn row(&self, row: usize) -> Range<usize> {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[row]
    }

    /// Where a row comes from.
    pub fn id(&self, row: usize) -> RowId {
        self.texts.row(self.row(row).start)
    }

    /// What the data says of a text.
    pub fn values(&self, text: usize) -> &[f64] {
        &self.values[text]
    }

    /// For each text of a row whether it is better than others: the first of a pair, the best of a
    /// ranking, a good one.
    pub fn better(&self, row: usize, kind: RowKind) -> Vec<bool> {
        let texts = self.row(row);
        let value = |text: usize| self.values[text].first().copied().unwrap_or(0.0);
        match kind {
            RowKind::Labelled => texts.map(|text| value(text) > 0.5).collect(),
            RowKind::Ranked if texts.clone().all(|text| !self.values[text].is_empty()) => {
                let best = texts.clone().map(value).fold(f64::NEG_INFINITY, f64::max);
                texts.map(|text| value(text) == best).collect()
            }
            _ => texts.clone().map(|text| text == texts.start).collect(),
        }
    }

    /// That every row is of a kind.
    ///
    /// # Errors
    /// [`Error::Data`] for the first that is not.
    pub(crate) fn check(&self, kind: RowKind) -> Result<(), Error> {
        for row in 0..self.len() {
            let texts = self.row(row);
            let scored = texts.clone().filter(|&text| self.values[text].len() == 1).count();
            let unscored = texts.clone().filter(|&text| self.values[text].is_empty()).count();
            let first = self.values[texts.start].len();
            let (fits, expected) = match (kind, texts.len()) {
                (RowKind::Pairs, count) => {
                    (count == 2 && unscored + first == 2, "two, and a margin at the first or none")
                }
                (RowKind::Triples, count) => (count == 3 && unscored == 3, "three without values"),
                (RowKind::Ranked, count) => (
                    count >= 2 && [scored, unscored].contains(&count),
                    "two or more, all with a score or all without",
                ),
                (RowKind::Labelled, count) => (count == 1 && scored == 1, "one with its label"),
            };
            if !fits {
                let values: Vec<usize> = texts.map(|text| self.values[text].len()).collect();
                let reason = format!(
                    "{} answers with {values:?} values, expected {expected} for this loss",
                    values.len()
                );
                return Err(Error::Data { row: self.id(row).to_string(), reason });
            }
        }
        Ok(())
    }

    /// How many tokens all texts of a row begin with; none where it has one text.
    pub fn stem(&self, row: usize) -> usize {
        let texts = self.row(row);
        let first = self.texts.ids(texts.start);
        let common = |text| {
            let pairs = first.iter().zip(self.texts.ids(text));
            pairs.take_while(|(a, b)| a == b).count()
        };
        texts.skip(1).map(common).min().unwrap_or(0)
    }

    /// Tokens of a row, those of its stem once.
    pub fn tokens(&self, row: usize) -> usize {
        let (texts, stem) = (self.row(row), self.stem(row));
        stem + texts.map(|text| self.texts.length(text) - stem).sum::<usize>()
    }

    /// The tokens of a text before the first that is trained.
    pub fn prompt(&self, text: usize) -> &[u32] {
        let ids = self.texts.ids(text);
        let trained = self.texts.trained(text).position(|trained| trained);
        &ids[..trained.unwrap_or(ids.len())]
    }

    /// The given rows, in the given order.
    #[must_use]
    pub fn select(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        let mut chosen = Self::default();
        let mut texts = Vec::new();
        for row in rows {
            if let Some(&hash) = self.asked.get(&row) {
                chosen.asked.insert(chosen.ends.len(), hash);
            }
            for text in self.row(row) {
                if let Some(lost) = self.lost.get(&text) {
                    chosen.lost.insert(texts.len(), lost.clone());
                }
                texts.push(text);
                chosen.values.push(self.values[text].clone());
            }
            chosen.ends.push(texts.len());
        }
        chosen.texts = self.texts.select(texts);
        chosen
    }

    /// A hash of the prompt of each row.
    pub(super) fn prompt_hashes(&self) -> Vec<u64> {
        let hash = |row| {
            let prompt = self.prompt(self.row(row).start).iter().map(|&id| u64::from(id));
            let told = || fold(prompt.len() as u64, prompt.clone());
            self.asked.get(&row).copied().unwrap_or_else(told)
        };
        (0..self.len()).map(hash).collect()
    }

    /// A hash of each row: all that training sees of its texts.
    pub(super) fn hashes(&self) -> Vec<u64> {
        let texts = self.texts.hashes();
        let hash = |row: usize| {
            let each = self.row(row).flat_map(|text| {
                let values = self.values[text].iter().map(|value| value.to_bits());
                std::iter::once(texts[text]).chain(values)
            });
            fold(self.row(row).len() as u64, each)
        };
        (0..self.len()).map(hash).collect()
    }

    /// A hash of everything that training sees of the rows, in their order; as
    /// [`Samples::fingerprint`].
    pub fn fingerprint(&self) -> u64 {
        fold(self.texts.fingerprint(), self.hashes())
    }
}
