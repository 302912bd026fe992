//! The gradients in plain tensor operations. Formulas stand in the files of `cpu` with these names.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Shape};

use super::{cast, dims, hidden_scores, part, spread, wide};
use crate::config::Activation;
use crate::kernel::{Scores, Wanted};

fn rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / width.max(1);
    B::float_reshape(x, Shape::from([rows, width]))
}

pub(crate) fn linear_input_gradient<B: Backend>(
    dy: FloatTensor<B>,
    w: FloatTensor<B>,
) -> FloatTensor<B> {
    let mut shape = dy.shape();
    let last = shape.num_dims() - 1;
    shape[last] = w.shape()[1];
    let w = cast::<B>(w, dy.dtype());
    B::float_reshape(B::float_matmul(rows::<B>(dy), w), shape)
}

pub(crate) fn linear_weight_gradient<B: Backend>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> FloatTensor<B> {
    B::float_matmul(B::float_swap_dims(rows::<B>(dy), 0, 1), rows::<B>(x))
}

pub(crate) fn rms_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    dy: FloatTensor<B>,
    [eps, offset]: [f32; 2],
    wanted: Wanted,
) -> (Option<FloatTensor<B>>, Option<FloatTensor<B>>) {
    let (shape, types) = (x.shape(), (x.dtype(), w.dtype()));
    let width = w.shape()[0];
    let (x, dy) = (rows::<B>(wide::<B>(x)), rows::<B>(wide::<B>(dy)));
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let r = B::float_recip(B::float_sqrt(B::float_add_scalar(mean, eps.into())));
    let normed = B::float_mul(x, r.clone());
    let dw = wanted.weight.then(|| {
        let dw = B::float_sum_dim(B::float_mul(dy.clone(), normed.clone()), 0);
        cast::<B>(B::float_reshape(dw, Shape::from([width])), types.1)
    });
    let dx = wanted.input.then(|| {
        let w = B::float_reshape(wide::<B>(w), Shape::from([1, width]));
        let g = B::float_mul(dy, B::float_add_scalar(w, offset.into()));
        let c = B::float_mean_dim(B::float_mul(g.clone(), normed.clone()), 1);
        let dx = B::float_mul(B::float_sub(g, B::float_mul(normed, c)), r);
        cast::<B>(B::float_reshape(dx, shape), types.0)
    });
    (dx, dw)
}

pub(crate) fn gated_backward<B: Backend>(
    g: FloatTensor<B>,
    u: FloatTensor<B>,
    dy: FloatTensor<B>,
    activation: Activation,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (types, g, dy) = ((g.dtype(), u.dtype()), wide::<B>(g), wide::<B>(dy));
    let mul = B::float_mul;
    let times = |x, factor: f32| B::float_mul_scalar(x, factor.into());
    let plus = |x, term: f32| B::float_add_scalar(x, term.into());
    let (act, slope) = match activation {
        Activation::Silu => {
            // s + g s (1 − s)
            let s = B::sigmoid(g.clone());
            let act = mul(g, s.clone());
            let rest = mul(act.clone(), plus(B::float_neg(s.clone()), 1.0));
            (act, B::float_add(s, rest))
        }
        Activation::Gelu => {
            // Φ(g) + g φ(g)
            let erf = B::float_erf(times(g.clone(), std::f32::consts::FRAC_1_SQRT_2));
            let phi_sum = times(plus(erf, 1.0), 0.5);
            let phi = B::float_exp(times(mul(g.clone(), g.clone()), -0.5));
            let phi = times(phi, (2.0 * std::f32::consts::PI).sqrt().recip());
            let slope = B::float_add(phi_sum.clone(), mul(g.clone(), phi));
            (mul(g, phi_sum), slope)
        }
        Activation::GeluTanh => {
            // t = tanh(c (g + a g³)):  (1 + t) / 2 + g / 2 (1 − t²) c (1 + 3 a g²)
            let (c, a) = ((2.0 / std::f32::consts::PI).sqrt(), 0.044_715);
            let square = mul(g.clone(), g.clone());
            let inner = times(mul(g.clone(), plus(times(square.clone(), a), 1.0)), c);
            let t = B::float_tanh(inner);
            let half = times(plus(t.clone(), 1.0), 0.5);
            let inner_slope = times(plus(times(square, 3.0 * a), 1.0), c);
            let rest = mul(plus(B::float_neg(mul(t.clone(), t)), 1.0), inner_slope);
            let slope = B::float_add(half.clone(), times(mul(g.clone(), rest), 0.5));
            (mul(g, half), slope)
        }
    };
    let du = mul(dy.clone(), act);
    let dg = mul(mul(dy, wide::<B>(u)), slope);
    (cast::<B>(dg, types.0), cast::<B>(du, types.1))
}

/// What the forward pass had and made, and the gradient by the latter.
pub(crate) struct Pass<B: Backend> {
    pub(crate) q: FloatTensor<B>,
    pub(crate) k: FloatTensor<B>,
    pub(crate) v: FloatTensor<B>,
    pub(crate) stats: FloatTensor<B>,
    pub(crate) dy: FloatTensor<B>,
}

#[expect(clippy::type_complexity, reason = "as the operation has it")]
pub(crate) fn attention_backward<B: Backend>(
    pass: Pass<B>,
    [sequences, low, high]: [IntTensor<B>; 3],
    scores: Scores,
    wanted: [bool; 3],
) -> (Option<FloatTensor<B>>, Option<FloatTensor<B>>, Option<FloatTensor<B>>) {
    let Pass { q, k, v, stats, dy } = pass;
    let [batch, _, heads, _] = dims(&q.shape());
    let (shape, dtype) = (k.shape(), q.dtype());
    let spread = |x| spread::<B>(x, sequences.clone(), heads, scores.keys);
    let (k, v) = (spread(k), spread(v));
    let s = hidden_scores::<B>(q.clone(), k.clone(), [low, high], scores);
    let [m, l] = [0, 1].map(|i| part::<B>(stats.clone(), 3, i, i + 1));
    let p = B::float_mul(B::float_exp(B::float_sub(s.clone(), m)), l);
    // Sums over the heads that share keys, back to the sequences.
    let gather = |x: FloatTensor<B>| {
        let [sequences_, capacity, kv_heads, dim] = dims(&shape);
        let groups = Shape::from([batch, kv_heads, heads / kv_heads, scores.keys, dim]);
        let x = B::float_sum_dim(B::float_reshape(wide::<B>(x), groups), 2);
        let x = B::float_reshape(x, Shape::from([batch, kv_heads, scores.keys, dim]));
        let x = B::float_swap_dims(x, 1, 2);
        let device = x.device();
        let zeros = |keys| {
            let shape = Shape::from([sequences_, keys, kv_heads, dim]);
            B::float_zeros(shape, &device, x.dtype().into())
        };
        let (seen, unseen) = (zeros(scores.keys), zeros(capacity - scores.keys));
        let x = B::float_select_assign(seen, 0, sequences.clone(), x, IndexingUpdateOp::Add);
        cast::<B>(B::float_cat(vec![x, unseen], 1), dtype)
    };
    let dy = B::float_swap_dims(dy, 1, 2);
    let dv = wanted[2].then(|| {
        let p = cast::<B>(B::float_swap_dims(p.clone(), 2, 3), dtype);
        gather(B::float_matmul(p, dy.clone()))
    });
    if !wanted[0] && !wanted[1] {
        return (None, None, dv);
    }
    let dp = wide::<B>(B::float_matmul(dy, B::float_swap_dims(v, 2, 3)));
    // Σ p dp rather than dy · o, which in half precision would not cancel.
    let delta = B::float_sum_dim(B::float_mul(p.clone(), dp.clone()), 3);
    let ds = B::float_mul(p, B::float_sub(dp, delta));
    let ds = match scores.softcap {
        Some(c) => {
            // Scores of hidden keys lie far outside.
            let ratio = B::float_clamp(B::float_div_scalar(s, c.into()), (-1.0).into(), 1.0.into());
            let slope = B::float_neg(B::float_mul(ratio.clone(), ratio));
            B::float_mul(ds, B::float_add_scalar(slope, 1.0_f32.into()))
        }
        None => ds,
    };
    let ds = cast::<B>(B::float_mul_scalar(ds, scores.scale.into()), dtype);
    let dq = wanted[0].then(|| B::float_swap_dims(B::float_matmul(ds.clone(), k), 1, 2));
    let dk = wanted[1].then(|| {
        let q = B::float_swap_dims(q, 1, 2);
        gather(B::float_matmul(B::float_swap_dims(ds, 2, 3), q))
    });
    (dq, dk, dv)
}
