//! Vectors of f32 in the widths that the machine has.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _MM_HINT_T0, _mm_cvtss_f32, _mm_loadu_si128, _mm_prefetch, _mm256_add_ps,
    _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_permute_ps, _mm256_permute2f128_ps, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_unpackhi_ps,
    _mm256_unpacklo_ps, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtss_f32, _mm512_extractf32x4_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_permute_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_slli_epi32,
    _mm512_storeu_ps, _mm512_unpackhi_ps, _mm512_unpacklo_ps,
};

use half::bf16;

use super::simd::simd;

/// A vector register.
///
/// # Safety
/// The methods may only run on a machine that has the instructions, inside a function compiled
/// for them; pointers are valid for `N` elements.
pub(super) trait Lanes: Copy {
    /// Number of lanes.
    const N: usize;
    /// Rows of a tile of dot products that fit into the registers, with six columns.
    const DOT_ROWS: usize;
    /// Rows of a tile of weighted sums that fit into the registers, with
    const ROWS: usize;
    /// vectors of columns.
    const VECTORS: usize;

    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self + a * b`, rounded once where the machine can.
    unsafe fn add_mul(self, a: Self, b: Self) -> Self;
    unsafe fn plus(self, other: Self) -> Self;
    /// Reads `N` rows, `stride` numbers apart, of `N` numbers and writes them as columns:
    /// `to_stride` numbers lie between two of the rows that are written.
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize);
    /// Asks for a number that is soon read or written; any address will do.
    fn prefetch(_: *const f32) {}
    /// The sum of the lanes of each vector: the upper half is added to the lower one until one lane
    /// is left.
    unsafe fn sum4(vectors: [Self; 4]) -> [f32; 4];
    /// [`Lanes::sum4`] of sixteen vectors: for each place within the fours the sums of the fours.
    unsafe fn sum16(fours: [[Self; 4]; 4], mut each: impl FnMut(usize, [f32; 4])) {
        // SAFETY: the caller's.
        let [a, b, c, d] = fours.map(|four| unsafe { Self::sum4(four) });
        for (i, (((a, b), c), d)) in a.into_iter().zip(b).zip(c).zip(d).enumerate() {
            each(i, [a, b, c, d]);
        }
    }
}

/// An element of a weight matrix, widened to f32 when loaded.
pub(crate) trait Element: Copy + Send + Sync {
    /// Whether widening takes work.
    const NARROW: bool;
    /// As f32.
    fn widen(self) -> f32;
    /// As f32, many of them.
    fn widen_all(narrow: &[Self], wide: &mut [f32]);
    /// A vector of them.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
}

impl Element for f32 {
    const NARROW: bool = false;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    fn widen_all(narrow: &[Self], wide: &mut [f32]) {
        wide.copy_from_slice(narrow);
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's.
        unsafe { L::load(from) }
    }
}

impl Element for bf16 {
    const NARROW: bool = true;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    fn widen_all(narrow: &[Self], wide: &mut [f32]) {
        widen_bf16(narrow, wide);
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's.
        unsafe { L::load_bf16(from) }
    }
}

simd! { fn widen_bf16(narrow: &[bf16], wide: &mut [f32]) {
    for (wide, narrow) in wide.iter_mut().zip(narrow) {
        *wide = narrow.widen();
    }
}}

/// Of a, b, c, d the quarters (low to high), each the sum of the quarters of one vector.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn quarters([a, b, c, d]: [__m512; 4]) -> __m512 {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let halved = |a, b| {
            let (low, high) =
                (_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
            _mm512_add_ps(low, high)
        };
        let (ab, cd) = (halved(a, b), halved(c, d));
        let (low, high) =
            (_mm512_shuffle_f32x4::<0x88>(ab, cd), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
        _mm512_add_ps(low, high)
    }
}

#[cfg(target_arch = "x86_64")]
impl Lanes for __m512 {
    const N: usize = 16;
    const DOT_ROWS: usize = 4;
    const ROWS: usize = 6;
    const VECTORS: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX-512 (as in every block below).
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above; the pointer is valid for 16 elements.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: as above; 16 elements are the 32 bytes that are read.
        unsafe {
            let bits = _mm256_loadu_si256(from.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above; the pointer is valid for 16 elements.
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn add_mul(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, self) }
    }
    #[inline(always)]
    fn prefetch(at: *const f32) {
        // SAFETY: a hint, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: as above; the caller has 16 rows of 16 numbers on both sides.
        unsafe {
            let mut t: [Self; 16] = std::array::from_fn(|i| _mm512_loadu_ps(from.add(i * stride)));
            // Within each quarter of 128 bits a transposition of 4 by 4,
            for four in t.as_chunks_mut::<4>().0 {
                let [a, b, c, d] = *four;
                let (ab, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (cd, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                *four = [
                    _mm512_shuffle_ps::<0x44>(ab, cd),
                    _mm512_shuffle_ps::<0xee>(ab, cd),
                    _mm512_shuffle_ps::<0x44>(ab_high, cd_high),
                    _mm512_shuffle_ps::<0xee>(ab_high, cd_high),
                ];
            }
            // then of the quarters.
            for i in 0..4 {
                let a = _mm512_shuffle_f32x4::<0x88>(t[i], t[i + 4]);
                let b = _mm512_shuffle_f32x4::<0x88>(t[i + 8], t[i + 12]);
                let c = _mm512_shuffle_f32x4::<0xdd>(t[i], t[i + 4]);
                let d = _mm512_shuffle_f32x4::<0xdd>(t[i + 8], t[i + 12]);
                let store = |j: usize, row| _mm512_storeu_ps(to.add(j * to_stride), row);
                store(i, _mm512_shuffle_f32x4::<0x88>(a, b));
                store(i + 4, _mm512_shuffle_f32x4::<0x88>(c, d));
                store(i + 8, _mm512_shuffle_f32x4::<0xdd>(a, b));
                store(i + 12, _mm512_shuffle_f32x4::<0xdd>(c, d));
            }
        }
    }
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sum4(vectors: [Self; 4]) -> [f32; 4] {
        // SAFETY: as above.
        unsafe {
            let four = quarters(vectors);
            let pairs = _mm512_add_ps(four, _mm512_permute_ps::<0x0e>(four));
            let sums = _mm512_add_ps(pairs, _mm512_permute_ps::<0x01>(pairs));
            [
                _mm512_cvtss_f32(sums),
                _mm_cvtss_f32(_mm512_extractf32x4_ps::<1>(sums)),
                _mm_cvtss_f32(_mm512_extractf32x4_ps::<2>(sums)),
                _mm_cvtss_f32(_mm512_extractf32x4_ps::<3>(sums)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn sum16(fours: [[Self; 4]; 4], mut each: impl FnMut(usize, [f32; 4])) {
        // SAFETY: as above; four sums are written to an array of four.
        unsafe {
            let halved = |a, b| {
                _mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xee>(a, b))
            };
            let [a, b, c, d] = fours;
            let (ab, cd) = (halved(quarters(a), quarters(b)), halved(quarters(c), quarters(d)));
            let sums =
                _mm512_add_ps(_mm512_shuffle_ps::<0x88>(ab, cd), _mm512_shuffle_ps::<0xdd>(ab, cd));
            let mut out = [[0.0; 4]; 4];
            _mm512_storeu_ps(out.as_mut_ptr().cast(), sums);
            for (i, four) in out.into_iter().enumerate() {
                each(i, four);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Lanes for __m256 {
    const N: usize = 8;
    const DOT_ROWS: usize = 2;
    const ROWS: usize = 6;
    const VECTORS: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX2 and FMA (as in every block below).
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above; the pointer is valid for 8 elements.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: as above; 8 elements are the 16 bytes that are read.
        unsafe {
            let bits = _mm_loadu_si128(from.cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above; the pointer is valid for 8 elements.
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn add_mul(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(a, b, self) }
    }
    #[inline(always)]
    fn prefetch(at: *const f32) {
        // SAFETY: a hint, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: as above; the caller has 8 rows of 8 numbers on both sides.
        unsafe {
            let mut t: [Self; 8] = std::array::from_fn(|i| _mm256_loadu_ps(from.add(i * stride)));
            for four in t.as_chunks_mut::<4>().0 {
                let [a, b, c, d] = *four;
                let (ab, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (cd, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                *four = [
                    _mm256_shuffle_ps::<0x44>(ab, cd),
                    _mm256_shuffle_ps::<0xee>(ab, cd),
                    _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
                    _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
                ];
            }
            for i in 0..4 {
                let store = |j: usize, row| _mm256_storeu_ps(to.add(j * to_stride), row);
                store(i, _mm256_permute2f128_ps::<0x20>(t[i], t[i + 4]));
                store(i + 4, _mm256_permute2f128_ps::<0x31>(t[i], t[i + 4]));
            }
        }
    }
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        let mut sums = [0.0; 8];
        // SAFETY: as above; eight lanes are written to an array of eight.
        unsafe {
            let halved = |a, b| {
                let (low, high) =
                    (_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
                _mm256_add_ps(low, high)
            };
            let (ab, cd) = (halved(a, b), halved(c, d));
            let pairs =
                _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
            let all = _mm256_add_ps(pairs, _mm256_permute_ps::<0xb1>(pairs));
            _mm256_storeu_ps(sums.as_mut_ptr(), all);
        }
        [sums[0], sums[4], sums[2], sums[6]]
    }
}

/// What the compiler makes of it on any machine.
impl Lanes for [f32; 8] {
    const N: usize = 8;
    const DOT_ROWS: usize = 2;
    const ROWS: usize = 2;
    const VECTORS: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 8]
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 8]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the pointer is valid for 8 elements; arrays of f32 have the alignment of f32.
        unsafe { from.cast::<[f32; 8]>().read() }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the pointer is valid for 8 elements.
        unsafe { from.cast::<[bf16; 8]>().read() }.map(Element::widen)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the pointer is valid for 8 elements.
        unsafe { to.cast::<[f32; 8]>().write(self) }
    }
    #[inline(always)]
    unsafe fn add_mul(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|i| self[i] + a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn sum4(vectors: [Self; 4]) -> [f32; 4] {
        vectors.map(|[a, b, c, d, e, f, g, h]| ((a + e) + (c + g)) + ((b + f) + (d + h)))
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        for i in 0..8 {
            for j in 0..8 {
                // SAFETY: the caller has 8 rows of 8 numbers on both sides.
                unsafe { *to.add(j * to_stride + i) = *from.add(i * stride + j) };
            }
        }
    }
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
}
