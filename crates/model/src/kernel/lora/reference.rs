//! The operations in plain tensor operations.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, DType, TensorMetadata};
use burn::tensor::Shape;

use super::Form;
use crate::kernel::random::{Dropout, MIX, Stream};
use crate::kernel::reference::{cast, linear};

/// As a matrix of rows.
fn rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / width.max(1);
    B::float_reshape(x, Shape::from([rows, width]))
}

pub(crate) fn lora_add<B: Backend>(
    y: FloatTensor<B>,
    x: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    form: Form,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let x = match form.dropout {
        Some(drop) => dropout::<B>(x, drop),
        None => x,
    };
    let h = linear::<B>(x, a);
    let update = B::float_mul_scalar(linear::<B>(h.clone(), b), form.scale.into());
    (B::float_add(y, update), h)
}

pub(crate) fn lora_backward<B: Backend>(
    dy: FloatTensor<B>,
    x: FloatTensor<B>,
    h: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    form: Form,
) -> (Option<FloatTensor<B>>, FloatTensor<B>, FloatTensor<B>) {
    let (shape, dtype, stored) = (x.shape(), x.dtype(), a.dtype());
    let x = match form.dropout {
        Some(drop) => dropout::<B>(x, drop),
        None => x,
    };
    let (dy, x, h) = (rows::<B>(dy), rows::<B>(x), rows::<B>(h));
    let (a, b) = (cast::<B>(a, dtype), cast::<B>(b, dtype));
    let transposed = |t| B::float_swap_dims(t, 0, 1);
    let g = B::float_mul_scalar(B::float_matmul(dy.clone(), b), form.scale.into());
    let db = B::float_mul_scalar(B::float_matmul(transposed(dy), h), form.scale.into());
    let da = B::float_matmul(transposed(g.clone()), x);
    let dx = form.input_gradient.then(|| {
        let dx = B::float_reshape(B::float_matmul(g, a), shape);
        match form.dropout {
            Some(drop) => dropout::<B>(dx, drop),
            None => dx,
        }
    });
    (dx, cast::<B>(da, stored), cast::<B>(db, stored))
}

pub(crate) fn dropout<B: Backend>(x: FloatTensor<B>, dropout: Dropout) -> FloatTensor<B> {
    let settings = burn::backend::get_device_settings::<B>(&x.device());
    let bits = upper_bits::<B>(&x, dropout.stream);
    let dropped = B::int_lower_elem(bits, (dropout.dropped as i32).into(), settings.bool_dtype);
    let x = B::float_mul_scalar(x, dropout.factor().into());
    B::float_mask_fill(x, dropped, 0.0_f32.into())
}

pub(crate) fn uniform_like<B: Backend>(x: FloatTensor<B>, stream: Stream) -> FloatTensor<B> {
    let bits = B::int_into_float(upper_bits::<B>(&x, stream), DType::F32.into());
    let unit = B::float_mul_scalar(bits, (2.0 / (1 << 24) as f32).into());
    cast::<B>(B::float_add_scalar(unit, (-1.0_f32).into()), x.dtype())
}

/// The upper 24 bits of the numbers at the places of x.
fn upper_bits<B: Backend>(x: &FloatTensor<B>, stream: Stream) -> IntTensor<B> {
    let (shape, device) = (x.shape(), x.device());
    let places = B::int_arange(0..shape.num_elements() as i64, &device, DType::I32.into());
    let keyed = |x, key: u32| B::bitwise_xor_scalar(x, key.cast_signed().into());
    let bits = mix::<B>(keyed(places, stream.keys[0]));
    let bits = mix::<B>(keyed(bits, stream.keys[1]));
    B::int_reshape(shifted::<B>(bits, 8), shape)
}

fn mix<B: Backend>(x: IntTensor<B>) -> IntTensor<B> {
    let fold = |x: IntTensor<B>, by| B::bitwise_xor(x.clone(), shifted::<B>(x, by));
    // Products of 32-bit integers wrap on every device.
    let times = |x, factor: u32| B::int_mul_scalar(x, factor.cast_signed().into());
    let x = times(fold(x, 16), MIX[0]);
    let x = times(fold(x, 15), MIX[1]);
    fold(x, 16)
}

/// x >> by without the sign.
fn shifted<B: Backend>(x: IntTensor<B>, by: u32) -> IntTensor<B> {
    let shifted = B::bitwise_right_shift_scalar(x, (by as i32).into());
    B::bitwise_and_scalar(shifted, (u32::MAX >> by).cast_signed().into())
}

pub(crate) fn row_squares<B: Backend>(w: FloatTensor<B>) -> FloatTensor<B> {
    let out = w.shape()[0];
    let w = cast::<B>(w, DType::F32);
    B::float_reshape(B::float_sum_dim(B::float_mul(w.clone(), w), 1), Shape::from([out]))
}
