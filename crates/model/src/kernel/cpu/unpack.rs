//! Four-bit codes to the numbers they stand for: sixteen at a time through the machine's table
//! look-up in a register.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256i, _mm256_blendv_ps, _mm256_castsi256_ps, _mm256_loadu_ps, _mm256_mul_ps,
    _mm256_permutevar8x32_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32,
    _mm256_slli_epi32, _mm256_srlv_epi32, _mm256_storeu_ps, _mm512_loadu_ps, _mm512_mul_ps,
    _mm512_permutexvar_epi32, _mm512_permutexvar_ps, _mm512_set1_epi64, _mm512_set1_ps,
    _mm512_setr_epi32, _mm512_srlv_epi32, _mm512_storeu_ps,
};

/// Where the codes of a word stand: two in a byte, the first in the upper half.
const SHIFTS: [i32; 8] = [4, 0, 12, 8, 20, 16, 28, 24];

/// Numbers `start ..` of a matrix: the values of their codes times `scale`.
pub(super) fn unpack(words: &[i32], start: usize, table: &[f32; 16], scale: f32, out: &mut [f32]) {
    let value = |i: usize| table[(words[i / 8] >> SHIFTS[i % 8] & 15) as usize] * scale;
    // Up to the first word that is needed whole, the words, the rest.
    let head = (start.next_multiple_of(8) - start).min(out.len());
    let (first, out) = out.split_at_mut(head);
    first.iter_mut().enumerate().for_each(|(i, w)| *w = value(start + i));
    let start = start + head;
    let (whole, last) = out.as_chunks_mut::<8>();
    let first_word = start / 8;
    unpack_words(&words[first_word..first_word + whole.len()], table, scale, whole);
    let start = start + 8 * whole.len();
    last.iter_mut().enumerate().for_each(|(i, w)| *w = value(start + i));
}

fn unpack_words(words: &[i32], table: &[f32; 16], scale: f32, out: &mut [[f32; 8]]) {
    #[cfg(target_arch = "x86_64")]
    match super::simd::level() {
        // SAFETY: the machine has the instructions.
        super::simd::Level::Avx512 => return unsafe { unpack_avx512(words, table, scale, out) },
        // SAFETY: the machine has the instructions.
        super::simd::Level::Avx2 => return unsafe { unpack_avx2(words, table, scale, out) },
        super::simd::Level::Portable => {}
    }
    unpack_portable(words, table, scale, out);
}

fn unpack_portable(words: &[i32], table: &[f32; 16], scale: f32, out: &mut [[f32; 8]]) {
    for (out, word) in out.iter_mut().zip(words) {
        *out = SHIFTS.map(|shift| table[(word >> shift & 15) as usize] * scale);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn unpack_avx2(words: &[i32], table: &[f32; 16], scale: f32, out: &mut [[f32; 8]]) {
    let shifts = shifts_avx2();
    // SAFETY: the table has sixteen numbers, eight in each half.
    let (low, high) =
        unsafe { (_mm256_loadu_ps(table.as_ptr()), _mm256_loadu_ps(table.as_ptr().add(8))) };
    let scale = _mm256_set1_ps(scale);
    for (out, &word) in out.iter_mut().zip(words) {
        // The look-up reads the lowest three bits; the fourth chooses the half.
        let codes = _mm256_srlv_epi32(_mm256_set1_epi32(word), shifts);
        let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
        let values = _mm256_blendv_ps(
            _mm256_permutevar8x32_ps(low, codes),
            _mm256_permutevar8x32_ps(high, codes),
            upper,
        );
        // SAFETY: eight numbers.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_mul_ps(values, scale)) };
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn shifts_avx2() -> __m256i {
    let [a, b, c, d, e, f, g, h] = SHIFTS;
    _mm256_setr_epi32(a, b, c, d, e, f, g, h)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
fn unpack_avx512(words: &[i32], table: &[f32; 16], scale: f32, out: &mut [[f32; 8]]) {
    let (pairs, rest) = words.as_chunks::<2>();
    let (whole, last) = out.as_chunks_mut::<2>();
    unpack_avx2(rest, table, scale, last);
    let [a, b, c, d, e, f, g, h] = SHIFTS;
    let shifts = _mm512_setr_epi32(a, b, c, d, e, f, g, h, a, b, c, d, e, f, g, h);
    let halves = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    // SAFETY: the table has sixteen numbers.
    let table = unsafe { _mm512_loadu_ps(table.as_ptr()) };
    let scale = _mm512_set1_ps(scale);
    for (out, &[first, second]) in whole.iter_mut().zip(pairs) {
        let both = i64::from(second) << 32 | i64::from(first.cast_unsigned());
        let words = _mm512_permutexvar_epi32(halves, _mm512_set1_epi64(both));
        // The look-up reads the lowest four bits.
        let codes = _mm512_srlv_epi32(words, shifts);
        let values = _mm512_mul_ps(_mm512_permutexvar_ps(codes, table), scale);
        // SAFETY: twice eight numbers.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr().cast(), values) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_at_every_place() {
        let table: [f32; 16] = std::array::from_fn(|code| code as f32 - 3.0);
        // The k-th number has the code 7k mod 16.
        let code = |k: usize| 7 * k % 16;
        let words: Vec<i32> = (0..13)
            .map(|w| {
                let byte = |b: usize| (code(8 * w + 2 * b) << 4 | code(8 * w + 2 * b + 1)) as u8;
                i32::from_le_bytes(std::array::from_fn(byte))
            })
            .collect();
        for (start, length) in [(0, 104), (0, 5), (3, 4), (3, 101), (8, 40), (13, 64), (103, 1)] {
            let mut out = vec![f32::NAN; length];
            unpack(&words, start, &table, 0.5, &mut out);
            for (i, found) in out.iter().enumerate() {
                assert_eq!(*found, (code(start + i) as f32 - 3.0) * 0.5, "{start} + {i}");
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn all_levels_agree() {
        let words: Vec<i32> = (0..7_i32).map(|i| i.wrapping_mul(0x9e37_79b1_u32 as i32)).collect();
        let table: [f32; 16] = std::array::from_fn(|code| (code as f32).sin());
        let mut expected = [[0.0; 8]; 7];
        unpack_portable(&words, &table, 1.25, &mut expected);
        if std::arch::is_x86_feature_detected!("avx2") {
            let mut found = [[0.0; 8]; 7];
            // SAFETY: just asked for.
            unsafe { unpack_avx2(&words, &table, 1.25, &mut found) };
            assert_eq!(found, expected);
        }
    }
}
