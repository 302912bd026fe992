//! Weights to another float type, as fast as memory allows.

use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use super::broken;
use super::reader::TensorView;
use crate::error::Error;

/// Elements of one parallel piece: 1 MiB of f32, which stays in the cache of a core.
const PIECE: usize = 1 << 18;
/// Elements that are copied to an aligned buffer at once.
const BLOCK: usize = 512;

impl TensorView<'_> {
    /// The elements as f32, which is exact.
    ///
    /// # Errors
    /// When the elements are not F32, F16 or BF16; the other conversions too.
    pub fn to_f32(&self) -> Result<Vec<f32>, Error> {
        let convert: fn(&[u8], &mut [f32]) = match self.dtype {
            Dtype::F32 => f32_from_f32,
            Dtype::BF16 => f32_from_bf16,
            Dtype::F16 => f32_from_f16,
            _ => return Err(self.unsupported()),
        };
        Ok(self.convert(convert))
    }

    /// The elements as f16, rounded to nearest even; too large ones become infinite.
    ///
    /// # Errors
    /// See [`Self::to_f32`].
    pub fn to_f16(&self) -> Result<Vec<f16>, Error> {
        let convert: fn(&[u8], &mut [u16]) = match self.dtype {
            Dtype::F32 => |bytes, out| f16_through(f32_from_f32, 4, bytes, out),
            Dtype::BF16 => |bytes, out| f16_through(f32_from_bf16, 2, bytes, out),
            Dtype::F16 => u16_from_u16,
            _ => return Err(self.unsupported()),
        };
        Ok(self.convert(convert).reinterpret_into())
    }

    /// The elements as bf16, rounded to nearest even.
    ///
    /// # Errors
    /// See [`Self::to_f32`].
    pub fn to_bf16(&self) -> Result<Vec<bf16>, Error> {
        let convert: fn(&[u8], &mut [u16]) = match self.dtype {
            Dtype::F32 => bf16_from_f32,
            Dtype::BF16 => u16_from_u16,
            Dtype::F16 => |bytes, out| {
                let mut wide = [0.0; BLOCK];
                for (bytes, out) in bytes.chunks(2 * BLOCK).zip(out.chunks_mut(BLOCK)) {
                    let wide = &mut wide[..out.len()];
                    f32_from_f16(bytes, wide);
                    for (out, value) in out.iter_mut().zip(wide) {
                        *out = round_to_bf16(*value);
                    }
                }
            },
            _ => return Err(self.unsupported()),
        };
        Ok(self.convert(convert).reinterpret_into())
    }

    /// Run `piece` over the elements, in parallel where there are many.
    fn convert<T>(&self, piece: fn(&[u8], &mut [T])) -> Vec<T>
    where
        T: Copy + Default + Send,
        Vec<T>: Zeroed,
    {
        let width = self.dtype.bitsize() / 8;
        // Zeroed memory comes from the system lazily, so each thread touches its own pages first.
        let mut out = Vec::<T>::zeroed(self.bytes.len() / width);
        if out.len() <= PIECE {
            piece(self.bytes, &mut out);
        } else {
            let pieces = self.bytes.par_chunks(PIECE * width);
            out.par_chunks_mut(PIECE).zip(pieces).for_each(|(out, bytes)| piece(bytes, out));
        }
        out
    }

    fn unsupported(&self) -> Error {
        let Self { name, dtype, .. } = self;
        let reason = format!("tensor `{name}` is {dtype}, supported are F32, F16 and BF16");
        broken(self.path, reason)
    }
}

/// `vec![0; n]` for a type that is known, so that the allocator gives zeroed memory.
trait Zeroed {
    fn zeroed(length: usize) -> Self;
}

impl Zeroed for Vec<f32> {
    fn zeroed(length: usize) -> Self {
        vec![0.0; length]
    }
}

impl Zeroed for Vec<u16> {
    fn zeroed(length: usize) -> Self {
        vec![0; length]
    }
}

fn f32_from_f32(bytes: &[u8], out: &mut [f32]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = f32::from_le_bytes(*bytes);
    }
}

fn f32_from_bf16(bytes: &[u8], out: &mut [f32]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

fn f32_from_f16(bytes: &[u8], out: &mut [f32]) {
    // `half` uses F16C or NEON where the processor has it, but only from aligned memory.
    let mut aligned = [f16::ZERO; BLOCK];
    for (bytes, out) in bytes.chunks(2 * BLOCK).zip(out.chunks_mut(BLOCK)) {
        let aligned = &mut aligned[..out.len()];
        for (to, bytes) in aligned.iter_mut().zip(bytes.as_chunks().0) {
            *to = f16::from_le_bytes(*bytes);
        }
        aligned.convert_to_f32_slice(out);
    }
}

fn u16_from_u16(bytes: &[u8], out: &mut [u16]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = u16::from_le_bytes(*bytes);
    }
}

fn bf16_from_f32(bytes: &[u8], out: &mut [u16]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = round_to_bf16(f32::from_le_bytes(*bytes));
    }
}

/// Without a branch, so that it vectorises. A NaN stays one: the quiet bit is set, for the rounding
/// could carry it to infinity.
fn round_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded }) as u16
}

fn f16_through(widen: fn(&[u8], &mut [f32]), width: usize, bytes: &[u8], out: &mut [u16]) {
    let mut wide = [0.0; BLOCK];
    let mut narrow = [f16::ZERO; BLOCK];
    for (bytes, out) in bytes.chunks(width * BLOCK).zip(out.chunks_mut(BLOCK)) {
        let (wide, narrow) = (&mut wide[..out.len()], &mut narrow[..out.len()]);
        widen(bytes, wide);
        narrow.convert_from_f32_slice(wide);
        for (out, value) in out.iter_mut().zip(narrow) {
            *out = value.to_bits();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn view<'a>(dtype: Dtype, shape: &'a [usize], bytes: &'a [u8]) -> TensorView<'a> {
        TensorView { name: "t", dtype, shape, bytes, path: Path::new("w") }
    }

    /// Every 16-bit pattern, from a slice that is not aligned.
    fn patterns() -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((0..=u16::MAX).flat_map(u16::to_le_bytes));
        bytes
    }

    fn same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
    }

    #[test]
    fn every_half_converts_as_its_crate_does() {
        let bytes = patterns();
        let bf = view(Dtype::BF16, &[1 << 16], &bytes[1..]);
        let h = view(Dtype::F16, &[1 << 16], &bytes[1..]);
        for (bits, (a, b)) in
            (0..=u16::MAX).zip(bf.to_f32().unwrap().iter().zip(h.to_f32().unwrap()))
        {
            assert_eq!(a.to_bits(), u32::from(bits) << 16);
            assert!(same(b, f16::from_bits(bits).to_f32()), "{bits:#x}");
        }
        let pairs = bf.to_f16().unwrap().into_iter().zip(h.to_bf16().unwrap());
        for (bits, (a, b)) in (0..=u16::MAX).zip(pairs) {
            assert!(same(a.to_f32(), f16::from_f32(bf16::from_bits(bits).to_f32()).to_f32()));
            assert!(same(b.to_f32(), bf16::from_f32(f16::from_bits(bits).to_f32()).to_f32()));
        }
        let kept = bf.to_bf16().unwrap().into_iter().zip(h.to_f16().unwrap());
        for (bits, (a, b)) in (0..=u16::MAX).zip(kept) {
            assert_eq!((a.to_bits(), b.to_bits()), (bits, bits));
        }
    }

    #[test]
    fn f32_rounds_as_half_does() {
        let mut state = 1_u32;
        let mut values = vec![0.0, -0.0, f32::INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE];
        values.push(f32::from_bits(0x7f80_0001));
        values.push(f32::from_bits(0xffff_ffff));
        // More than one parallel piece, with a rest.
        values.extend((0..3 * PIECE + 5).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from_bits(state)
        }));
        let mut bytes = vec![0];
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let shape = [values.len()];
        let view = view(Dtype::F32, &shape, &bytes[1..]);
        let (bf, h, f) = (view.to_bf16().unwrap(), view.to_f16().unwrap(), view.to_f32().unwrap());
        assert_eq!((bf.len(), h.len(), f.len()), (shape[0], shape[0], shape[0]));
        for (i, value) in values.into_iter().enumerate() {
            assert_eq!(bf[i].to_bits(), bf16::from_f32(value).to_bits(), "{value:e}");
            assert!(same(h[i].to_f32(), f16::from_f32(value).to_f32()), "{value:e}");
            assert_eq!(f[i].to_bits(), value.to_bits());
        }
    }

    #[test]
    fn other_types_are_refused_by_name() {
        let error = view(Dtype::F64, &[1], &[0; 8]).to_f32().unwrap_err().to_string();
        assert_eq!(error, "w: tensor `t` is F64, supported are F32, F16 and BF16");
    }
}
