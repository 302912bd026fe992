//! The values that codes stand for.

use std::sync::OnceLock;

/// NF4 (Dettmers et al. 2023, arXiv:2305.14314, appendix E): quantiles of the normal distribution.
pub(crate) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// FP4 of bitsandbytes: a sign, two bits of exponent, one of mantissa, divided by the largest; in
/// the order of the bit patterns. Code 8 would be −0; bitsandbytes makes it 0.
pub(crate) const FP4: [f32; 16] = [
    0.0,
    0.062_5 / 12.0,
    8.0 / 12.0,
    1.0,
    4.0 / 12.0,
    6.0 / 12.0,
    2.0 / 12.0,
    3.0 / 12.0,
    0.0,
    -0.062_5 / 12.0,
    -8.0 / 12.0,
    -1.0,
    -4.0 / 12.0,
    -6.0 / 12.0,
    -2.0 / 12.0,
    -3.0 / 12.0,
];

/// The signed dynamic 8-bit type (Dettmers 2015, arXiv:1511.04561): seven exponents of ten, the
/// i-th with 2^i fractions, which are the middles of even parts of 0.1 to 1; and 0 and 1. Sorted.
pub(crate) fn dynamic_map() -> &'static [f32; 256] {
    static MAP: OnceLock<[f32; 256]> = OnceLock::new();
    MAP.get_or_init(|| {
        let mut values = vec![0.0, 1.0];
        for (i, power) in [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0].into_iter().enumerate() {
            let parts = 1_usize << i;
            let edge = |j: usize| linspace(0.1, 1.0, parts + 1, j);
            for j in 0..parts {
                let middle = 0.5 * (edge(j) + edge(j + 1));
                values.extend([power * middle, -power * middle]);
            }
        }
        values.sort_by(f32::total_cmp);
        values.try_into().expect("2 + 2 (2^7 - 1) values")
    })
}

/// Element `j` of `count` evenly spaced numbers as PyTorch computes it in f32: from the near end.
fn linspace(start: f32, end: f32, count: usize, j: usize) -> f32 {
    let step = (end - start) / (count - 1) as f32;
    if j < count / 2 {
        step.mul_add(j as f32, start)
    } else {
        (-step).mul_add((count - 1 - j) as f32, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_symmetric() {
        assert!(NF4.is_sorted() && dynamic_map().is_sorted());
        for (positive, negative) in FP4[1..8].iter().zip(&FP4[9..]) {
            assert_eq!(positive.to_bits() ^ negative.to_bits(), 1 << 31);
        }
        let map = dynamic_map();
        assert_eq!((map[127], map[255]), (0.0, 1.0));
        // The largest exponent: 64 middles of (1 - 0.1) / 64, the outermost half a part below 1.
        assert!((map[254] - (1.0 - 0.9 / 128.0)).abs() < 1e-7);
        assert!((map[0] + map[254]).abs() < 1e-7);
        let path = "../../tests/fixtures/quant/dynamic_map.safetensors";
        let file =
            std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&file).unwrap();
        let bytes: Vec<u8> = map.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(bytes, file.tensor("dynamic_map").unwrap().data());
        // The smallest: one fraction, 0.55, of 1e-6.
        assert!((map[128] - 0.55e-6).abs() < 1e-12);
    }
}
