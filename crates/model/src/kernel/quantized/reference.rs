//! The operations in plain tensor operations.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, DType, TensorMetadata};
use burn::tensor::{Shape, Slice, TensorData};

use super::Form;
use crate::kernel::reference::{cast, linear as dense_linear};
use crate::quant::{BLOCK, NESTED_BLOCK, STEP, dynamic_map};

pub(crate) fn linear<B: Backend>(
    x: FloatTensor<B>,
    words: IntTensor<B>,
    scales: FloatTensor<B>,
    nested: IntTensor<B>,
    form: Form,
) -> FloatTensor<B> {
    dense_linear::<B>(x, dequantize::<B>(words, scales, nested, form))
}

pub(crate) fn input_gradient<B: Backend>(
    dy: FloatTensor<B>,
    words: IntTensor<B>,
    scales: FloatTensor<B>,
    nested: IntTensor<B>,
    form: Form,
) -> FloatTensor<B> {
    let [out, inner] = form.shape;
    let mut shape = dy.shape();
    let (last, rows) = (shape.num_dims() - 1, shape.num_elements() / out);
    let w = cast::<B>(dequantize::<B>(words, scales, nested, form), dy.dtype());
    let dx = B::float_matmul(B::float_reshape(dy, Shape::from([rows, out])), w);
    shape[last] = inner;
    B::float_reshape(dx, shape)
}

pub(crate) fn dequantize<B: Backend>(
    words: IntTensor<B>,
    scales: FloatTensor<B>,
    nested: IntTensor<B>,
    form: Form,
) -> FloatTensor<B> {
    let [out, inner] = form.shape;
    let count = out * inner;
    let values = if let Some(four_bit) = form.four_bit {
        let shifts = [4, 0, 12, 8, 20, 16, 28, 24];
        let codes = unpack::<B>(words, &shifts, 15, count);
        let table = floats::<B>(four_bit.table(), &scales);
        let values = B::float_select(table, 0, codes);
        let blocks = count.div_ceil(BLOCK);
        let scales = match form.offset {
            Some(offset) => nested_scales::<B>(nested, scales, offset, blocks),
            None => scales,
        };
        B::float_mul(values, repeat::<B>(scales, BLOCK, count))
    } else {
        // Two's complement: 128 .. 255 are −128 .. −1.
        let codes = unpack::<B>(words, &[0, 8, 16, 24], 255, count);
        let codes = B::bitwise_xor_scalar(codes, 128_i32.into());
        let codes = B::int_sub_scalar(codes, 128_i32.into());
        let codes = B::int_into_float(codes, scales.dtype().into());
        let scaled = B::float_mul(codes, repeat::<B>(scales, inner, count));
        B::float_mul_scalar(scaled, STEP.into())
    };
    let rounded = cast::<B>(cast::<B>(values, form.dtype), DType::F32);
    B::float_reshape(rounded, Shape::from([out, inner]))
}

fn nested_scales<B: Backend>(
    codes: IntTensor<B>,
    scales: FloatTensor<B>,
    offset: f32,
    count: usize,
) -> FloatTensor<B> {
    let codes = unpack::<B>(codes, &[0, 8, 16, 24], 255, count);
    let values = B::float_select(floats::<B>(dynamic_map(), &scales), 0, codes);
    let scaled = B::float_mul(values, repeat::<B>(scales, NESTED_BLOCK, count));
    B::float_add_scalar(scaled, offset.into())
}

/// The parts of each word at these bits, word after word, `count` of them.
fn unpack<B: Backend>(
    words: IntTensor<B>,
    shifts: &[i32],
    mask: i32,
    count: usize,
) -> IntTensor<B> {
    let (n, each) = (words.shape()[0], shifts.len());
    let all = Shape::from([n, each]);
    let device = words.device();
    let shifts = B::int_from_data(TensorData::new(shifts.to_vec(), [1, each]), &device);
    let words = B::int_expand(B::int_reshape(words, Shape::from([n, 1])), all.clone());
    let parts = B::bitwise_right_shift(words, B::int_expand(shifts, all));
    let parts = B::bitwise_and_scalar(parts, mask.into());
    let parts = B::int_reshape(parts, Shape::from([n * each]));
    B::int_slice(parts, &[Slice::from(0..count)])
}

/// Each number `times` times, `count` in all.
fn repeat<B: Backend>(x: FloatTensor<B>, times: usize, count: usize) -> FloatTensor<B> {
    let n = x.shape()[0];
    let x = B::float_expand(B::float_reshape(x, Shape::from([n, 1])), Shape::from([n, times]));
    let x = B::float_reshape(x, Shape::from([n * times]));
    B::float_slice(x, &[Slice::from(0..count)])
}

fn floats<B: Backend>(values: &[f32], like: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(values.to_vec(), [values.len()]), &like.device())
}
