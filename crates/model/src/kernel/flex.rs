//! The CPU backend: from its tensors to slices and back. What is not f32 takes the reference.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::IntTensor;
use burn::backend::{DType, Flex, TensorMetadata};
use burn::tensor::{Shape, TensorData};
use half::bf16;

use super::cpu::logprobs::Head;
use super::cpu::{self, Weight};
use super::{Kernels, Logits, Objective, Scores, Wanted, reference};
use crate::config::Activation;

pub(super) fn is_f32(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// The tensor itself, or a copy if it is a strided view.
pub(super) fn contiguous(t: FlexTensor) -> FlexTensor {
    if t.is_contiguous() { t } else { t.to_contiguous() }
}

pub(super) fn slice(t: &FlexTensor) -> &[f32] {
    t.as_slice().expect("a contiguous f32 tensor")
}

/// A tensor that takes the numbers over without a copy.
pub(super) fn tensor(numbers: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(numbers, shape))
}

fn dims<const N: usize>(t: &FlexTensor) -> [usize; N] {
    let shape = t.shape();
    std::array::from_fn(|i| shape[i])
}

fn indices(t: FlexTensor) -> Vec<usize> {
    let t = contiguous(t);
    if let Some(values) = t.as_slice::<i64>() {
        return values.iter().map(|&i| i as usize).collect();
    }
    let values = t.as_slice::<i32>().expect("indices are i32 or i64");
    values.iter().map(|&i| i as usize).collect()
}

pub(super) fn weight(w: &FlexTensor) -> Option<Weight<'_>> {
    match w.dtype() {
        DType::F32 => w.as_slice().map(Weight::F32),
        DType::BF16 => w.as_slice::<bf16>().map(Weight::Bf16),
        _ => None,
    }
}

impl Kernels for Flex {
    fn linear(x: FlexTensor, w: FlexTensor) -> FlexTensor {
        let (x, w) = (contiguous(x), contiguous(w));
        let Some(weight) = weight(&w).filter(|_| is_f32(&[&x])) else {
            return reference::linear::<Self>(x, w);
        };
        let [out, inner] = dims(&w);
        let mut shape = x.shape();
        let last = shape.num_dims() - 1;
        assert_eq!(shape[last], inner, "width of the input of a linear layer");
        shape[last] = out;
        tensor(cpu::linear(slice(&x), weight, out, inner), shape)
    }

    fn rms_norm(x: FlexTensor, w: FlexTensor, eps: f32, offset: f32) -> FlexTensor {
        if !is_f32(&[&x, &w]) {
            return reference::rms_norm::<Self>(x, w, eps, offset);
        }
        let (x, w) = (contiguous(x), contiguous(w));
        assert_eq!(x.shape().as_slice().last(), w.shape().as_slice().last(), "width of a norm");
        tensor(cpu::elementwise::rms_norm(slice(&x), slice(&w), eps, offset), x.shape())
    }

    fn rotary(x: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
        if !is_f32(&[&x, &cos, &sin]) {
            return reference::rotary::<Self>(x, cos, sin);
        }
        let (x, cos, sin) = (contiguous(x), contiguous(cos), contiguous(sin));
        let ([_, _, heads, dim], [_, half]) = (dims(&x), dims(&cos));
        let sizes = [heads, dim, half];
        let y = cpu::elementwise::rotary(slice(&x), slice(&cos), slice(&sin), sizes);
        tensor(y, x.shape())
    }

    fn gated(g: FlexTensor, u: FlexTensor, activation: Activation) -> FlexTensor {
        if is_f32(&[&g, &u]) {
            let (g, u) = (contiguous(g), contiguous(u));
            if let Some(y) = cpu::elementwise::gated(slice(&g), slice(&u), activation) {
                return tensor(y, g.shape());
            }
            return reference::gated::<Self>(g, u, activation);
        }
        reference::gated::<Self>(g, u, activation)
    }

    fn attention(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        sequences: IntTensor<Self>,
        low: IntTensor<Self>,
        high: IntTensor<Self>,
        scores: Scores,
    ) -> FlexTensor {
        if !is_f32(&[&q, &k, &v]) {
            return reference::attention::<Self>(q, k, v, sequences, low, high, scores);
        }
        let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
        let [_, queries, heads, dim] = dims(&q);
        let [_, capacity, kv_heads, _] = dims(&k);
        let Scores { scale, softcap, .. } = scores;
        let sizes = cpu::Attention { queries, heads, kv_heads, dim, capacity, scale, softcap };
        let (sequences, low, high) = (indices(sequences), indices(low), indices(high));
        let visible = cpu::attention::Visible { sequences: &sequences, low: &low, high: &high };
        tensor(cpu::attention(slice(&q), slice(&k), slice(&v), visible, sizes), q.shape())
    }

    fn cache_write(mut cache: FlexTensor, new: FlexTensor, places: IntTensor<Self>) -> FlexTensor {
        if !is_f32(&[&cache, &new]) || !cache.is_contiguous() {
            return reference::cache_write::<Self>(cache, new, places);
        }
        let new = contiguous(new);
        let [sequences, capacity, heads, dim] = dims(&cache);
        let width = heads * dim;
        let offset = cache.layout().start_offset();
        let numbers = &mut cache.storage_mut::<f32>()[offset..];
        let numbers = &mut numbers[..sequences * capacity * width];
        for (token, place) in slice(&new).chunks_exact(width).zip(indices(places)) {
            numbers[place * width..(place + 1) * width].copy_from_slice(token);
        }
        cache
    }

    fn logprobs(
        h: FlexTensor,
        w: FlexTensor,
        targets: IntTensor<Self>,
        logits: Logits,
    ) -> FlexTensor {
        let (h, w) = (contiguous(h), contiguous(w));
        let Some(head) = head(&w, logits).filter(|_| is_f32(&[&h])) else {
            return reference::logprobs::<Self>(h, w, targets, logits);
        };
        let targets = indices(targets);
        assert_eq!(h.shape()[1], head.dim, "width of the hidden states");
        let y = cpu::logprobs::logprobs(slice(&h), &targets, &head);
        tensor(y, Shape::from([targets.len(), 2]))
    }

    fn logprobs_backward(
        h: FlexTensor,
        w: FlexTensor,
        targets: IntTensor<Self>,
        dy: FlexTensor,
        logits: Logits,
        with_weight: bool,
    ) -> (FlexTensor, Option<FlexTensor>) {
        let (h, w, dy) = (contiguous(h), contiguous(w), contiguous(dy));
        let Some(head) = head(&w, logits).filter(|_| is_f32(&[&h, &dy])) else {
            return reference::logprobs_backward::<Self>(h, w, targets, dy, logits, with_weight);
        };
        let (targets, dy) = (indices(targets), slice(&dy));
        let (dh, dw) =
            cpu::logprobs::logprobs_backward(slice(&h), &targets, dy, &head, with_weight);
        (tensor(dh, h.shape()), dw.map(|dw| tensor(dw, w.shape())))
    }

    fn cross_entropy(
        h: FlexTensor,
        w: FlexTensor,
        targets: IntTensor<Self>,
        weights: FlexTensor,
        objective: Objective,
        logits: Logits,
        wanted: Wanted,
    ) -> (FlexTensor, Option<FlexTensor>, Option<FlexTensor>) {
        let (h, w, weights) = (contiguous(h), contiguous(w), contiguous(weights));
        let Some(head) = head(&w, logits).filter(|_| is_f32(&[&h, &weights])) else {
            return reference::cross_entropy::<Self>(
                h, w, targets, weights, objective, logits, wanted,
            );
        };
        let targets = indices(targets);
        assert_eq!(h.shape()[1], head.dim, "width of the hidden states");
        let targets = cpu::logprobs::Targets { tokens: &targets, weights: slice(&weights) };
        let found = cpu::logprobs::cross_entropy(slice(&h), targets, objective, &head, wanted);
        (
            tensor(found.rows, Shape::from([targets.tokens.len(), 4])),
            found.dh.map(|dh| tensor(dh, h.shape())),
            found.dw.map(|dw| tensor(dw, w.shape())),
        )
    }
}

fn head(w: &FlexTensor, logits: Logits) -> Option<Head<'_>> {
    let [vocabulary, dim] = dims(w);
    let Logits { scale, softcap, .. } = logits;
    Some(Head { weight: weight(w)?, vocabulary, dim, scale, softcap })
}
