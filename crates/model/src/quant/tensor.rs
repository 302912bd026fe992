//! A quantised matrix on a device.

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::{QuantizationKind, four_bit, int8, nested};
use crate::error::Error;
use crate::kernel::quantized as kernel;

/// A frozen matrix `[out, in]` in four or eight bits.
///
/// Codes lie eight (or four) in a 32-bit integer, which every device has, in the order of their
/// bytes in bitsandbytes.
#[derive(Module, Debug)]
pub struct Quantized {
    /// Codes, `[ceil(n / 8)]`, or `[ceil(n / 4)]` of int8.
    words: Tensor<1, Int>,
    /// Of blocks, of rows, or of blocks of quantised scales.
    scales: Tensor<1>,
    /// The quantised scales of blocks, four in an integer; one zero where there are none.
    nested: Tensor<1, Int>,
    #[module(skip)]
    kind: QuantizationKind,
    #[module(skip)]
    form: kernel::Form,
}

impl Quantized {
    /// Quantises a matrix `[out, in]`. `dtype` is the type of the original: as in bitsandbytes the
    /// values that 4-bit codes stand for are rounded to it.
    ///
    /// # Errors
    /// [`Error::Input`] when a number is not finite; `name` is what the error says.
    pub fn new(
        name: &str,
        numbers: &[f32],
        shape: [usize; 2],
        kind: QuantizationKind,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, Error> {
        assert_eq!(numbers.len(), shape[0] * shape[1], "the numbers of a matrix");
        // int8 passes through half precision.
        let limit = if kind == QuantizationKind::Int8 { 65_504.0 } else { f32::MAX };
        if let Some(wrong) = numbers.iter().find(|w| w.is_nan() || w.abs() > limit) {
            return Err(Error::Input {
                what: format!("a number of `{name}`, which is to be quantised,"),
                found: wrong.to_string(),
                expected: format!("a finite one of at most {limit:e}"),
            });
        }
        let floats = |numbers: Vec<f32>| {
            let shape = [numbers.len()];
            Tensor::from_data(TensorData::new(numbers, shape), (device, DType::F32))
        };
        let packed = |bytes: &[u8]| {
            let words = words(bytes);
            let shape = [words.len()];
            Tensor::from_data(TensorData::new(words, shape), (device, DType::I32))
        };
        let none = || packed(&[0]);
        let Some((four_bit, double)) = kind.four_bit() else {
            let rows = int8::quantize(numbers, shape[1]);
            let bytes: Vec<u8> = rows.codes.iter().map(|code| code.cast_unsigned()).collect();
            let form = kernel::Form { four_bit: None, shape, offset: None, dtype: DType::F32 };
            let (words, scales) = (packed(&bytes), floats(rows.scales));
            return Ok(Self { words, scales, nested: none(), kind, form });
        };
        let blocks = four_bit::quantize(numbers, four_bit);
        let words = packed(&blocks.codes);
        let form = kernel::Form { four_bit: Some(four_bit), shape, offset: None, dtype };
        if !double {
            let scales = floats(blocks.scales);
            return Ok(Self { words, scales, nested: none(), kind, form });
        }
        let nested = nested::quantize(&blocks.scales);
        let form = kernel::Form { offset: Some(nested.offset), ..form };
        let (scales, nested) = (floats(nested.scales), packed(&nested.codes));
        Ok(Self { words, scales, nested, kind, form })
    }

    /// `[out, in]`
    pub fn dims(&self) -> [usize; 2] {
        self.form.shape
    }

    /// The type of the codes.
    pub fn kind(&self) -> QuantizationKind {
        self.kind
    }

    /// The type that values are rounded to: that of the original, or f32 of int8.
    pub fn dtype(&self) -> DType {
        self.form.dtype
    }

    /// Bytes that codes and scales take.
    pub fn bytes(&self) -> usize {
        let nested = if self.form.offset.is_some() { self.nested.dims()[0] } else { 0 };
        4 * (self.words.dims()[0] + self.scales.dims()[0] + nested)
    }

    /// The device of the codes.
    pub fn device(&self) -> Device {
        self.words.device()
    }

    /// The matrix that the codes stand for, in f32.
    pub fn dequantize(&self) -> Tensor<2> {
        kernel::dequantize(&self.parts())
    }

    /// Codes in the bytes of bitsandbytes: two 4-bit codes in one, or one of int8.
    pub fn codes(&self) -> Vec<u8> {
        let [out, inner] = self.dims();
        let count = out * inner;
        bytes(&self.words, if self.form.four_bit.is_some() { count.div_ceil(2) } else { count })
    }

    /// The scales as they are stored: of blocks, of rows, or of the quantised scales of blocks.
    pub fn scales(&self) -> Vec<f32> {
        let data = self.scales.clone().into_data();
        data.try_into_vec().expect("scales are f32")
    }

    /// The quantised scales of blocks and the offset that is added to them.
    pub fn nested_scales(&self) -> Option<(Vec<u8>, f32)> {
        let [out, inner] = self.dims();
        let count = (out * inner).div_ceil(four_bit::BLOCK);
        self.form.offset.map(|offset| (bytes(&self.nested, count), offset))
    }

    pub(crate) fn parts(&self) -> kernel::Parts {
        let Self { words, scales, nested, form, .. } = self.clone();
        kernel::Parts { words, scales, nested, form }
    }
}

/// Bytes four by four, the first in the lowest bits.
fn words(bytes: &[u8]) -> Vec<i32> {
    let word = |bytes: &[u8]| {
        let byte = |i: usize| bytes.get(i).copied().unwrap_or(0);
        i32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
    };
    bytes.chunks(4).map(word).collect()
}

fn bytes(words: &Tensor<1, Int>, count: usize) -> Vec<u8> {
    let data = words.clone().into_data();
    let words: Vec<i32> = data.try_into_vec().expect("words are i32");
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.truncate(count);
    bytes
}
