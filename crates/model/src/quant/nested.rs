//! Double quantisation: the scales of 4-bit blocks in 8 bits each (Dettmers et al. 2023,
//! arXiv:2305.14314, section 3), with the codes of bitsandbytes 0.50 on the CPU.
//!
//! The mean is taken off; what is left is quantised in blocks of 256 to the dynamic 8-bit type.

use std::sync::OnceLock;

use super::tables::dynamic_map;

/// Scales that share a scale.
pub(crate) const BLOCK: usize = 256;

/// Quantised scales: `map[code] * scales[i / 256] + offset`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nested {
    pub(crate) codes: Vec<u8>,
    pub(crate) scales: Vec<f32>,
    pub(crate) offset: f32,
}

/// Quantises the scales of 4-bit blocks.
pub(crate) fn quantize(scales: &[f32]) -> Nested {
    let offset = mean(scales);
    let rest: Vec<f32> = scales.iter().map(|scale| scale - offset).collect();
    let places = places();
    let mut nested = Nested { codes: Vec::with_capacity(rest.len()), scales: Vec::new(), offset };
    for block in rest.chunks(BLOCK) {
        let largest = block.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        nested.scales.push(largest);
        if largest == 0.0 {
            nested.codes.resize(nested.codes.len() + block.len(), 0);
            continue;
        }
        let inverse = 1.0 / largest;
        nested.codes.extend(block.iter().map(|x| {
            let scaled = (x * inverse).clamp(-1.0, 1.0);
            let place = ((scaled + 1.0) * 0.5).mul_add(PLACES as f32 - 1.0, 0.5);
            places[place as usize]
        }));
    }
    nested
}

/// The scale of a block.
#[inline]
pub(crate) fn scale(code: u8, scale: f32, offset: f32, map: &[f32; 256]) -> f32 {
    map[usize::from(code)] * scale + offset
}

/// bitsandbytes does not search for the nearest value: it rounds to one of 65,536 places between
/// −1 and 1 and looks the code up.
const PLACES: usize = 1 << 16;

/// The code for each place.
fn places() -> &'static [u8] {
    static CODES: OnceLock<Vec<u8>> = OnceLock::new();
    CODES.get_or_init(|| {
        let map = dynamic_map();
        let bounds: Vec<f32> = map.windows(2).map(|pair| (pair[0] + pair[1]) * 0.5).collect();
        let place = |i: usize| (i + i) as f32 / (PLACES as f32 - 1.0) - 1.0;
        (0..PLACES).map(|i| bounds.partition_point(|&bound| bound < place(i)) as u8).collect()
    })
}

/// The mean in PyTorch's order of additions with vectors of eight on one thread (`AVX2`). With other
/// vectors or several threads PyTorch itself may end one unit in the last place elsewhere.
fn mean(x: &[f32]) -> f32 {
    let (vectors, tail) = x.as_chunks::<8>();
    let total = if vectors.is_empty() {
        sum(x.as_chunks::<1>().0)[0]
    } else {
        let tail = tail.iter().fold(0.0, |total, x| total + x);
        sum(vectors).iter().fold(tail, |total, x| total + x)
    };
    total / x.len() as f32
}

/// The sum of vectors: four side by side, in sums of sums.
fn sum<const LANES: usize>(vectors: &[[f32; LANES]]) -> [f32; LANES] {
    const ROWS: usize = 4;
    const LEVELS: usize = 4;
    fn add<const LANES: usize>(to: &mut [f32; LANES], other: &[f32; LANES]) {
        to.iter_mut().zip(other).for_each(|(to, other)| *to += other);
    }
    let (groups, rest) = vectors.as_chunks::<ROWS>();
    let ceil_log2 = groups.len().max(1).next_power_of_two().ilog2() as usize;
    let power = (ceil_log2 / LEVELS).max(4);
    let step = 1 << power;
    let whole = groups.len() / step * step;
    let mut levels = [[[0.0; LANES]; ROWS]; LEVELS];
    for (i, group) in groups.iter().enumerate() {
        levels[0].iter_mut().zip(group).for_each(|(sum, vector)| add(sum, vector));
        let done = i + 1;
        if done > whole || done % step != 0 {
            continue;
        }
        for level in 1..LEVELS {
            let lower = std::mem::replace(&mut levels[level - 1], [[0.0; LANES]; ROWS]);
            levels[level].iter_mut().zip(&lower).for_each(|(sum, lower)| add(sum, lower));
            if done & ((step - 1) << (level * power)) != 0 {
                break;
            }
        }
    }
    let [mut rows, higher @ ..] = levels;
    for level in &higher {
        rows.iter_mut().zip(level).for_each(|(sum, level)| add(sum, level));
    }
    let [mut sum, others @ ..] = rows;
    rest.iter().chain(&others).for_each(|vector| add(&mut sum, vector));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scales_are_their_mean() {
        let nested = quantize(&[0.25; 300]);
        assert_eq!((nested.offset, nested.scales.as_slice()), (0.25, [0.0, 0.0].as_slice()));
        assert_eq!(scale(nested.codes[299], nested.scales[1], nested.offset, dynamic_map()), 0.25);
    }

    #[test]
    fn a_block_by_hand() {
        // The mean is 2; the rest is −1, 1, 0: 1 is the last value of the map, and nothing is nearer
        // to −1 than the first. 0 lies between two places, at ±1/65535, and takes the upper one:
        // the nearest value to 1.53e-5 is 2.125e-5, four above that of 0.
        let nested = quantize(&[1.0, 3.0, 2.0]);
        assert_eq!((nested.offset, nested.scales.as_slice()), (2.0, [1.0].as_slice()));
        assert_eq!(nested.codes, [0, 255, 131]);
    }

    #[test]
    fn the_mean_is_a_mean() {
        for n in [1, 7, 8, 33, 511, 4096, 70_001] {
            let x: Vec<f32> = (0..n).map(|i| (i * 7919 % 1013) as f32 / 100.0).collect();
            let exact = x.iter().map(|&x| f64::from(x)).sum::<f64>() / f64::from(n);
            assert!((f64::from(mean(&x)) / exact.max(1e-9) - 1.0).abs() < 1e-6 || exact == 0.0);
        }
    }
}
