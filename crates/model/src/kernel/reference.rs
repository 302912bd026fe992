//! The operations in plain tensor operations: what backends without a kernel run, and what the
//! kernels are tested against.

mod backward;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, DType, TensorMetadata};
use burn::tensor::{FloatDType, IndexingUpdateOp, Shape, Slice};

use super::{Logits, Objective, Scores, Wanted};
use crate::config::Activation;
pub(crate) use backward::{
    Pass, attention_backward, gated_backward, linear_input_gradient, linear_weight_gradient,
    rms_norm_backward,
};

/// Logits that exist at a time.
const LOGITS: usize = 1 << 22;

fn dims<const N: usize>(shape: &Shape) -> [usize; N] {
    std::array::from_fn(|i| shape[i])
}

/// To f32, for sums that half precision would spoil.
fn wide<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    if x.dtype() == DType::F32 { x } else { B::float_cast(x, FloatDType::F32) }
}

pub(super) fn cast<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype { x } else { B::float_cast(x, dtype.into()) }
}

/// Rows `from .. to` of axis `axis`.
fn part<B: Backend>(x: FloatTensor<B>, axis: usize, from: usize, to: usize) -> FloatTensor<B> {
    let mut slices = vec![Slice::full(); x.shape().num_dims()];
    slices[axis] = Slice::from(from..to);
    B::float_slice(x, &slices)
}

pub(crate) fn linear<B: Backend>(x: FloatTensor<B>, w: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let (n, [out, inner]) = (shape.num_dims(), dims(&w.shape()));
    let rows = shape.num_elements() / inner.max(1);
    let w = cast::<B>(w, x.dtype());
    let x = B::float_reshape(x, Shape::from(vec![rows, inner]));
    let y = B::float_matmul(x, B::float_swap_dims(w, 0, 1));
    let mut shape = shape;
    shape[n - 1] = out;
    B::float_reshape(y, shape)
}

pub(crate) fn rms_norm<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    eps: f32,
    offset: f32,
) -> FloatTensor<B> {
    let (dtype, last) = (x.dtype(), x.shape().num_dims() - 1);
    let mut row = vec![1; last + 1];
    row[last] = w.shape()[0];
    let (x, w) = (wide::<B>(x), B::float_reshape(wide::<B>(w), Shape::from(row)));
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), last);
    let r = B::float_recip(B::float_sqrt(B::float_add_scalar(mean, eps.into())));
    let w = if offset == 0.0 { w } else { B::float_add_scalar(w, offset.into()) };
    cast::<B>(B::float_mul(B::float_mul(x, r), w), dtype)
}

pub(crate) fn rotary<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
) -> FloatTensor<B> {
    let [batch, time, _, dim] = dims(&x.shape());
    let (dtype, half) = (x.dtype(), cos.shape()[1]);
    let per_position =
        |t| cast::<B>(B::float_reshape(t, Shape::from([batch, time, 1, half])), dtype);
    let (cos, sin) = (per_position(cos), per_position(sin));
    let a = part::<B>(x.clone(), 3, 0, half);
    let b = part::<B>(x.clone(), 3, half, 2 * half);
    let mul = B::float_mul;
    let mut parts = vec![
        B::float_sub(mul(a.clone(), cos.clone()), mul(b.clone(), sin.clone())),
        B::float_add(mul(b, cos), mul(a, sin)),
    ];
    if 2 * half < dim {
        parts.push(part::<B>(x, 3, 2 * half, dim));
    }
    B::float_cat(parts, 3)
}

pub(crate) fn gated<B: Backend>(
    g: FloatTensor<B>,
    u: FloatTensor<B>,
    activation: Activation,
) -> FloatTensor<B> {
    let act = match activation {
        Activation::Silu => {
            let s = B::sigmoid(g.clone());
            B::float_mul(g, s)
        }
        Activation::Gelu => {
            // g Φ(g), spelt out: burn differentiates its own `gelu` by the tanh form.
            let erf = B::float_erf(B::float_mul_scalar(
                g.clone(),
                std::f32::consts::FRAC_1_SQRT_2.into(),
            ));
            let one_plus = B::float_add_scalar(erf, 1.0_f32.into());
            B::float_mul_scalar(B::float_mul(g, one_plus), 0.5_f32.into())
        }
        Activation::GeluTanh => {
            // √(2/π) (g + 0.044715 g³)
            let cube = B::float_mul(B::float_mul(g.clone(), g.clone()), g.clone());
            let cube = B::float_mul_scalar(cube, 0.044_715_f32.into());
            let inner = B::float_mul_scalar(
                B::float_add(g.clone(), cube),
                (2.0 / std::f32::consts::PI).sqrt().into(),
            );
            let one_plus = B::float_add_scalar(B::float_tanh(inner), 1.0_f32.into());
            B::float_mul_scalar(B::float_mul(g, one_plus), 0.5_f32.into())
        }
    };
    B::float_mul(act, u)
}

/// c tanh(x / c).
fn cap<B: Backend>(x: FloatTensor<B>, softcap: Option<f32>) -> FloatTensor<B> {
    let Some(c) = softcap else { return x };
    B::float_mul_scalar(B::float_tanh(B::float_div_scalar(x, c.into())), c.into())
}

pub(crate) fn attention<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    sequences: IntTensor<B>,
    low: IntTensor<B>,
    high: IntTensor<B>,
    scores: Scores,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (heads, dtype) = (q.shape()[2], q.dtype());
    let v = spread::<B>(v, sequences.clone(), heads, scores.keys);
    let k = spread::<B>(k, sequences, heads, scores.keys);
    let s = hidden_scores::<B>(q, k, [low, high], scores);
    let largest = B::float_max_dim(s.clone(), 3);
    let e = B::float_exp(B::float_sub(s, largest.clone()));
    let sum = B::float_sum_dim(e.clone(), 3);
    let part = B::float_recip(sum);
    let p = B::float_mul(e, part.clone());
    let o = B::float_swap_dims(B::float_matmul(cast::<B>(p, dtype), v), 1, 2);
    let stats = B::float_cat(vec![largest, part], 3);
    (o, stats)
}

/// Keys (or values) `[sequences, capacity, kv_heads, dim]` of each row and query head,
/// `[batch, heads, keys, dim]`.
fn spread<B: Backend>(
    x: FloatTensor<B>,
    sequences: IntTensor<B>,
    heads: usize,
    keys: usize,
) -> FloatTensor<B> {
    let ([_, _, kv_heads, dim], batch) = (dims(&x.shape()), sequences.shape()[0]);
    let per_kv = heads / kv_heads;
    let x = B::float_select(part::<B>(x, 1, 0, keys), 0, sequences);
    let one = Shape::from([batch, kv_heads, 1, keys, dim]);
    let x = B::float_reshape(B::float_swap_dims(x, 1, 2), one);
    let x = B::float_expand(x, Shape::from([batch, kv_heads, per_kv, keys, dim]));
    B::float_reshape(x, Shape::from([batch, heads, keys, dim]))
}

/// The scores of queries `[batch, queries, heads, dim]` and keys that are spread, in f32; those of
/// hidden keys far below all others.
fn hidden_scores<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    [low, high]: [IntTensor<B>; 2],
    Scores { scale, softcap, keys }: Scores,
) -> FloatTensor<B> {
    let [batch, queries, heads, _] = dims(&q.shape());
    let s = B::float_matmul(B::float_swap_dims(q, 1, 2), B::float_swap_dims(k, 2, 3));
    let s = cap::<B>(B::float_mul_scalar(wide::<B>(s), scale.into()), softcap);
    hide::<B>(s, low, high, [batch, heads, queries, keys])
}

/// The scores, with those of keys outside of `low .. high` far below all others.
fn hide<B: Backend>(
    s: FloatTensor<B>,
    low: IntTensor<B>,
    high: IntTensor<B>,
    [batch, heads, queries, keys]: [usize; 4],
) -> FloatTensor<B> {
    let device = s.device();
    let settings = burn::backend::get_device_settings::<B>(&device);
    let one_head = Shape::from([batch, 1, queries, keys]);
    let per_query =
        |x| B::int_expand(B::int_reshape(x, Shape::from([batch, 1, queries, 1])), one_head.clone());
    let dtype = low.dtype();
    let key = B::int_arange(0..keys as i64, &device, dtype.into());
    let key = B::int_expand(B::int_reshape(key, Shape::from([1, 1, 1, keys])), one_head.clone());
    let before = B::int_lower(key.clone(), per_query(low), settings.bool_dtype);
    let behind = B::int_greater_equal(key, per_query(high), settings.bool_dtype);
    let hidden = B::bool_or(before, behind);
    let hidden = B::bool_expand(hidden, Shape::from([batch, heads, queries, keys]));
    B::float_mask_fill(s, hidden, (-1e30_f32).into())
}

pub(crate) fn cache_write<B: Backend>(
    cache: FloatTensor<B>,
    new: FloatTensor<B>,
    places: IntTensor<B>,
) -> FloatTensor<B> {
    let shape = cache.shape();
    let [count, capacity, heads, dim] = dims(&shape);
    let [batch, time, _, _] = dims(&new.shape());
    let flat = B::float_reshape(cache, Shape::from([count * capacity, heads * dim]));
    let new = B::float_reshape(new, Shape::from([batch * time, heads * dim]));
    let flat = B::float_select_assign(flat, 0, places, new, IndexingUpdateOp::Assign);
    B::float_reshape(flat, shape)
}

/// The logits of some rows, in f32: before and after the soft cap.
fn logits<B: Backend>(
    h: FloatTensor<B>,
    w: FloatTensor<B>,
    Logits { scale, softcap, .. }: Logits,
) -> FloatTensor<B> {
    let z = wide::<B>(linear::<B>(h, w));
    let z = if scale == 1.0 { z } else { B::float_mul_scalar(z, scale.into()) };
    cap::<B>(z, softcap)
}

/// lse(z), `[n, 1]`.
fn log_sum_exp<B: Backend>(z: FloatTensor<B>) -> FloatTensor<B> {
    let m = B::float_max_dim(z.clone(), 1);
    let sum = B::float_sum_dim(B::float_exp(B::float_sub(z, m.clone())), 1);
    B::float_add(B::float_log(sum), m)
}

fn chunks(rows: usize, vocabulary: usize) -> impl Iterator<Item = (usize, usize)> {
    let chunk = (LOGITS / vocabulary.max(1)).clamp(8, 1024);
    (0..rows).step_by(chunk).map(move |from| (from, (from + chunk).min(rows)))
}

fn int_part<B: Backend>(x: IntTensor<B>, from: usize, to: usize) -> IntTensor<B> {
    let x = B::int_slice(x, &[Slice::from(from..to)]);
    B::int_reshape(x, Shape::from([to - from, 1]))
}

pub(crate) fn logprobs<B: Backend>(
    h: FloatTensor<B>,
    w: FloatTensor<B>,
    targets: IntTensor<B>,
    how: Logits,
) -> FloatTensor<B> {
    let mut rows = Vec::new();
    for (from, to) in chunks(h.shape()[0], w.shape()[0]) {
        let z = logits::<B>(part::<B>(h.clone(), 0, from, to), w.clone(), how);
        let lse = log_sum_exp::<B>(z.clone());
        let at_target = B::float_gather(1, z.clone(), int_part::<B>(targets.clone(), from, to));
        let p = B::float_exp(B::float_sub(z.clone(), lse.clone()));
        let mean = B::float_sum_dim(B::float_mul(p, z), 1);
        let pair = vec![B::float_sub(at_target, lse.clone()), B::float_sub(lse, mean)];
        rows.push(B::float_cat(pair, 1));
    }
    B::float_cat(rows, 0)
}

pub(crate) fn logprobs_backward<B: Backend>(
    h: FloatTensor<B>,
    w: FloatTensor<B>,
    targets: IntTensor<B>,
    dy: FloatTensor<B>,
    how: Logits,
    with_weight: bool,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    let mut sums = Sums::<B>::new(w, h.dtype(), Wanted { input: true, weight: with_weight });
    for (from, to) in chunks(h.shape()[0], sums.w.shape()[0]) {
        let h = part::<B>(h.clone(), 0, from, to);
        let z = logits::<B>(h.clone(), sums.w.clone(), how);
        let dy = part::<B>(dy.clone(), 0, from, to);
        let (a, e) = (part::<B>(dy.clone(), 1, 0, 1), part::<B>(dy, 1, 1, 2));
        let log_p = B::float_sub(z.clone(), log_sum_exp::<B>(z.clone()));
        let p = B::float_exp(log_p.clone());
        // H = − Σ p log p;  ∂/∂z = a (δ − p) − e p (log p + H)
        let entropy = B::float_neg(B::float_sum_dim(B::float_mul(p.clone(), log_p.clone()), 1));
        let inner = B::float_add(a.clone(), B::float_mul(e, B::float_add(log_p, entropy)));
        let dz = B::float_neg(B::float_mul(p, inner));
        let target = int_part::<B>(targets.clone(), from, to);
        let dz = B::float_scatter(1, dz, target, a, IndexingUpdateOp::Add);
        sums.add(h, z, dz, how);
    }
    let (dh, dw) = sums.take();
    (dh.expect("wanted"), dw)
}

pub(crate) fn cross_entropy<B: Backend>(
    h: FloatTensor<B>,
    w: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    objective: Objective,
    how: Logits,
    gradients: Wanted,
) -> (FloatTensor<B>, Option<FloatTensor<B>>, Option<FloatTensor<B>>) {
    let (rows, vocabulary) = (h.shape()[0], w.shape()[0]);
    let smoothing = objective.smoothing();
    let mut sums = Sums::<B>::new(w, h.dtype(), gradients);
    let mut out = Vec::new();
    for (from, to) in chunks(rows, vocabulary) {
        let h = part::<B>(h.clone(), 0, from, to);
        let z = logits::<B>(h.clone(), sums.w.clone(), how);
        let target = int_part::<B>(targets.clone(), from, to);
        let log_p = B::float_sub(z.clone(), log_sum_exp::<B>(z.clone()));
        let p = B::float_exp(log_p.clone());
        let logprob = B::float_gather(1, log_p.clone(), target.clone());
        let entropy = B::float_neg(B::float_sum_dim(B::float_mul(p.clone(), log_p.clone()), 1));
        let settings = burn::backend::get_device_settings::<B>(&z.device());
        let largest = B::float_max_dim(log_p.clone(), 1);
        let top1 = B::float_greater_equal(logprob.clone(), largest, settings.bool_dtype);
        let top1 = B::bool_into_float(top1, FloatDType::F32);
        let loss = match objective {
            Objective::Nll => B::float_neg(logprob.clone()),
            Objective::Dft => {
                let nll = B::float_neg(logprob.clone());
                B::float_mul(B::float_exp(logprob.clone()), nll)
            }
            Objective::LabelSmoothing(epsilon) => {
                let own = B::float_mul_scalar(logprob.clone(), (epsilon - 1.0).into());
                let all = B::float_mul_scalar(B::float_mean_dim(log_p, 1), epsilon.into());
                B::float_sub(own, all)
            }
        };
        if gradients.input || gradients.weight {
            // c (p − (1 − ε) δ − ε / V), where c is the weight, times p[t] of DFT
            let c = B::float_reshape(weights.clone(), Shape::from([rows, 1]));
            let c = wide::<B>(part::<B>(c, 0, from, to));
            let c = match objective {
                Objective::Dft => B::float_mul(c, B::float_exp(logprob.clone())),
                _ => c,
            };
            let every = B::float_sub_scalar(p, (smoothing / vocabulary as f32).into());
            let dz = B::float_mul(every, c.clone());
            let own = B::float_mul_scalar(c, (smoothing - 1.0).into());
            let dz = B::float_scatter(1, dz, target, own, IndexingUpdateOp::Add);
            sums.add(h, z, dz, how);
        }
        out.push(B::float_cat(vec![logprob, entropy, top1, loss], 1));
    }
    let (dh, dw) = sums.take();
    (B::float_cat(out, 0), dh, dw)
}

/// The gradients by h and W, chunk after chunk.
struct Sums<B: Backend> {
    w: FloatTensor<B>,
    wanted: Wanted,
    dh: Vec<FloatTensor<B>>,
    /// In f32.
    dw: Option<FloatTensor<B>>,
}

impl<B: Backend> Sums<B> {
    fn new(w: FloatTensor<B>, dtype: DType, wanted: Wanted) -> Self {
        Self { w: cast::<B>(w, dtype), wanted, dh: Vec::new(), dw: None }
    }

    /// Adds what follows from the gradient `dz` by the capped logits `z` of the rows `h`.
    fn add(&mut self, h: FloatTensor<B>, z: FloatTensor<B>, dz: FloatTensor<B>, how: Logits) {
        let dz = match how.softcap {
            Some(c) => {
                // d c tanh(x / c) / dx = 1 − (z / c)²
                let ratio = B::float_div_scalar(z, c.into());
                let slope = B::float_neg(B::float_mul(ratio.clone(), ratio));
                B::float_mul(dz, B::float_add_scalar(slope, 1.0_f32.into()))
            }
            None => dz,
        };
        let dz = if how.scale == 1.0 { dz } else { B::float_mul_scalar(dz, how.scale.into()) };
        let dz = cast::<B>(dz, h.dtype());
        if self.wanted.weight {
            let part = wide::<B>(B::float_matmul(B::float_swap_dims(dz.clone(), 0, 1), h));
            self.dw = Some(match self.dw.take() {
                Some(sum) => B::float_add(sum, part),
                None => part,
            });
        }
        if self.wanted.input {
            self.dh.push(B::float_matmul(dz, self.w.clone()));
        }
    }

    fn take(self) -> (Option<FloatTensor<B>>, Option<FloatTensor<B>>) {
        let dh = if self.dh.is_empty() { None } else { Some(B::float_cat(self.dh, 0)) };
        (dh, self.dw)
    }
}
