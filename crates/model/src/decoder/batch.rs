//! Rows of token ids for one forward pass.

use super::places::Layout;
use crate::error::Error;

/// Token ids `[batch, time]`: texts padded on the right, or several texts in a row that do not see
/// each other and whose positions start anew (packing).
///
/// ```
/// use posttrain_model::Batch;
/// let padded = Batch::padded(&[&[5, 6, 7], &[8]], 0)?;
/// assert_eq!(padded.ids(), [5, 6, 7, 8, 0, 0]);
/// let packed = Batch::packed(&[&[&[5, 6, 7], &[8, 9]], &[&[4]]], 0)?;
/// assert_eq!((packed.ids(), packed.time()), (&[5, 6, 7, 8, 9, 4, 0, 0, 0, 0][..], 5));
/// # Ok::<(), posttrain_model::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    ids: Vec<u32>,
    rows: usize,
    time: usize,
    /// For each row the lengths of its texts, in order.
    texts: Vec<Vec<usize>>,
}

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
        let empty = |what: String| Error::Input {
            what,
            found: "empty".into(),
            expected: "at least one token".into(),
        };
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
        Ok(Self { ids, rows: rows.len(), time, texts })
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

    /// For each row the lengths of its texts, in order.
    pub fn texts(&self) -> &[Vec<usize>] {
        &self.texts
    }

    pub(super) fn layout(&self) -> Layout {
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
}
