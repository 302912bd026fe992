//! Rows as token ids, for millions of them: all ids in one list, the masks as bits.

use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Serialize, Serializer};

use super::bits::Bits;
use super::hash::{fold, mix};
use crate::error::Error;

/// Where a row comes from.
///
/// ```
/// use posttrain_train::data::RowId;
/// assert_eq!(RowId::new("rows.jsonl", 17).to_string(), "rows.jsonl:17");
/// assert_eq!(RowId::index(3).to_string(), "row 3");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    /// The file; empty for rows that are in none.
    pub source: Arc<str>,
    /// Its line, from 1 on, or its number among rows that are in no file, from 0 on.
    pub line: u64,
}

impl RowId {
    /// A row of a file. Rows of one file should share the name: clones of one `Arc`.
    pub fn new(source: impl Into<Arc<str>>, line: u64) -> Self {
        Self { source: source.into(), line }
    }

    /// A row that is in no file.
    pub fn index(index: u64) -> Self {
        Self::new("", index)
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.source {
            "" => write!(f, "row {}", self.line),
            source => write!(f, "{source}:{}", self.line),
        }
    }
}

/// As it is displayed.
impl Serialize for RowId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A row as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The token ids.
    pub ids: Vec<u32>,
    /// For every token whether it is trained, that is predicted from those before it. The first
    /// token of a text has nothing before it, so there it only counts where texts are joined
    /// ([`Packing::Wrapped`](super::Packing::Wrapped)).
    pub trained: Vec<bool>,
    /// Where it comes from.
    pub row: RowId,
}

/// Many rows as token ids.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    ids: Vec<u32>,
    trained: Bits,
    /// Where each row ends in `ids`.
    ends: Vec<usize>,
    sources: Vec<Arc<str>>,
    /// For each row its source and line.
    rows: Vec<(u32, u64)>,
}

impl Samples {
    /// Appends a row.
    ///
    /// # Errors
    /// [`Error::Data`] for a row without tokens, and for a mask of another length than the ids.
    pub fn push(&mut self, sample: &Sample) -> Result<(), Error> {
        let fault = |reason| Error::Data { row: sample.row.to_string(), reason };
        let (tokens, masked) = (sample.ids.len(), sample.trained.len());
        if tokens == 0 {
            return Err(fault("the row has no tokens, expected at least one".into()));
        }
        if tokens != masked {
            return Err(fault(format!("{masked} flags of the mask for {tokens} token ids")));
        }
        self.ids.extend_from_slice(&sample.ids);
        for &trained in &sample.trained {
            self.trained.push(trained);
        }
        self.ends.push(self.ids.len());
        let source = self.source(&sample.row.source);
        self.rows.push((source, sample.row.line));
        Ok(())
    }

    fn source(&mut self, name: &Arc<str>) -> u32 {
        // Rows come file by file, so the last one is nearly always it.
        let known = self.sources.iter().rposition(|known| known == name);
        known.unwrap_or_else(|| {
            self.sources.push(Arc::clone(name));
            self.sources.len() - 1
        }) as u32
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[index]
    }

    /// The token ids of a row.
    pub fn ids(&self, index: usize) -> &[u32] {
        &self.ids[self.range(index)]
    }

    /// Number of tokens of a row.
    pub fn length(&self, index: usize) -> usize {
        self.range(index).len()
    }

    /// For every token of a row whether it is trained.
    pub fn trained(&self, index: usize) -> impl ExactSizeIterator<Item = bool> + '_ {
        self.range(index).map(|place| self.trained.get(place))
    }

    /// How many tokens of a part of a row are trained.
    pub(super) fn trained_in(&self, index: usize, start: usize, length: usize) -> usize {
        let from = self.range(index).start + start;
        self.trained.count(from..from + length)
    }

    /// Number of trained tokens that have a token before them.
    pub fn targets(&self, index: usize) -> usize {
        self.trained_in(index, 1, self.length(index) - 1)
    }

    /// Where a row comes from.
    pub fn row(&self, index: usize) -> RowId {
        let (source, line) = self.rows[index];
        RowId { source: Arc::clone(&self.sources[source as usize]), line }
    }

    /// A copy of one row.
    pub fn sample(&self, index: usize) -> Sample {
        let (ids, trained) = (self.ids(index).to_vec(), self.trained(index).collect());
        Sample { ids, trained, row: self.row(index) }
    }

    /// Number of tokens of all rows.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of trained tokens of all rows that have a token before them in their row.
    pub fn trained_tokens(&self) -> usize {
        (0..self.len()).map(|index| self.targets(index)).sum()
    }

    /// Checks that a model of this vocabulary knows every token.
    ///
    /// # Errors
    /// [`Error::Data`] with the first row that has another token.
    pub fn check_vocabulary(&self, vocab_size: usize) -> Result<(), Error> {
        let unknown = |&&id: &&u32| id as usize >= vocab_size;
        let Some(place) = self.ids.iter().position(|id| unknown(&id)) else { return Ok(()) };
        let row = self.ends.partition_point(|&end| end <= place);
        Err(Error::Data {
            row: self.row(row).to_string(),
            reason: format!(
                "token id {}, expected below the model's vocab_size, {vocab_size}: is this the \
                 model's tokenizer?",
                self.ids[place]
            ),
        })
    }

    /// The given rows, in the given order.
    #[must_use]
    pub fn select(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        let mut chosen = Self { sources: self.sources.clone(), ..Self::default() };
        for index in rows {
            chosen.ids.extend_from_slice(self.ids(index));
            for trained in self.trained(index) {
                chosen.trained.push(trained);
            }
            chosen.ends.push(chosen.ids.len());
            chosen.rows.push(self.rows[index]);
        }
        chosen
    }

    /// A hash of the ids of each row. Rows with the same ids are the same text, whatever of it is
    /// trained.
    pub(super) fn hashes(&self) -> Vec<u64> {
        let pair = |ids: &[u32]| u64::from(ids[0]) | u64::from(*ids.get(1).unwrap_or(&0)) << 32;
        let hash = |index| {
            let ids = self.ids(index);
            fold(ids.len() as u64, ids.chunks(2).map(pair))
        };
        (0..self.len()).into_par_iter().map(hash).collect()
    }

    /// A hash of everything that training sees of the rows: ids and masks, in their order. The
    /// same on every machine and for any number of threads.
    pub fn fingerprint(&self) -> u64 {
        let mask = |index| {
            let range = self.range(index);
            let starts = range.clone().step_by(64);
            fold(1, starts.map(|start| self.trained.word(start..range.end.min(start + 64))))
        };
        let masks: Vec<u64> = (0..self.len()).into_par_iter().map(mask).collect();
        fold(2, self.hashes().into_iter().zip(masks).map(|(ids, mask)| ids ^ mix(mask)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ids: &[u32], trained: &[u8], row: RowId) -> Sample {
        Sample { ids: ids.into(), trained: trained.iter().map(|&t| t == 1).collect(), row }
    }

    #[test]
    fn rows_come_back_as_they_went_in() {
        let rows = [
            sample(&[5, 6, 7], &[1, 0, 1], RowId::new("a.jsonl", 1)),
            sample(&[8], &[1], RowId::new("b.jsonl", 1)),
            sample(&[5, 6, 7], &[0, 1, 1], RowId::new("a.jsonl", 2)),
        ];
        let mut samples = Samples::default();
        for row in &rows {
            samples.push(row).unwrap();
        }
        assert_eq!((0..3).map(|i| samples.sample(i)).collect::<Vec<_>>(), rows);
        assert_eq!((samples.len(), samples.tokens(), samples.sources.len()), (3, 7, 2));
        assert_eq!((0..3).map(|i| samples.targets(i)).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(samples.trained_tokens(), 3);
        samples.check_vocabulary(9).unwrap();
        let unknown = samples.check_vocabulary(8).unwrap_err().to_string();
        assert!(unknown.starts_with("b.jsonl:1: token id 8, expected below"), "{unknown}");
        let turned = samples.select([2, 0]);
        assert_eq!((turned.sample(0), turned.sample(1)), (rows[2].clone(), rows[0].clone()));
    }

    #[test]
    fn the_fingerprint_sees_ids_masks_bounds_and_order() {
        let of = |rows: &[(&[u32], &[u8])]| {
            let mut samples = Samples::default();
            for (ids, trained) in rows {
                samples.push(&sample(ids, trained, RowId::index(0))).unwrap();
            }
            samples.fingerprint()
        };
        let base = of(&[(&[1, 2], &[0, 1]), (&[3], &[1])]);
        assert_eq!(base, of(&[(&[1, 2], &[0, 1]), (&[3], &[1])]));
        assert_ne!(base, of(&[(&[1, 2], &[1, 1]), (&[3], &[1])]));
        assert_ne!(base, of(&[(&[1, 2, 3], &[0, 1, 1])]));
        assert_ne!(base, of(&[(&[3], &[1]), (&[1, 2], &[0, 1])]));
    }

    #[test]
    fn a_row_without_tokens_or_with_another_mask_is_an_error() {
        let mut samples = Samples::default();
        let empty = samples.push(&sample(&[], &[], RowId::new("a.jsonl", 9))).unwrap_err();
        assert_eq!(empty.to_string(), "a.jsonl:9: the row has no tokens, expected at least one");
        let short = samples.push(&sample(&[1, 2], &[1], RowId::index(4))).unwrap_err();
        assert_eq!(short.to_string(), "row 4: 1 flags of the mask for 2 token ids");
        assert!(samples.is_empty());
    }
}
