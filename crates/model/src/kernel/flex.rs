//! The CPU backend: from its tensors to slices and back. What is not f32 takes the reference.

use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps as _;
use burn::backend::tensor::IntTensor;
use burn::backend::{DType, Flex, TensorMetadata};
use burn::tensor::{Shape, TensorData};
use half::bf16;

use super::cpu::logprobs::Head;
use super::cpu::rotary::Turn;
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

pub(super) fn with_width(mut shape: Shape, width: usize) -> Shape {
    let last = shape.num_dims() - 1;
    shape[last] = width;
    shape
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
        assert_eq!(x.shape().as_slice().last(), Some(&inner), "width of a linear layer's input");
        tensor(cpu::linear(slice(&x), weight, out, inner), with_width(x.shape(), out))
    }

    fn linear_input_gradient(dy: FlexTensor, w: FlexTensor) -> FlexTensor {
        let (dy, w) = (contiguous(dy), contiguous(w));
        let Some(weight) = weight(&w).filter(|_| is_f32(&[&dy])) else {
            return reference::linear_input_gradient::<Self>(dy, w);
        };
        let [out, inner] = dims(&w);
        let dx = cpu::linear::input_gradient(slice(&dy), weight, out, inner);
        tensor(dx, with_width(dy.shape(), inner))
    }

    fn linear_weight_gradient(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        if !is_f32(&[&x, &dy]) {
            return reference::linear_weight_gradient::<Self>(x, dy);
        }
        let (x, dy) = (contiguous(x), contiguous(dy));
        let [inner, out] = [&x, &dy].map(|t| t.shape().as_slice().last().copied().unwrap_or(1));
        let dw = cpu::linear::weight_gradient(slice(&x), slice(&dy), out, inner);
        tensor(dw, Shape::from([out, inner]))
    }

    fn rms_norm(x: FlexTensor, w: FlexTensor, eps: f32, offset: f32) -> FlexTensor {
        if !is_f32(&[&x, &w]) {
            return reference::rms_norm::<Self>(x, w, eps, offset);
        }
        let (x, w) = (contiguous(x), contiguous(w));
        assert_eq!(x.shape().as_slice().last(), w.shape().as_slice().last(), "width of a norm");
        tensor(cpu::norm::rms_norm(slice(&x), slice(&w), eps, offset), x.shape())
    }

    fn rms_norm_backward(
        x: FlexTensor,
        w: FlexTensor,
        dy: FlexTensor,
        eps: f32,
        offset: f32,
        wanted: Wanted,
    ) -> (Option<FlexTensor>, Option<FlexTensor>) {
        if !is_f32(&[&x, &w, &dy]) {
            return reference::rms_norm_backward::<Self>(x, w, dy, [eps, offset], wanted);
        }
        let (x, w, dy) = (contiguous(x), contiguous(w), contiguous(dy));
        let (dx, dw) =
            cpu::norm::rms_norm_backward(slice(&x), slice(&w), slice(&dy), eps, offset, wanted);
        (dx.map(|dx| tensor(dx, x.shape())), dw.map(|dw| tensor(dw, w.shape())))
    }

    fn rotary(x: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
        if !is_f32(&[&x, &cos, &sin]) {
            return reference::rotary::<Self>(x, cos, sin);
        }
        turned(x, cos, sin, Turn::Forth)
    }

    fn rotary_backward(dy: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
        if !is_f32(&[&dy, &cos, &sin]) {
            return reference::rotary::<Self>(dy, cos, Self::float_neg(sin));
        }
        turned(dy, cos, sin, Turn::Back)
    }

    fn gated(g: FlexTensor, u: FlexTensor, activation: Activation) -> FlexTensor {
        if is_f32(&[&g, &u]) {
            let (g, u) = (contiguous(g), contiguous(u));
            if let Some(y) = cpu::gated::gated(slice(&g), slice(&u), activation) {
                return tensor(y, g.shape());
            }
            return reference::gated::<Self>(g, u, activation);
        }
        reference::gated::<Self>(g, u, activation)
    }

    fn gated_backward(
        g: FlexTensor,
        u: FlexTensor,
        dy: FlexTensor,
        activation: Activation,
    ) -> (FlexTensor, FlexTensor) {
        if is_f32(&[&g, &u, &dy]) {
            let (g, u, dy) = (contiguous(g), contiguous(u), contiguous(dy));
            let (gate, up, by_y) = (slice(&g), slice(&u), slice(&dy));
            if let Some((dg, du)) = cpu::gated::gated_backward(gate, up, by_y, activation) {
                return (tensor(dg, g.shape()), tensor(du, u.shape()));
            }
            return reference::gated_backward::<Self>(g, u, dy, activation);
        }
        reference::gated_backward::<Self>(g, u, dy, activation)
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
            return reference::attention::<Self>(q, k, v, sequences, low, high, scores).0;
        }
        let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
        let seen = Seen::new(sequences, low, high);
        let sizes = sizes(&q, &k, scores);
        tensor(cpu::attention(slice(&q), slice(&k), slice(&v), seen.visible(), sizes), q.shape())
    }

    fn attention_with_stats(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        sequences: IntTensor<Self>,
        low: IntTensor<Self>,
        high: IntTensor<Self>,
        scores: Scores,
    ) -> (FlexTensor, FlexTensor) {
        if !is_f32(&[&q, &k, &v]) {
            return reference::attention::<Self>(q, k, v, sequences, low, high, scores);
        }
        let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
        let seen = Seen::new(sequences, low, high);
        let sizes = sizes(&q, &k, scores);
        let (o, stats) = cpu::attention::attention_with_stats(
            slice(&q),
            slice(&k),
            slice(&v),
            seen.visible(),
            sizes,
        );
        let [batch, queries, heads, _] = dims(&q);
        (tensor(o, q.shape()), tensor(stats, Shape::from([batch, heads, queries, 2])))
    }

    fn attention_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        o: FlexTensor,
        stats: FlexTensor,
        dy: FlexTensor,
        sequences: IntTensor<Self>,
        low: IntTensor<Self>,
        high: IntTensor<Self>,
        scores: Scores,
        wanted: [bool; 3],
    ) -> (Option<FlexTensor>, Option<FlexTensor>, Option<FlexTensor>) {
        if !is_f32(&[&q, &k, &v, &dy]) {
            let pass = reference::Pass { q, k, v, stats, dy };
            let seen = [sequences, low, high];
            return reference::attention_backward::<Self>(pass, seen, scores, wanted);
        }
        let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
        let (o, stats, dy) = (contiguous(o), contiguous(stats), contiguous(dy));
        let pass = cpu::attention_backward::Pass {
            q: slice(&q),
            k: slice(&k),
            v: slice(&v),
            o: slice(&o),
            stats: slice(&stats),
            dy: slice(&dy),
        };
        let seen = Seen::new(sequences, low, high);
        let sizes = sizes(&q, &k, scores);
        let [dq, dk, dv] =
            cpu::attention_backward::attention_backward(pass, seen.visible(), sizes, wanted);
        (
            dq.map(|dq| tensor(dq, q.shape())),
            dk.map(|dk| tensor(dk, k.shape())),
            dv.map(|dv| tensor(dv, v.shape())),
        )
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
        assert_eq!(h.shape()[1], head.dim, "width of the hidden states");
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

fn turned(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, turn: Turn) -> FlexTensor {
    let (x, cos, sin) = (contiguous(x), contiguous(cos), contiguous(sin));
    let ([_, _, heads, dim], [_, half]) = (dims(&x), dims(&cos));
    let y = cpu::rotary::rotary(slice(&x), slice(&cos), slice(&sin), [heads, dim, half], turn);
    tensor(y, x.shape())
}

fn sizes(q: &FlexTensor, k: &FlexTensor, scores: Scores) -> cpu::Attention {
    let ([_, queries, heads, dim], [_, capacity, kv_heads, _]) = (dims(q), dims(k));
    let Scores { scale, softcap, .. } = scores;
    cpu::Attention { queries, heads, kv_heads, dim, capacity, scale, softcap }
}

/// Which keys queries see, on the host.
struct Seen {
    sequences: Vec<usize>,
    low: Vec<usize>,
    high: Vec<usize>,
}

impl Seen {
    fn new(sequences: FlexTensor, low: FlexTensor, high: FlexTensor) -> Self {
        Self { sequences: indices(sequences), low: indices(low), high: indices(high) }
    }

    fn visible(&self) -> cpu::attention::Visible<'_> {
        let Self { sequences, low, high } = self;
        cpu::attention::Visible { sequences, low, high }
    }
}
