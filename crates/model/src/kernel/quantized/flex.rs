//! The CPU backend: from its tensors to slices and back.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::IntTensor;
use burn::backend::{DType, Flex, TensorMetadata};
use burn::tensor::Shape;

use super::{Form, QuantizedKernels, reference};
use crate::kernel::cpu::quantized::{self as cpu, Matrix, Rounding};
use crate::kernel::flex::{contiguous, is_f32, slice, tensor};

/// Calls `run` with the slices of a quantised matrix.
fn with<R>(
    (words, scales, nested, form): (FlexTensor, FlexTensor, FlexTensor, Form),
    run: impl FnOnce(&Matrix<'_>) -> R,
) -> R {
    let (words, scales, nested) = (contiguous(words), contiguous(scales), contiguous(nested));
    let rounding = match form.dtype {
        DType::BF16 => Rounding::Bf16,
        DType::F16 => Rounding::F16,
        _ => Rounding::None,
    };
    run(&Matrix {
        words: words.as_slice().expect("words are i32"),
        scales: slice(&scales),
        nested: nested.as_slice().expect("words are i32"),
        four_bit: form.four_bit,
        columns: form.shape[1],
        offset: form.offset,
        rounding,
    })
}

fn with_width(mut shape: Shape, width: usize) -> Shape {
    let last = shape.num_dims() - 1;
    shape[last] = width;
    shape
}

impl QuantizedKernels for Flex {
    fn quantized_linear(
        x: FlexTensor,
        words: IntTensor<Self>,
        scales: FlexTensor,
        nested: IntTensor<Self>,
        form: Form,
    ) -> FlexTensor {
        if !is_f32(&[&x]) {
            return reference::linear::<Self>(x, words, scales, nested, form);
        }
        let (x, [out, inner]) = (contiguous(x), form.shape);
        assert_eq!(x.shape().as_slice().last(), Some(&inner), "width of the input");
        let y = with((words, scales, nested, form), |w| cpu::linear(slice(&x), w, out));
        tensor(y, with_width(x.shape(), out))
    }

    fn quantized_input_gradient(
        dy: FlexTensor,
        words: IntTensor<Self>,
        scales: FlexTensor,
        nested: IntTensor<Self>,
        form: Form,
    ) -> FlexTensor {
        if !is_f32(&[&dy]) {
            return reference::input_gradient::<Self>(dy, words, scales, nested, form);
        }
        let (dy, [out, inner]) = (contiguous(dy), form.shape);
        let dx = with((words, scales, nested, form), |w| cpu::input_gradient(slice(&dy), w, out));
        tensor(dx, with_width(dy.shape(), inner))
    }

    fn quantized_row_squares(
        words: IntTensor<Self>,
        scales: FlexTensor,
        nested: IntTensor<Self>,
        form: Form,
    ) -> FlexTensor {
        let [out, _] = form.shape;
        let squares = with((words, scales, nested, form), |w| cpu::row_squares(w, out));
        tensor(squares, Shape::from([out]))
    }

    fn dequantize(
        words: IntTensor<Self>,
        scales: FlexTensor,
        nested: IntTensor<Self>,
        form: Form,
    ) -> FlexTensor {
        let [out, _] = form.shape;
        let dense = with((words, scales, nested, form), |w| cpu::dequantize(w, out));
        tensor(dense, Shape::from(form.shape))
    }
}
