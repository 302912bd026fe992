//! Numbers as checkpoints store them, to f32 and back.

use half::slice::HalfFloatSliceExt;
use pulp::Arch;
pub use safetensors::Dtype;

/// Bytes of one element.
pub fn size_of(dtype: Dtype) -> usize {
    dtype.bitsize().div_ceil(8)
}

/// Whether merges read this type as numbers: f32, f16, bf16 and the two fp8 types.
pub fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F8_E4M3 | Dtype::F8_E5M2)
}

/// Whether merges write this type.
pub fn is_written(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// The name in configurations: `float32`, `bfloat16`, `float16`.
pub fn name(dtype: Dtype) -> String {
    match dtype {
        Dtype::F32 => "float32".into(),
        Dtype::F16 => "float16".into(),
        Dtype::BF16 => "bfloat16".into(),
        Dtype::F64 => "float64".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The name in safetensors headers: `F32`, `BF16`, `F16`.
pub fn stored_name(dtype: Dtype) -> String {
    match serde_json::to_value(dtype) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{dtype:?}"),
    }
}

/// The type of a result of several types, as torch promotes: f16 with bf16 is f32, fp8 gives way to
/// every other.
pub fn promote(a: Dtype, b: Dtype) -> Dtype {
    let fp8 = |dtype| matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2);
    match (a, b) {
        _ if a == b => a,
        _ if fp8(a) && !fp8(b) => b,
        _ if fp8(b) && !fp8(a) => a,
        _ if fp8(a) => Dtype::BF16,
        _ => Dtype::F32,
    }
}

/// Little-endian elements of `dtype` as f32. `bytes` holds exactly `out.len()` elements.
///
/// # Panics
/// For a type that is not [`is_float`], and for lengths that differ.
pub fn decode(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * size_of(dtype), "as many elements as places");
    match dtype {
        Dtype::F32 => {
            for (place, four) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *place = f32::from_le_bytes(*four);
            }
        }
        Dtype::BF16 => Arch::new().dispatch(|| {
            for (place, two) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *place = f32::from_bits(u32::from(u16::from_le_bytes(*two)) << 16);
            }
        }),
        Dtype::F16 => {
            // In pieces on the stack: mapped bytes have no alignment that the conversion could use.
            let mut piece = [half::f16::ZERO; 1024];
            for (places, bytes) in out.chunks_mut(1024).zip(bytes.chunks(2048)) {
                for (half, two) in piece.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *half = half::f16::from_bits(u16::from_le_bytes(*two));
                }
                piece[..places.len()].convert_to_f32_slice(places);
            }
        }
        Dtype::F8_E4M3 => table(&E4M3, bytes, out),
        Dtype::F8_E5M2 => table(&E5M2, bytes, out),
        other => panic!("{other:?} is not read as numbers"),
    }
}

/// `values` as little-endian elements of `dtype`, rounded to the nearest, ties to even.
///
/// # Panics
/// For a type that is not [`is_written`], and for lengths that differ.
pub fn encode(dtype: Dtype, values: &[f32], out: &mut [u8]) {
    assert_eq!(out.len(), values.len() * size_of(dtype), "as many places as elements");
    match dtype {
        Dtype::F32 => {
            for (place, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *place = value.to_le_bytes();
            }
        }
        Dtype::BF16 => Arch::new().dispatch(|| {
            for (place, value) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *place = bf16_bits(*value).to_le_bytes();
            }
        }),
        Dtype::F16 => {
            let mut piece = [half::f16::ZERO; 1024];
            for (places, values) in out.chunks_mut(2048).zip(values.chunks(1024)) {
                piece[..values.len()].convert_from_f32_slice(values);
                for (place, half) in places.as_chunks_mut::<2>().0.iter_mut().zip(&piece) {
                    *place = half.to_bits().to_le_bytes();
                }
            }
        }
        other => panic!("{other:?} is not written"),
    }
}

/// Each value as if it had been stored as `dtype` and read again; nothing for f32.
pub fn round(dtype: Dtype, values: &mut [f32]) {
    match dtype {
        Dtype::BF16 => Arch::new().dispatch(|| {
            for value in &mut *values {
                *value = f32::from_bits(u32::from(bf16_bits(*value)) << 16);
            }
        }),
        Dtype::F16 => {
            let mut piece = [half::f16::ZERO; 1024];
            for values in values.chunks_mut(1024) {
                piece[..values.len()].convert_from_f32_slice(values);
                piece[..values.len()].convert_to_f32_slice(values);
            }
        }
        _ => {}
    }
}

/// Nearest, ties to even; a NaN stays one. Without branches, so that the loop becomes vectors.
#[inline]
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = (bits >> 16) | 0x40;
    (if value.is_nan() { nan } else { rounded }) as u16
}

fn table(values: &[f32; 256], bytes: &[u8], out: &mut [f32]) {
    for (place, byte) in out.iter_mut().zip(bytes) {
        *place = values[usize::from(*byte)];
    }
}

/// fp8 with 4 bits of exponent (bias 7) and 3 of mantissa; no infinities, 0x7f is NaN.
static E4M3: [f32; 256] = small_floats(4, 3, 7, true);
/// fp8 with 5 bits of exponent (bias 15) and 2 of mantissa, IEEE-like.
static E5M2: [f32; 256] = small_floats(5, 2, 15, false);

const fn small_floats(exponent: u32, mantissa: u32, bias: i32, finite: bool) -> [f32; 256] {
    let mut values = [0.0f32; 256];
    let mut code = 0u32;
    while code < 256 {
        let sign = (code >> 7) << 31;
        let e = (code >> mantissa) & ((1 << exponent) - 1);
        let m = code & ((1 << mantissa) - 1);
        let top = e == (1 << exponent) - 1;
        let bits = if top && !finite {
            0x7f80_0000 | (m << (23 - mantissa))
        } else if top && m == (1 << mantissa) - 1 && finite {
            0x7fc0_0000
        } else if e == 0 {
            // m * 2^(1 - bias - mantissa), a normal f32.
            let mut value = m as f32;
            let mut halvings = 0;
            while halvings < bias - 1 + mantissa as i32 {
                value *= 0.5;
                halvings += 1;
            }
            value.to_bits()
        } else {
            (((e as i32 - bias + 127) as u32) << 23) | (m << (23 - mantissa))
        };
        values[code as usize] = f32::from_bits(sign | bits);
        code += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_16_bit_float_comes_back() {
        for dtype in [Dtype::F16, Dtype::BF16] {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let mut values = vec![0.0; 1 << 16];
            decode(dtype, &bytes, &mut values);
            for (code, value) in (0..=u16::MAX).zip(&values) {
                let wanted = match dtype {
                    Dtype::F16 => half::f16::from_bits(code).to_f32(),
                    _ => half::bf16::from_bits(code).to_f32(),
                };
                assert!(*value == wanted || value.is_nan() && wanted.is_nan(), "{code:04x}");
            }
            let mut again = vec![0; bytes.len()];
            encode(dtype, &values, &mut again);
            let mut twice = vec![0.0; 1 << 16];
            decode(dtype, &again, &mut twice);
            for (a, b) in values.iter().zip(&twice) {
                assert!(a == b || a.is_nan() && b.is_nan());
            }
        }
    }

    #[test]
    fn rounding_is_that_of_half() {
        let mut bits = 0x1234_5678u32;
        let values: Vec<f32> = (0..100_000)
            .map(|_| {
                bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from_bits(bits)
            })
            .chain([f32::MAX, f32::MIN_POSITIVE, f32::INFINITY, -0.0, 1.003_906_2])
            .collect();
        for dtype in [Dtype::F16, Dtype::BF16] {
            let mut rounded = values.clone();
            round(dtype, &mut rounded);
            for (value, rounded) in values.iter().zip(rounded) {
                let wanted = match dtype {
                    Dtype::F16 => half::f16::from_f32(*value).to_f32(),
                    _ => half::bf16::from_f32(*value).to_f32(),
                };
                assert!(rounded == wanted || rounded.is_nan() && wanted.is_nan(), "{value}");
            }
        }
    }

    #[test]
    fn fp8_by_hand() {
        let mut out = [0.0; 6];
        decode(Dtype::F8_E4M3, &[0x38, 0x01, 0x7e, 0x80, 0xb8, 0x7f], &mut out);
        assert_eq!(out[..3], [1.0, 1.0 / 512.0, 448.0]);
        assert!(out[3] == 0.0 && out[3].is_sign_negative() && out[4] == -1.0 && out[5].is_nan());
        decode(Dtype::F8_E5M2, &[0x3c, 0x01, 0x7b, 0x7c, 0xfc, 0x7d], &mut out);
        assert_eq!(out[..3], [1.0, 1.0 / 65_536.0, 57_344.0]);
        assert!(out[3] == f32::INFINITY && out[4] == f32::NEG_INFINITY && out[5].is_nan());
    }

    #[test]
    fn promotion_is_torchs() {
        assert_eq!(promote(Dtype::F16, Dtype::BF16), Dtype::F32);
        assert_eq!(promote(Dtype::BF16, Dtype::BF16), Dtype::BF16);
        assert_eq!(promote(Dtype::BF16, Dtype::F32), Dtype::F32);
        assert_eq!(promote(Dtype::F8_E4M3, Dtype::BF16), Dtype::BF16);
    }
}
