//! The CPU backend: from its tensors to slices and back. What is not f32 takes the reference.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;

use super::{Form, LoraKernels, reference};
use crate::kernel::cpu::lora::{self as cpu, Factors};
use crate::kernel::flex::{contiguous, is_f32, slice, tensor, weight, with_width};
use crate::kernel::random::{Dropout, Stream};

fn factors<'a>(a: &'a FlexTensor, b: &'a FlexTensor, form: Form) -> Factors<'a> {
    let (rank, inner, out) = (a.shape()[0], a.shape()[1], b.shape()[0]);
    assert_eq!(b.shape()[1], rank, "the ranks of the factors of an update");
    let Form { scale, dropout, .. } = form;
    Factors { a: slice(a), b: slice(b), inner, rank, out, scale, dropout }
}

impl LoraKernels for Flex {
    fn lora_add(
        y: FlexTensor,
        x: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        form: Form,
    ) -> (FlexTensor, FlexTensor) {
        if !is_f32(&[&y, &x, &a, &b]) {
            return reference::lora_add::<Self>(y, x, a, b, form);
        }
        let (mut y, x, a, b) = (contiguous(y), contiguous(x), contiguous(a), contiguous(b));
        let factors = factors(&a, &b, form);
        let (offset, count) = (y.layout().start_offset(), y.shape().num_elements());
        let numbers = &mut y.storage_mut::<f32>()[offset..offset + count];
        let h = cpu::add(numbers, slice(&x), &factors);
        (y, tensor(h, with_width(x.shape(), factors.rank)))
    }

    fn lora_backward(
        dy: FlexTensor,
        x: FlexTensor,
        h: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        form: Form,
    ) -> (Option<FlexTensor>, FlexTensor, FlexTensor) {
        if !is_f32(&[&dy, &x, &h, &a, &b]) {
            return reference::lora_backward::<Self>(dy, x, h, a, b, form);
        }
        let (dy, x, h) = (contiguous(dy), contiguous(x), contiguous(h));
        let (a, b) = (contiguous(a), contiguous(b));
        let factors = factors(&a, &b, form);
        let wanted = form.input_gradient;
        let (dx, da, db) = cpu::backward(slice(&dy), slice(&x), slice(&h), &factors, wanted);
        let dx = dx.map(|dx| tensor(dx, x.shape()));
        (dx, tensor(da, a.shape()), tensor(db, b.shape()))
    }

    fn dropout(x: FlexTensor, dropout: Dropout) -> FlexTensor {
        if !is_f32(&[&x]) {
            return reference::dropout::<Self>(x, dropout);
        }
        let x = contiguous(x);
        tensor(cpu::dropped(slice(&x), dropout), x.shape())
    }

    fn uniform_like(x: FlexTensor, stream: Stream) -> FlexTensor {
        if !is_f32(&[&x]) {
            return reference::uniform_like::<Self>(x, stream);
        }
        tensor(cpu::uniform_numbers(x.shape().num_elements(), stream), x.shape())
    }

    fn row_squares(w: FlexTensor) -> FlexTensor {
        let w = contiguous(w);
        let [out, inner] = [w.shape()[0], w.shape()[1]];
        match weight(&w) {
            Some(numbers) => tensor(cpu::row_squares(numbers, inner), Shape::from([out])),
            None => reference::row_squares::<Self>(w),
        }
    }
}
