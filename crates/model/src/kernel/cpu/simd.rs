//! Which instructions the machine has, and loops compiled for each of them.

/// The widest vectors of this machine.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    Avx512,
    Avx2,
    Portable,
}

/// Asked once, answered from a static afterwards (the detection macro caches).
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn level() -> Level {
    use std::arch::is_x86_feature_detected as has;
    if has!("avx512f") && has!("avx512dq") && has!("avx512vl") && has!("avx512bw") {
        Level::Avx512
    } else if has!("avx2") && has!("fma") {
        Level::Avx2
    } else {
        Level::Portable
    }
}

/// Compiles a loop for AVX-512, for AVX2 and for any machine, and runs the best one. The compiler
/// vectorises the body; it must be made of elementwise operations and of the sums below.
macro_rules! simd {
    ($(#[$doc:meta])* $v:vis fn $name:ident($($a:ident: $t:ty),* $(,)?) $(-> $r:ty)? $body:block) => {
        $(#[$doc])*
        $v fn $name($($a: $t),*) $(-> $r)? {
            #[inline(always)]
            fn body($($a: $t),*) $(-> $r)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn avx512($($a: $t),*) $(-> $r)? { body($($a),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($a: $t),*) $(-> $r)? { body($($a),*) }
                match $crate::kernel::cpu::simd::level() {
                    // SAFETY: the machine has the instructions.
                    $crate::kernel::cpu::simd::Level::Avx512 => return unsafe { avx512($($a),*) },
                    // SAFETY: the machine has the instructions.
                    $crate::kernel::cpu::simd::Level::Avx2 => return unsafe { avx2($($a),*) },
                    $crate::kernel::cpu::simd::Level::Portable => {}
                }
            }
            body($($a),*)
        }
    };
}
pub(super) use simd;

/// Compiles `$body::<L>` for the vectors L of AVX-512, of AVX2 and of any machine, and runs the best
/// one.
macro_rules! levels {
    ($(#[$doc:meta])* $v:vis unsafe fn $name:ident$(<$T:ident: $B:ident>)?(
        $($a:ident: $t:ty),* $(,)?
    ) by $body:ident) => {
        $(#[$doc])*
        $v unsafe fn $name$(<$T: $B>)?($($a: $t),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{__m256, __m512};
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                unsafe fn avx512$(<$T: $B>)?($($a: $t),*) {
                    // SAFETY: the caller's.
                    unsafe { $body::<__m512, $($T)?>($($a),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2$(<$T: $B>)?($($a: $t),*) {
                    // SAFETY: the caller's.
                    unsafe { $body::<__m256, $($T)?>($($a),*) }
                }
                match $crate::kernel::cpu::simd::level() {
                    // SAFETY: the caller's; the machine has the instructions.
                    $crate::kernel::cpu::simd::Level::Avx512 => return unsafe { avx512($($a),*) },
                    // SAFETY: the caller's; the machine has the instructions.
                    $crate::kernel::cpu::simd::Level::Avx2 => return unsafe { avx2($($a),*) },
                    $crate::kernel::cpu::simd::Level::Portable => {}
                }
            }
            // SAFETY: the caller's.
            unsafe { $body::<[f32; 8], $($T)?>($($a),*) }
        }
    };
}
pub(super) use levels;

/// Lanes of an explicit accumulator: sums and maxima of f32 are never reordered by the compiler,
/// so the order is written out.
const LANES: usize = 32;

/// Σ a\[i\] b\[i\].
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks_a, chunks_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = chunks_a.remainder().iter().zip(chunks_b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in chunks_a.zip(chunks_b) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// The largest element; −∞ of none. A NaN is passed over.
#[inline(always)]
pub(super) fn max(a: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |best, &x| best.max(x));
    for a in chunks {
        for i in 0..LANES {
            best[i] = if a[i] > best[i] { a[i] } else { best[i] };
        }
    }
    best.iter().fold(rest, |best, &x| best.max(x))
}

/// Sets a\[i\] = exp(a\[i\] − m) and returns the sum.
#[inline(always)]
pub(super) fn exp_sum(a: &mut [f32], m: f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (whole, rest) = a.split_at_mut(a.len() / LANES * LANES);
    for a in whole.chunks_exact_mut(LANES) {
        for i in 0..LANES {
            a[i] = exp(a[i] - m);
            sums[i] += a[i];
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for a in rest {
        *a = exp(*a - m);
        sum += *a;
    }
    sum
}

/// eˣ with a relative error of about 1e-7. Free of branches, so that the compiler vectorises it,
/// which it never does with the library's.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2, and eʳ by a polynomial (Cephes' coefficients). Below −87 the
/// result is cut off at e⁻⁸⁷ ≈ 1.6e-38, above 88 at e⁸⁸.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding and subtracting 1.5 · 2²³ rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first exact in a product with n.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.0e-1;
    let y = p * r * r + r + 1.0;
    // SAFETY: n is an integer between -126 and 127; a NaN becomes -126 here, and y is NaN anyway.
    let exponent = unsafe { n.max(-126.0).to_int_unchecked::<i32>() };
    f32::from_bits(((exponent + 127) << 23) as u32) * y
}

/// tanh x with a relative error below 1.5e-7: near 0 an odd polynomial (Cephes' coefficients), else
/// 1 − 2 / (e²ˣ + 1). Both are computed and one is chosen, so that it vectorises as [`exp`] does.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let (size, square) = (x.abs(), x * x);
    let mut p = -5.704_988_7e-3;
    p = p * square + 2.063_909e-2;
    p = p * square - 5.373_971_6e-2;
    p = p * square + 1.333_144_2e-1;
    p = p * square - 3.333_328e-1;
    let near = p * square * x + x;
    let far = (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x);
    if size < 0.625 { near } else { far }
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_is_right_to_two_units_of_the_last_place() {
        for i in -870_000..880_000_i32 {
            let x = i as f32 * 1e-4;
            let (found, expected) = (f64::from(super::exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 2.4e-7, "exp({x}) = {found}, not {expected}");
        }
        assert!(super::exp(f32::NAN).is_nan());
        assert!(super::exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn tanh_is_right() {
        for i in -200_000..200_000_i32 {
            let x = i as f32 * 1e-4;
            let (found, expected) = (f64::from(super::tanh(x)), f64::from(x).tanh());
            assert!((found - expected).abs() <= 3e-7 * expected.abs(), "tanh({x}) = {found}");
        }
        assert!(super::tanh(f32::NAN).is_nan());
    }
}
