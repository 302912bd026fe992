//! Loops over blocks of numbers, in vectors as wide as the processor has them.
//!
//! What the loops compute does not depend on the width: a multiply-add is fused where the function says so
//! and nowhere else, and sums have a fixed order.

use pulp::Arch;

/// Places that [`dot`] sums side by side.
const LANES: usize = 32;

/// `out = a - b`.
pub fn sub(out: &mut [f32], a: &[f32], b: &[f32]) {
    Arch::new().dispatch(|| {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = a - b;
        }
    });
}

/// `out = a + b`.
pub fn add(out: &mut [f32], a: &[f32], b: &[f32]) {
    Arch::new().dispatch(|| {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = a + b;
        }
    });
}

/// `x -= b`.
pub fn sub_from(x: &mut [f32], b: &[f32]) {
    Arch::new().dispatch(|| {
        for (x, b) in x.iter_mut().zip(b) {
            *x -= b;
        }
    });
}

/// `x += b`.
pub fn add_to(x: &mut [f32], b: &[f32]) {
    Arch::new().dispatch(|| {
        for (x, b) in x.iter_mut().zip(b) {
            *x += b;
        }
    });
}

/// `x_j += c`.
pub fn shift(x: &mut [f32], c: f32) {
    Arch::new().dispatch(|| {
        for x in x.iter_mut() {
            *x += c;
        }
    });
}

/// `x *= c`.
pub fn scale(x: &mut [f32], c: f32) {
    Arch::new().dispatch(|| {
        for x in x.iter_mut() {
            *x *= c;
        }
    });
}

/// `x /= c`.
pub fn divide(x: &mut [f32], c: f32) {
    Arch::new().dispatch(|| {
        for x in x.iter_mut() {
            *x /= c;
        }
    });
}

/// `x_i *= c_i`.
pub fn scale_each(x: &mut [f32], c: &[f32]) {
    Arch::new().dispatch(|| {
        for (x, c) in x.iter_mut().zip(c) {
            *x *= c;
        }
    });
}

/// `x_i /= c_i`.
pub fn divide_each(x: &mut [f32], c: &[f32]) {
    Arch::new().dispatch(|| {
        for (x, c) in x.iter_mut().zip(c) {
            *x /= c;
        }
    });
}

/// `sums_i += a_i b_i`, in f64.
pub fn add_products(sums: &mut [f64], a: &[f32], b: &[f32]) {
    Arch::new().dispatch(|| {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += f64::from(*a) * f64::from(*b);
        }
    });
}

/// How many of the `x_i` are so.
pub fn count(x: &[f32], so: impl Fn(f32) -> bool) -> u32 {
    Arch::new().dispatch(
        #[inline(always)]
        || x.iter().map(|x| u32::from(so(*x))).sum(),
    )
}

/// How many pairs of `x_i` and `b_i` are so.
pub fn count_with(x: &[f32], b: &[f32], so: impl Fn(f32, f32) -> bool) -> u32 {
    Arch::new().dispatch(
        #[inline(always)]
        || x.iter().zip(b).map(|(x, b)| u32::from(so(*x, *b))).sum(),
    )
}

/// `x_i = of(x_i)`.
pub fn each(x: &mut [f32], of: impl Fn(f32) -> f32) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for x in x.iter_mut() {
                *x = of(*x);
            }
        },
    );
}

/// `x_i = of(x_i, b_i)`.
pub fn each_with(x: &mut [f32], b: &[f32], of: impl Fn(f32, f32) -> f32) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (x, b) in x.iter_mut().zip(b) {
                *x = of(*x, *b);
            }
        },
    );
}

/// `out = c x`.
pub fn scaled(out: &mut [f32], c: f32, x: &[f32]) {
    Arch::new().dispatch(|| {
        for (out, x) in out.iter_mut().zip(x) {
            *out = c * x;
        }
    });
}

/// `out += c x`, rounded once: torch's `addcmul`.
pub fn fused(out: &mut [f32], c: f32, x: &[f32]) {
    Arch::new().dispatch(|| {
        for (out, x) in out.iter_mut().zip(x) {
            *out = c.mul_add(*x, *out);
        }
    });
}

/// `out += c x`, the product rounded before it is added.
pub fn axpy(out: &mut [f32], c: f32, x: &[f32]) {
    Arch::new().dispatch(|| {
        for (out, x) in out.iter_mut().zip(x) {
            *out += c * x;
        }
    });
}

/// Whether there is a NaN.
pub fn has_nan(x: &[f32]) -> bool {
    any(x, f32::is_nan)
}

/// Whether one of the numbers is so.
pub fn any(x: &[f32], is: impl Fn(f32) -> bool) -> bool {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            let mut found = false;
            for x in x {
                found |= is(*x);
            }
            found
        },
    )
}

/// `y += x m`, the product rounded before it is added.
pub fn add_product(y: &mut [f32], x: &[f32], m: &[f32]) {
    Arch::new().dispatch(|| {
        for ((y, x), m) in y.iter_mut().zip(x).zip(m) {
            *y += x * m;
        }
    });
}

/// 1 in place of 0.
pub fn zeros_to_ones(x: &mut [f32]) {
    Arch::new().dispatch(|| {
        for x in x.iter_mut() {
            *x = if *x == 0.0 { 1.0 } else { *x };
        }
    });
}

/// 1 where `x` has the sign of `of`, and else 0: 0 has the sign of nothing, and an `of` of 0 is positive.
pub fn same_sign(mask: &mut [f32], x: &[f32], of: &[f32]) {
    Arch::new().dispatch(|| {
        for ((mask, x), of) in mask.iter_mut().zip(x).zip(of) {
            let turned = if *of >= 0.0 { *x } else { -*x };
            *mask = f32::from(u8::from(turned > 0.0));
        }
    });
}

/// `x_j` times 1 where `u_j < p_j`, and else times 0.
pub fn keep_below(x: &mut [f32], u: &[f32], p: &[f32]) {
    Arch::new().dispatch(|| {
        for ((x, u), p) in x.iter_mut().zip(u).zip(p) {
            *x *= f32::from(u8::from(u < p));
        }
    });
}

/// `x` times 1 where the bits of `|x|` lie in `from..to`, and else times 0. Sizes have the order of their
/// bits.
pub fn keep_sizes(x: &mut [f32], from: u32, to: u32) {
    let width = to.saturating_sub(from);
    Arch::new().dispatch(|| {
        for x in x.iter_mut() {
            let above = x.abs().to_bits().wrapping_sub(from);
            *x *= f32::from(u8::from(above < width));
        }
    });
}

/// `sum a b`, in f32 over short stretches and in f64 above them.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    Arch::new().dispatch(|| {
        let mut sum = 0.0;
        for (a, b) in a.chunks(LANES * 32).zip(b.chunks(LANES * 32)) {
            let mut lanes = [0.0f32; LANES];
            let (a, a_rest) = a.as_chunks::<LANES>();
            let (b, b_rest) = b.as_chunks::<LANES>();
            for (a, b) in a.iter().zip(b) {
                for lane in 0..LANES {
                    lanes[lane] += a[lane] * b[lane];
                }
            }
            for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
                lanes[lane] += a * b;
            }
            sum += lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>();
        }
        sum
    })
}

/// `sum a b`, products and sums in f64: what remains of vectors that almost cancel is still exact.
pub fn dot_f64(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 16;
    Arch::new().dispatch(|| {
        let mut lanes = [0.0f64; LANES];
        let (a, a_rest) = a.as_chunks::<LANES>();
        let (b, b_rest) = b.as_chunks::<LANES>();
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                lanes[lane] += f64::from(a[lane]) * f64::from(b[lane]);
            }
        }
        for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
            lanes[lane] += f64::from(*a) * f64::from(*b);
        }
        lanes.iter().sum()
    })
}

/// `sum |x|`, as [`dot`] sums.
pub fn l1(x: &[f32]) -> f64 {
    Arch::new().dispatch(|| {
        let mut sum = 0.0;
        for x in x.chunks(LANES * 32) {
            let mut lanes = [0.0f32; LANES];
            let (x, rest) = x.as_chunks::<LANES>();
            for x in x {
                for lane in 0..LANES {
                    lanes[lane] += x[lane].abs();
                }
            }
            for (lane, x) in rest.iter().enumerate() {
                lanes[lane] += x.abs();
            }
            sum += lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>();
        }
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_close_to_those_of_f64() {
        for n in [0, 1, 31, 32, 33, 1023, 1024, 1025, 5000] {
            let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..n).map(|i| (i as f32 * 0.11).cos()).collect();
            let wanted: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((dot(&a, &b) - wanted).abs() < 1e-6 * f64::from(n).max(1.0));
            assert!((dot_f64(&a, &b) - wanted).abs() < 1e-14 * f64::from(n).max(1.0));
            let wanted: f64 = a.iter().map(|a| f64::from(a.abs())).sum();
            assert!((l1(&a) - wanted).abs() < 1e-6 * f64::from(n).max(1.0));
        }
    }
}
