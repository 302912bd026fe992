//! Products with quantised matrices, whose dense form exists a tile or an operation at a time.

mod autodiff;
#[cfg(feature = "flex")]
mod flex;
mod reference;
#[cfg(all(test, feature = "flex"))]
mod tests;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Int, Tensor};

use super::lora::dense_row_squares;
use crate::quant::FourBit;

/// How codes stand for numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Form {
    /// The 4-bit type; `None` for int8.
    pub(crate) four_bit: Option<FourBit>,
    /// `[out, in]`
    pub(crate) shape: [usize; 2],
    /// Added to scales that are quantised themselves.
    pub(crate) offset: Option<f32>,
    /// What values are rounded to.
    pub(crate) dtype: DType,
}

/// A quantised matrix: see [`crate::quant::Quantized`].
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) words: Tensor<1, Int>,
    pub(crate) scales: Tensor<1>,
    pub(crate) nested: Tensor<1, Int>,
    pub(crate) form: Form,
}

/// The operations. A quantised matrix is `words`, `scales`, `nested` and `form`.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "gpu"),
    Fusion: cfg(feature = "gpu"),
    Autodiff
)]
pub(crate) trait QuantizedKernels: Backend {
    #[fusion(default)]
    fn quantized_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        nested: IntTensor<Self>,
        form: Form,
    ) -> FloatTensor<Self> {
        reference::linear::<Self>(x, words, scales, nested, form)
    }

    #[fusion(default)]
    fn quantized_input_gradient(
        dy: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        nested: IntTensor<Self>,
        form: Form,
    ) -> FloatTensor<Self> {
        reference::input_gradient::<Self>(dy, words, scales, nested, form)
    }

    #[fusion(default)]
    fn dequantize(
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        nested: IntTensor<Self>,
        form: Form,
    ) -> FloatTensor<Self> {
        reference::dequantize::<Self>(words, scales, nested, form)
    }

    #[fusion(default)]
    fn quantized_row_squares(
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        nested: IntTensor<Self>,
        form: Form,
    ) -> FloatTensor<Self> {
        let dense = reference::dequantize::<Self>(words, scales, nested, form);
        dense_row_squares::<Self>(dense)
    }
}

#[cfg(feature = "gpu")]
impl QuantizedKernels for burn_cubecl::CubeBackend {}

/// x Wᵀ: x `[.., in]` to `[.., out]`. Differentiable by x.
pub(crate) fn linear<const D: usize>(x: Tensor<D>, w: &Parts) -> Tensor<D> {
    let Parts { words, scales, nested, form } = w.clone();
    Tensor::from_dispatch(Dispatch::quantized_linear(
        x.into_dispatch(),
        words.into_dispatch(),
        scales.into_dispatch(),
        nested.into_dispatch(),
        form,
    ))
}

/// Σ w² of each row, `[out]`.
pub(crate) fn row_squares(w: &Parts) -> Tensor<1> {
    let Parts { words, scales, nested, form } = w.clone();
    Tensor::from_dispatch(Dispatch::quantized_row_squares(
        words.into_dispatch(),
        scales.into_dispatch(),
        nested.into_dispatch(),
        form,
    ))
}

/// W, `[out, in]`, in f32.
pub(crate) fn dequantize(w: &Parts) -> Tensor<2> {
    let Parts { words, scales, nested, form } = w.clone();
    Tensor::from_dispatch(Dispatch::dequantize(
        words.into_dispatch(),
        scales.into_dispatch(),
        nested.into_dispatch(),
        form,
    ))
}
