//! Sequences equal TRL's, and keep what packing promises.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;
use crate::data::order::{Purpose, shuffled};
use crate::data::{RowId, Sample};

#[derive(Deserialize)]
struct Case {
    name: String,
    size: usize,
    lengths: Vec<usize>,
    bfd: Vec<Vec<[u32; 3]>>,
    bfd_split: Vec<Vec<[u32; 3]>>,
    wrapped: Vec<Vec<[u32; 3]>>,
}

fn cases() -> Vec<Case> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/packing/packing.json");
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(cases.len(), 10);
    cases
}

fn rows(lengths: impl IntoIterator<Item = usize>) -> Samples {
    let mut samples = Samples::default();
    for (row, length) in (0..).zip(lengths) {
        let (ids, trained) = (vec![7; length], vec![true; length]);
        samples.push(&Sample { ids, trained, row: RowId::index(row) }).unwrap();
    }
    samples
}

fn in_order(samples: &Samples) -> Vec<u32> {
    (0..samples.len() as u32).collect()
}

fn pieces(sequences: &Sequences) -> Vec<Vec<[u32; 3]>> {
    let piece = |piece: &Piece| [piece.sample, piece.start, piece.length];
    (0..sequences.len()).map(|index| sequences.pieces(index).iter().map(piece).collect()).collect()
}

#[test]
fn bins_equal_those_of_trl() {
    for Case { name, size, lengths, bfd, bfd_split, .. } in cases() {
        for (expected, cut) in [(bfd, true), (bfd_split, false)] {
            // TRL keeps pieces of one token, from which nothing is learned; here they are counted.
            let row = |(sample, &length): (u32, &usize)| {
                let length = if cut { length.min(size) } else { length } as u32;
                parts_of(Piece { sample, start: 0, length }, size)
            };
            let parts: Vec<Piece> = (0..).zip(&lengths).flat_map(row).collect();
            let lengths: Vec<usize> = parts.iter().map(|part| part.length as usize).collect();
            let piece = |part: Piece| [part.sample, part.start, part.length];
            let found: Vec<Vec<[u32; 3]>> = best_fit_decreasing(&lengths, size)
                .into_iter()
                .map(|bin| bin.into_iter().map(|index| piece(parts[index])).collect())
                .collect();
            // Even in the same order.
            assert_eq!(found, expected, "{name}, cut {cut}");
        }
    }
}

#[test]
fn wrapped_sequences_equal_those_of_trl() {
    for Case { name, size, lengths, wrapped, .. } in cases() {
        // There are no empty rows here, so those that are left have other numbers.
        let numbers: Vec<u32> =
            (0..).zip(&lengths).filter(|(_, length)| **length > 0).map(|(row, _)| row).collect();
        let samples = rows(lengths.iter().copied().filter(|&length| length > 0));
        let found = Sequences::packed(&samples, &in_order(&samples), Packing::Wrapped, size);
        let renumber = |[row, start, length]: [u32; 3]| [numbers[row as usize], start, length];
        let pieces: Vec<Vec<[u32; 3]>> =
            pieces(&found).into_iter().map(|s| s.into_iter().map(renumber).collect()).collect();
        // A sequence of one token teaches nothing.
        let mut expected = wrapped;
        let alone = expected.pop_if(|last| last.iter().map(|piece| piece[2]).sum::<u32>() == 1);
        assert_eq!(found.left_out, usize::from(alone.is_some()), "{name}");
        assert_eq!(pieces, expected, "{name}");
    }
}

#[test]
fn bins_by_hand() {
    // Of 10: 7, 6, 3, 3, 2, 1. The first 3 fits best behind 7, the second behind 6, where 1 is left.
    let samples = rows([3, 7, 1, 6, 2, 3]);
    let found = Sequences::packed(&samples, &in_order(&samples), Packing::Bfd, 10);
    // The row of one token has no target and is left out.
    let expected = [vec![[1, 0, 7], [0, 0, 3]], vec![[3, 0, 6], [5, 0, 3]], vec![[4, 0, 2]]];
    assert_eq!(pieces(&found), expected);
    assert_eq!((found.left_out, found.joined), (1, false));

    // Of 4: a row of 9 becomes 4, 4 and 1, and the last teaches nothing.
    let samples = rows([9, 3]);
    let found = Sequences::packed(&samples, &in_order(&samples), Packing::BfdSplit, 4);
    assert_eq!(pieces(&found), [[[0, 0, 4]], [[0, 4, 4]], [[1, 0, 3]]]);
    assert_eq!(found.left_out, 1);

    // All in a row: 3 and 1 of the second, 4 more, the last 1 alone teaches nothing.
    let samples = rows([3, 6]);
    let found = Sequences::packed(&samples, &in_order(&samples), Packing::Wrapped, 4);
    assert_eq!(pieces(&found), [vec![[0, 0, 3], [1, 0, 1]], vec![[1, 1, 4]]]);
    assert_eq!((found.left_out, found.joined), (1, true));
}

#[test]
fn parts_without_a_trained_token_are_left_out_and_counted() {
    let mut samples = Samples::default();
    let trained = [0, 0, 0, 0, 0, 1, 0, 0, 0, 1].map(|bit| bit == 1).to_vec();
    samples.push(&Sample { ids: vec![7; 10], trained, row: RowId::index(0) }).unwrap();
    // 0..4 has none, 4..8 has one, 8..10 has one.
    for packing in [Packing::BfdSplit, Packing::Wrapped] {
        let found = Sequences::packed(&samples, &[0], packing, 4);
        assert_eq!((found.len(), found.left_out), (2, 4), "{packing:?}");
    }
    // A trained token at the start of a sequence has nothing before it there: 5..10 with 5 first.
    let found = Sequences::packed(&samples, &[0], Packing::Wrapped, 5);
    assert_eq!((pieces(&found), found.left_out), (vec![vec![[0, 5, 5]]], 5));
}

#[test]
fn every_row_is_in_one_sequence_and_none_is_too_long() {
    for seed in 0..60 {
        let size = 8 + seed as usize * 3;
        let numbers = shuffled(400, seed, Purpose::Packing);
        let longest = if seed % 2 == 0 { size } else { 3 * size };
        let lengths = numbers.iter().map(|&number| 2 + number as usize % (longest - 1));
        let samples = rows(lengths.collect::<Vec<_>>());
        let order = shuffled(samples.len(), seed, Purpose::Epoch(0));
        for packing in [Packing::Bfd, Packing::BfdSplit, Packing::Wrapped] {
            if packing == Packing::Bfd && longest > size {
                continue;
            }
            let found = Sequences::packed(&samples, &order, packing, size);
            let mut covered: BTreeMap<u32, Vec<[u32; 2]>> = BTreeMap::new();
            for index in 0..found.len() {
                assert!(found.length(index) <= size);
                for piece in found.pieces(index) {
                    let end = piece.start + piece.length;
                    covered.entry(piece.sample).or_default().push([piece.start, end]);
                }
            }
            let mut tokens = found.left_out;
            for (sample, parts) in &mut covered {
                parts.sort_unstable();
                assert!(parts.windows(2).all(|two| two[0][1] <= two[1][0]), "a token twice");
                assert!(packing != Packing::Bfd || parts.len() == 1);
                tokens += parts.iter().map(|[from, to]| (to - from) as usize).sum::<usize>();
                assert!(parts[parts.len() - 1][1] as usize <= samples.length(*sample as usize));
            }
            assert_eq!(tokens, samples.tokens(), "{packing:?}");
            let again = Sequences::packed(&samples, &order, packing, size);
            assert_eq!(pieces(&again), pieces(&found));
            if packing != Packing::Wrapped {
                assert_no_room_is_wasted(&found, size);
            }
        }
    }
}

/// A new bin is only opened for what fits in none before it.
fn assert_no_room_is_wasted(found: &Sequences, size: usize) {
    let mut fullest_room = 0;
    for index in 0..found.len() {
        let smallest = found.pieces(index).iter().map(|piece| piece.length as usize).min();
        assert!(smallest.unwrap() > fullest_room, "{smallest:?} fits in {fullest_room}");
        fullest_room = fullest_room.max(size - found.length(index));
    }
}
