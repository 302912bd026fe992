//! Which rows share a sequence.
//!
//! Best-fit-decreasing (Ding et al. 2024, arXiv:2404.10830), as `trl.pack_dataset` does it: rows by
//! descending length, each into the fullest bin that still has room, of equally full ones into the
//! one that became so first. TRL packs every 1000 rows on their own (the default of `map`); here
//! all are packed together, which fills the bins better.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::sample::Samples;

/// How rows share sequences of `max_length` tokens, with the names of TRL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Whole rows, which do not see each other; longer ones were truncated when they were encoded.
    Bfd,
    /// As `bfd`, with longer rows cut into parts that do not see each other.
    BfdSplit,
    /// All rows one after the other, cut every `max_length` tokens. A row sees those before it in
    /// its sequence, as in pre-training.
    Wrapped,
}

/// A part of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) sample: u32,
    pub(super) start: u32,
    pub(super) length: u32,
}

/// Sequences of pieces, in one list. A sequence is a row of a batch, and at least one of its tokens
/// is trained.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequences {
    pieces: Vec<Piece>,
    /// Where each sequence ends in `pieces`.
    ends: Vec<usize>,
    /// Whether the pieces of a sequence are one text and not each its own.
    pub(super) joined: bool,
    /// Tokens of parts of rows that nothing is learned from, and so are left out.
    pub(super) left_out: usize,
}

impl Sequences {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn pieces(&self, index: usize) -> &[Piece] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.pieces[start..self.ends[index]]
    }

    /// Tokens of a sequence.
    pub(super) fn length(&self, index: usize) -> usize {
        self.pieces(index).iter().map(|piece| piece.length as usize).sum()
    }

    fn push(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        self.pieces.extend(pieces);
        self.ends.push(self.pieces.len());
    }

    /// Each row its own sequence.
    pub(super) fn rows(samples: &Samples, order: &[u32]) -> Self {
        let mut all = Self::default();
        for &sample in order {
            all.push([whole(samples, sample)]);
        }
        all
    }

    /// Rows packed into sequences of at most `max_length` tokens.
    pub(super) fn packed(
        samples: &Samples,
        order: &[u32],
        packing: Packing,
        max_length: usize,
    ) -> Self {
        match packing {
            Packing::Bfd | Packing::BfdSplit => Self::best_fit(samples, order, max_length),
            Packing::Wrapped => Self::wrapped(samples, order, max_length),
        }
    }

    fn best_fit(samples: &Samples, order: &[u32], max_length: usize) -> Self {
        let mut all = Self::default();
        let mut parts = Vec::with_capacity(order.len());
        for part in order.iter().flat_map(|&sample| parts_of(whole(samples, sample), max_length)) {
            let Piece { sample, start, length } = part;
            // The first token of a part has nothing before it.
            if samples.trained_in(sample as usize, start as usize + 1, length as usize - 1) > 0 {
                parts.push(part);
            } else {
                all.left_out += length as usize;
            }
        }
        let lengths: Vec<usize> = parts.iter().map(|part| part.length as usize).collect();
        for bin in best_fit_decreasing(&lengths, max_length) {
            all.push(bin.into_iter().map(|index| parts[index]));
        }
        all
    }

    fn wrapped(samples: &Samples, order: &[u32], max_length: usize) -> Self {
        let mut all = Self { joined: true, ..Self::default() };
        let (mut block, mut filled) = (Vec::new(), 0);
        for (at, &sample) in order.iter().enumerate() {
            let mut rest = whole(samples, sample);
            while rest.length > 0 {
                let length = rest.length.min((max_length - filled) as u32);
                block.push(Piece { length, ..rest });
                rest = Piece { start: rest.start + length, length: rest.length - length, ..rest };
                filled += length as usize;
                let last = at + 1 == order.len() && rest.length == 0;
                if filled == max_length || last {
                    all.push_block(samples, std::mem::take(&mut block));
                    filled = 0;
                }
            }
        }
        all
    }

    fn push_block(&mut self, samples: &Samples, block: Vec<Piece>) {
        let trained = |piece: &Piece| {
            let Piece { sample, start, length } = *piece;
            samples.trained_in(sample as usize, start as usize, length as usize)
        };
        let first = block.first().is_some_and(|piece| {
            samples.trained_in(piece.sample as usize, piece.start as usize, 1) == 1
        });
        if block.iter().map(trained).sum::<usize>() > usize::from(first) {
            self.push(block);
        } else {
            self.left_out += block.iter().map(|piece| piece.length as usize).sum::<usize>();
        }
    }
}

fn whole(samples: &Samples, sample: u32) -> Piece {
    Piece { sample, start: 0, length: samples.length(sample as usize) as u32 }
}

/// A row cut every `max_length` tokens.
fn parts_of(row: Piece, max_length: usize) -> impl Iterator<Item = Piece> {
    let max = max_length as u32;
    (0..row.length).step_by(max_length).map(move |start| Piece {
        start,
        length: max.min(row.length - start),
        ..row
    })
}

/// Puts items into bins of size `size`: the numbers of the items of each bin. Takes n log n steps.
///
/// # Panics
/// When an item is longer than a bin.
fn best_fit_decreasing(lengths: &[usize], size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&item| std::cmp::Reverse(lengths[item]));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    // Bins by the room that is left in them.
    let mut open: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
    for item in order {
        let length = lengths[item];
        assert!(length <= size, "an item of {length} for bins of {size}");
        let found = open.range_mut(length..).next().map(|(&room, bins)| {
            let bin = bins.pop_front().expect("no empty list is kept");
            (room, bin, bins.is_empty())
        });
        let (room, bin) = if let Some((room, bin, emptied)) = found {
            if emptied {
                open.remove(&room);
            }
            (room, bin)
        } else {
            bins.push(Vec::new());
            (size, bins.len() - 1)
        };
        bins[bin].push(item);
        if room > length {
            open.entry(room - length).or_default().push_back(bin);
        }
    }
    bins
}

#[cfg(test)]
mod tests;
