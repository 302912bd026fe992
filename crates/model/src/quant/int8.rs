//! Rows in 8-bit integers, the weights of `LLM.int8()` (Dettmers et al. 2022, arXiv:2208.07339), with
//! the codes of bitsandbytes 0.50.
//!
//! scale = max |w| of the row, code = round(127 w / scale), w ≈ code · scale / 127. As bitsandbytes
//! does, the weights are rounded to half precision first.
//!
//! `LLM.int8()` also rounds the hidden states to 8 bits, except for outlier features (above 6), which
//! it multiplies in half precision. Here hidden states stay as they are, so that there is nothing
//! to be spared from rounding: the product is that of the dequantised weights.

use half::f16;

/// 1 / 127 as bitsandbytes writes it.
pub(crate) const STEP: f32 = 7.874_016e-3;

/// Codes and the scale of each row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rows {
    pub(crate) codes: Vec<i8>,
    pub(crate) scales: Vec<f32>,
}

/// Quantises rows of `columns` numbers, finite in half precision.
pub(crate) fn quantize(numbers: &[f32], columns: usize) -> Rows {
    let mut rows = Rows { codes: Vec::with_capacity(numbers.len()), scales: Vec::new() };
    for row in numbers.chunks(columns) {
        let half = |w: f32| f16::from_f32(w).to_f32();
        let scale = row.iter().fold(0.0_f32, |largest, &w| largest.max(half(w).abs()));
        // In PyTorch 127 / x is 127 times the reciprocal.
        let factor = if scale == 0.0 { 0.0 } else { 1.0 / scale * 127.0 };
        rows.codes.extend(row.iter().map(|&w| (half(w) * factor).round_ties_even() as i8));
        rows.scales.push(scale);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_by_hand() {
        // 127 · 0.5 / 2 = 31.75 and 127 · 1 / 2 = 63.5, which rounds to the even 64.
        let rows = quantize(&[2.0, -0.5, 1.0, 0.0, 0.0, 0.0], 3);
        assert_eq!((rows.codes, rows.scales), (vec![127, -32, 64, 0, 0, 0], vec![2.0, 0.0]));
    }
}
