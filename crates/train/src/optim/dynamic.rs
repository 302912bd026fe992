//! Numbers in one byte each, by blocks: the dynamic types of bitsandbytes (Dettmers et al. 2022,
//! arXiv:2110.02861, section 2.1).
//!
//! Each block of 256 numbers is divided by its largest magnitude; what remains, between −1 and 1,
//! is rounded to the nearest of 256 values, of which there are more near 0. The table and the
//! codes are those of bitsandbytes 0.50.2 (its implementation in PyTorch, and its CUDA kernels but
//! for ties). Its CPU library is not followed: it first rounds to a multiple of 2⁻¹⁵, so that
//! everything below 1.5e-5 becomes one code.

use std::sync::LazyLock;

/// Numbers that share a scale.
pub(super) const BLOCK: usize = 256;

/// A table of 256 values with what finds the nearest.
#[derive(Debug)]
pub(super) struct Dynamic {
    /// In ascending order.
    pub(super) values: [f32; 256],
    /// `bounds[i]` is half-way between values i and i + 1. The last is +∞.
    pub(super) bounds: [f32; 256],
    /// By the upper 16 bits of a number, the code of the least number with these bits.
    starts: Vec<u8>,
}

/// For numbers of either sign.
pub(super) static SIGNED: LazyLock<Dynamic> = LazyLock::new(|| Dynamic::new(true));
/// For numbers that are not negative.
pub(super) static UNSIGNED: LazyLock<Dynamic> = LazyLock::new(|| Dynamic::new(false));

impl Dynamic {
    /// 0, 1, and for each power of ten from 10⁻⁶ to 1 the middles of equal parts of the interval
    /// from a tenth of it to it, each power having twice as many parts as the one before.
    fn new(signed: bool) -> Self {
        let mut all = vec![0.0, 1.0];
        for exponent in 0..7 {
            let parts = if signed { 1 << exponent } else { 2 << exponent };
            let power = 10f64.powi(exponent - 6) as f32;
            for part in 0..parts {
                let value = power * f32::midpoint(edge(part, parts), edge(part + 1, parts));
                all.push(value);
                if signed {
                    all.push(-value);
                }
            }
        }
        all.sort_by(f32::total_cmp);
        let values: [f32; 256] = all.try_into().expect("256 values");
        let bound = |i: usize| match values.get(i + 1) {
            Some(next) => f32::midpoint(values[i], *next),
            None => f32::INFINITY,
        };
        let bounds: [f32; 256] = std::array::from_fn(bound);
        let below = |x: f32| bounds.iter().filter(|&&bound| bound < x).count() as u8;
        let starts = (0..=u16::MAX).map(|bits| below(least(bits))).collect();
        Self { values, bounds, starts }
    }

    /// The code of the value nearest to x, the lower one of two. Two numbers with the same upper
    /// 16 bits have at most one bound between them, which a test goes through.
    #[inline]
    pub(super) fn code(&self, x: f32) -> u8 {
        let start = self.starts[(x.to_bits() >> 16) as usize];
        start + u8::from(self.bounds[usize::from(start)] < x)
    }

    /// Codes of a block and its scale.
    pub(super) fn quantize(&self, block: &[f32], codes: &mut [u8]) -> f32 {
        let scale = block.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let inverse = 1.0 / scale.max(1e-38);
        for (code, x) in codes.iter_mut().zip(block) {
            *code = self.code((x * inverse).clamp(-1.0, 1.0));
        }
        scale
    }

    /// The numbers of a block.
    pub(super) fn dequantize(&self, codes: &[u8], scale: f32, block: &mut [f32]) {
        for (x, &code) in block.iter_mut().zip(codes) {
            *x = self.values[usize::from(code)] * scale;
        }
    }
}

/// `torch.linspace(0.1, 1, parts + 1)[i]`: counted from the nearer end, rounded once.
fn edge(i: i32, parts: i32) -> f32 {
    let step = (1.0_f32 - 0.1) / parts as f32;
    if i < (parts + 1) / 2 {
        step.mul_add(i as f32, 0.1)
    } else {
        (-step).mul_add((parts - i) as f32, 1.0)
    }
}

/// The least number whose upper 16 bits are these.
fn least(bits: u16) -> f32 {
    let negative = bits >> 15 == 1;
    let lower = if negative { 0xffff } else { 0 };
    f32::from_bits(u32::from(bits) << 16 | lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(table: &Dynamic, x: f32) -> u8 {
        table.bounds.iter().filter(|&&bound| bound < x).count() as u8
    }

    #[test]
    fn at_most_one_bound_lies_between_numbers_that_start_alike() {
        for table in [&*SIGNED, &*UNSIGNED] {
            for bits in 0..=u16::MAX {
                let (low, high) = (least(bits), f32::from_bits(u32::from(bits) << 16 | 0xffff));
                let high =
                    if bits >> 15 == 1 { f32::from_bits(u32::from(bits) << 16) } else { high };
                if !(-1.0..=1.0).contains(&low) || !(-1.0..=1.0).contains(&high) {
                    continue;
                }
                assert!(nearest(table, high) - nearest(table, low) <= 1, "{low} to {high}");
            }
            for &bound in &table.bounds[..255] {
                for x in [bound.next_down(), bound, bound.next_up()] {
                    assert_eq!(table.code(x), nearest(table, x), "{x}");
                }
            }
        }
    }

    #[test]
    fn by_hand() {
        // The decade below 1 has 64 parts of 0.9 / 64; their middles are 0.1 + 0.0140625 (k + 1/2).
        let table = &*SIGNED;
        assert_eq!(table.values[255], 1.0);
        assert!((table.values[254] - (1.0 - 0.9 / 128.0)).abs() < 1e-7);
        assert_eq!(table.values[127], 0.0);
        assert!((table.values[128] - 5.5e-7).abs() < 1e-12);
        assert_eq!(table.code(0.0), 127);
        assert_eq!(table.code(-1.0), 0);
        let mut codes = [0; 4];
        assert_eq!(table.quantize(&[-4.0, 4.0, 0.0, 2.0], &mut codes), 4.0);
        let mut block = [0.0; 4];
        table.dequantize(&codes, 4.0, &mut block);
        assert_eq!((block[1], block[2]), (4.0, 0.0));
        assert!((block[0] + 4.0 * 0.992_968_75).abs() < 1e-6);
        assert!((block[3] - 2.0).abs() < 4.0 * 0.45 / 64.0);
        assert_eq!(table.quantize(&[0.0; 4], &mut codes), 0.0);
        assert_eq!(codes, [127; 4]);
    }
}
