//! Frozen weights in four or eight bits: NF4, FP4 and int8, equal to bitsandbytes 0.50 on the CPU,
//! bit for bit, codes and values.
//!
//! | | bits a weight | with double quantisation |
//! |---|---|---|
//! | `nf4`, `fp4` | 4.5 | 4.127 |
//! | int8 | 8, and 32 a row | |
//!
//! [`Quantization`] says what is quantised, with the names of `BitsAndBytesConfig`;
//! [`LoadOptions`](crate::LoadOptions) takes it. A quantised matrix ([`Quantized`]) is no parameter:
//! it gets no gradient and no optimizer sees it. Products dequantise tile by tile (on the CPU) or
//! matrix by matrix, forward and backward, and keep no dense copy.

mod chosen;
mod config;
mod four_bit;
mod int8;
mod nested;
mod tables;
mod tensor;

pub use config::{Quantization, QuantizationKind};
pub(crate) use four_bit::{BLOCK, FourBit};
pub(crate) use int8::STEP;
pub(crate) use nested::{BLOCK as NESTED_BLOCK, scale as nested_scale};
pub(crate) use tables::dynamic_map;
pub use tensor::Quantized;
