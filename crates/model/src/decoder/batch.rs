//! Rows of token ids for one forward pass.

use std::ops::Range;

use super::places::Layout;
use crate::error::Error;

/// Token ids `[batch, time]`: texts padded on the right, several texts in a row that do not see each
/// other and whose positions start anew (packing), or texts that begin alike and share what they
/// have in common.
///
/// ```
/// use posttrain_model::Batch;
/// let padded = Batch::padded(&[&[5, 6, 7], &[8]], 0)?;
/// assert_eq!(padded.ids(), [5, 6, 7, 8, 0, 0]);
/// let packed = Batch::packed(&[&[&[5, 6, 7], &[8, 9]], &[&[4]]], 0)?;
/// assert_eq!((packed.ids(), packed.time()), (&[5, 6, 7, 8, 9, 4, 0, 0, 0, 0][..], 5));
/// // The texts 5 6 7 and 5 6 8 9: what both begin with is computed once.
/// let branched = Batch::branched(&[(&[5, 6], &[&[7], &[8, 9]])])?;
/// assert_eq!((branched.ids(), branched.texts()), (&[5, 6, 7, 8, 9][..], &[vec![3, 4]][..]));
/// # Ok::<(), posttrain_model::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    ids: Vec<u32>,
    rows: usize,
    time: usize,
    /// For each row, or each stem, the lengths of its texts, in order.
    texts: Vec<Vec<usize>>,
    /// For each list of `texts` the length of what they have in common.
    stems: Option<Vec<usize>>,
}

/// A stem and its branches, as [`Batch::branched`] takes them.
pub type Branches<'a> = (&'a [u32], &'a [&'a [u32]]);

impl Batch {
    /// One text in each row, filled up with `pad`.
    ///
    /// # Errors
    /// [`Error::Input`] for no row, or a row without tokens.
    pub fn padded(rows: &[&[u32]], pad: u32) -> Result<Self, Error> {
        let rows: Vec<[&[u32]; 1]> = rows.iter().map(|&row| [row]).collect();
        let rows: Vec<&[&[u32]]> = rows.iter().map(<[&[u32]; 1]>::as_slice).collect();
        Self::packed(&rows, pad)
    }

    /// Several texts in each row, one after the other, filled up with `pad`.
    ///
    /// # Errors
    /// [`Error::Input`] for no row, or a row or text without tokens.
    pub fn packed(rows: &[&[&[u32]]], pad: u32) -> Result<Self, Error> {
        if rows.is_empty() {
            return Err(empty("the batch".into()));
        }
        for (index, row) in rows.iter().enumerate() {
            if row.is_empty() || row.iter().any(|text| text.is_empty()) {
                return Err(empty(format!("a text of row {index} of the batch")));
            }
        }
        let texts: Vec<Vec<usize>> =
            rows.iter().map(|row| row.iter().map(|text| text.len()).collect()).collect();
        let time = texts.iter().map(|row| row.iter().sum()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rows.len() * time);
        for (index, row) in rows.iter().enumerate() {
            row.iter().for_each(|text| ids.extend_from_slice(text));
            ids.resize((index + 1) * time, pad);
        }
        Ok(Self { ids, rows: rows.len(), time, texts, stems: None })
    }

    /// For each stem the texts that go on from it, each with one of its branches; a stem or a branch
    /// may be empty, but not both. Nothing is padded, and the tokens of a stem are computed once:
    /// one row of the length of all stems and branches.
    ///
    /// The texts get the numbers that they would get in rows of their own, but for a rotation that
    /// depends on the length of the text (dynamic scaling): there the branches of a stem would have
    /// to be of one length.
    ///
    /// # Errors
    /// [`Error::Input`] for no stem, a stem without branches, or a text without tokens.
    pub fn branched(stems: &[Branches<'_>]) -> Result<Self, Error> {
        if stems.is_empty() {
            return Err(empty("the batch".into()));
        }
        let (mut ids, mut texts) = (Vec::new(), Vec::new());
        for (index, (stem, branches)) in stems.iter().enumerate() {
            let lengths: Vec<usize> =
                branches.iter().map(|branch| stem.len() + branch.len()).collect();
            if lengths.is_empty() || lengths.contains(&0) {
                return Err(empty(format!("a text of stem {index} of the batch")));
            }
            ids.extend_from_slice(stem);
            branches.iter().for_each(|branch| ids.extend_from_slice(branch));
            texts.push(lengths);
        }
        let stems = stems.iter().map(|(stem, _)| stem.len()).collect();
        Ok(Self { rows: 1, time: ids.len(), ids, texts, stems: Some(stems) })
    }

    /// The ids, row by row.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Number of rows.
    pub fn batch(&self) -> usize {
        self.rows
    }

    /// Tokens in each row, padding included.
    pub fn time(&self) -> usize {
        self.time
    }

    /// Tokens that are computed, without padding.
    pub fn tokens(&self) -> usize {
        match self.stems {
            Some(_) => self.ids.len(),
            None => self.texts.iter().flatten().sum(),
        }
    }

    /// For each row, or each stem, the lengths of its texts, in order.
    pub fn texts(&self) -> &[Vec<usize>] {
        &self.texts
    }

    /// For each text the places of its tokens in [`Batch::ids`], in order: those of its stem, if it
    /// has one, and its own.
    pub fn places(&self) -> Vec<[Range<usize>; 2]> {
        let mut places = Vec::new();
        let mut start = 0;
        for (index, texts) in self.texts.iter().enumerate() {
            let stem = match &self.stems {
                Some(stems) => start..start + stems[index],
                None => index * self.time..index * self.time,
            };
            start = stem.end;
            for length in texts {
                let end = start + length - stem.len();
                places.push([stem.clone(), start..end]);
                start = end;
            }
        }
        places
    }

    pub(super) fn layout(&self) -> Layout {
        match &self.stems {
            Some(stems) => self.branched_layout(stems),
            None => self.rows_layout(),
        }
    }

    fn rows_layout(&self) -> Layout {
        let mut layout = Layout::new(self.time, None);
        for (row, texts) in self.texts.iter().enumerate() {
            let mut start = 0;
            for &length in texts {
                for place in 0..length {
                    layout.push(start + place, start, place, length);
                }
                start += length;
            }
            // Padding sees itself alone, so that its numbers stay finite.
            for place in start..self.time {
                layout.push(place, place, 0, 1);
            }
            layout.end_row(row);
        }
        layout
    }

    /// Each text is a sequence of keys, the stem's among them. The first text of a stem asks for the
    /// stem's tokens, too.
    fn branched_layout(&self, stems: &[usize]) -> Layout {
        let longest = self.texts.iter().flatten().copied().max().unwrap_or(0);
        let mut layout = Layout::new(longest, None);
        let mut places = self.places().into_iter();
        for (texts, stem) in self.texts.iter().zip(stems) {
            for (index, (&length, [trunk, own])) in texts.iter().zip(&mut places).enumerate() {
                let first = if index == 0 { 0 } else { *stem };
                let keys = trunk.chain(own).collect();
                (first..length).for_each(|place| layout.push(place, 0, place, length));
                if first < length {
                    layout.end_row_of(keys);
                }
            }
        }
        layout
    }
}

fn empty(what: String) -> Error {
    Error::Input { what, found: "empty".into(), expected: "at least one token".into() }
}
