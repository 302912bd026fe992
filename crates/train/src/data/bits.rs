//! A growing list of bits: one eighth of the memory of a list of booleans.

use std::ops::Range;

/// Bits in words of 64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    pub(super) fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        self.words[self.len / 64] |= u64::from(bit) << (self.len % 64);
        self.len += 1;
    }

    pub(super) fn get(&self, index: usize) -> bool {
        assert!(index < self.len, "bit {index} of {}", self.len);
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    /// Up to 64 bits of a range, the first in the lowest place.
    pub(super) fn word(&self, range: Range<usize>) -> u64 {
        assert!(range.len() <= 64 && range.end <= self.len, "bits {range:?} of {}", self.len);
        if range.is_empty() {
            return 0;
        }
        let (at, shift) = (range.start / 64, range.start % 64);
        let next = self.words.get(at + 1).copied().unwrap_or(0);
        let bits = u128::from(self.words[at]) | u128::from(next) << 64;
        (bits >> shift) as u64 & (u64::MAX >> (64 - range.len()))
    }

    /// How many bits of a range are set.
    pub(super) fn count(&self, range: Range<usize>) -> usize {
        assert!(range.end <= self.len, "bits {range:?} of {}", self.len);
        if range.is_empty() {
            return 0;
        }
        let (first, last) = (range.start / 64, (range.end - 1) / 64);
        let from = u64::MAX << (range.start % 64);
        let until = u64::MAX >> (63 - (range.end - 1) % 64);
        if first == last {
            return (self.words[first] & from & until).count_ones() as usize;
        }
        let inner: u32 = self.words[first + 1..last].iter().map(|word| word.count_ones()).sum();
        let ends =
            (self.words[first] & from).count_ones() + (self.words[last] & until).count_ones();
        (inner + ends) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_equal_a_list_of_booleans() {
        let list: Vec<bool> = (0..300).map(|i| i % 7 == 0 || i % 64 > 60).collect();
        let mut bits = Bits::default();
        for &bit in &list {
            bits.push(bit);
        }
        for start in 0..=list.len() {
            assert!(start == list.len() || bits.get(start) == list[start]);
            for end in start..=list.len() {
                let expected = list[start..end].iter().filter(|&&bit| bit).count();
                assert_eq!(bits.count(start..end), expected, "{start}..{end}");
                if end - start <= 64 {
                    let word = list[start..end].iter().rev();
                    let expected = word.fold(0, |word, &bit| word << 1 | u64::from(bit));
                    assert_eq!(bits.word(start..end), expected, "{start}..{end}");
                }
            }
        }
    }
}
