//! Blocks of 64 numbers in 4 bits each and one scale, with the codes of bitsandbytes 0.50.
//!
//! scale = max |w|; the code of w is that of the value nearest to w / scale. The numbers of a matrix
//! count row by row, so that a block may begin in one row and end in the next. Two codes share a
//! byte, the first in the upper half.

use super::tables::{FP4, NF4};

/// Numbers that share a scale.
pub(crate) const BLOCK: usize = 64;

/// A 4-bit type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FourBit {
    Nf4,
    Fp4,
}

impl FourBit {
    /// The value of each code.
    pub(crate) const fn table(self) -> &'static [f32; 16] {
        match self {
            Self::Nf4 => &NF4,
            Self::Fp4 => &FP4,
        }
    }

    /// Codes in the order of their values, and the middles between neighbours.
    fn bounds(self) -> ([u8; 16], [f32; 15]) {
        let table = self.table();
        let mut order: [u8; 16] = std::array::from_fn(|code| code as u8);
        // Stable: of FP4's two zeros the positive comes first.
        order.sort_by(|&a, &b| {
            let (a, b) = (table[usize::from(a)], table[usize::from(b)]);
            a.partial_cmp(&b).expect("no NaN in a table")
        });
        let value = |i: usize| table[usize::from(order[i])];
        (order, std::array::from_fn(|i| 0.5 * (value(i) + value(i + 1))))
    }
}

/// Packed codes and the scale of each block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Blocks {
    /// `ceil(n / 2)` bytes.
    pub(crate) codes: Vec<u8>,
    /// `ceil(n / 64)` scales.
    pub(crate) scales: Vec<f32>,
}

/// Quantises finite numbers.
pub(crate) fn quantize(numbers: &[f32], kind: FourBit) -> Blocks {
    let (order, bounds) = kind.bounds();
    let code = |scaled: f32| order[bounds.partition_point(|&bound| bound < scaled)];
    let mut codes = Vec::with_capacity(numbers.len().div_ceil(2));
    let mut scales = Vec::with_capacity(numbers.len().div_ceil(BLOCK));
    for block in numbers.chunks(BLOCK) {
        let largest = block.iter().fold(0.0_f32, |largest, w| largest.max(w.abs()));
        // bitsandbytes divides in a block that is cut short, and multiplies elsewhere.
        let whole = block.len() == BLOCK;
        let divisor = largest.max(1e-38);
        let inverse = 1.0 / divisor;
        let scaled = |w: f32| (if whole { w * inverse } else { w / divisor }).clamp(-1.0, 1.0);
        for pair in block.chunks(2) {
            // The last byte of an odd number of codes is filled up with that of 0.
            let second = pair.get(1).map_or(0.0, |&w| scaled(w));
            codes.push(code(scaled(pair[0])) << 4 | code(second));
        }
        scales.push(if whole { largest } else { divisor });
    }
    Blocks { codes, scales }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_by_hand() {
        // The largest is 2: halves fall between 0.44 and 0.56, nearer to the second.
        let blocks = quantize(&[2.0, -2.0, 1.02, 0.0, 0.1], FourBit::Nf4);
        assert_eq!(blocks.scales, [2.0]);
        // 1 is code 15, −1 code 0; 0.51 is nearer to 0.5626 (13) than to 0.4407 (12); 0 is code 7;
        // 0.05 is nearer to 0.0796 (8) than to 0, and what fills the byte is a zero.
        assert_eq!(blocks.codes, [0xf0, 0xd7, 0x87]);
        let blocks = quantize(&[3.0, -2.0, 0.7, 0.0], FourBit::Fp4);
        // 1 is code 3, −2/3 code 10, 0.233 is nearest to 0.25 (7), 0 is code 0.
        assert_eq!((blocks.codes, blocks.scales), (vec![0x3a, 0x70], vec![3.0]));
    }

    #[test]
    fn zeros_stay_zeros() {
        let blocks = quantize(&[0.0; 64], FourBit::Nf4);
        assert_eq!((blocks.codes, blocks.scales), (vec![0x77; 32], vec![0.0]));
    }
}
