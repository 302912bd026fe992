//! The fused operations of a decoder, as extensions of burn's backends.
//!
//! [`Kernels`] names them. Every operation has a body of plain tensor operations ([`reference`]),
//! which any backend runs and which tests compare with; on the CPU (`flex`, in f32) the loops of
//! `cpu` replace it. Attention stands behind one function, so that a better kernel has one place
//! to go.

mod autodiff;
#[cfg_attr(
    not(feature = "flex"),
    allow(
        dead_code,
        unused_imports,
        reason = "without the CPU the optimizer's loops and the settings of memory are used"
    )
)]
pub(crate) mod cpu;
#[cfg(feature = "flex")]
mod flex;
pub(crate) mod lora;
mod objective;
pub(crate) mod quantized;
pub(crate) mod random;
pub(crate) mod reference;
#[cfg(all(test, feature = "flex"))]
mod tests;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};

pub use objective::Objective;

use crate::config::Activation;

/// The operations. Shapes stand at the functions of this module with the same names.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "gpu"),
    Fusion: cfg(feature = "gpu"),
    Autodiff
)]
pub(crate) trait Kernels: Backend {
    #[fusion(default)]
    fn linear(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::linear::<Self>(x, w)
    }

    /// dy W: the gradient by x.
    #[fusion(default)]
    fn linear_input_gradient(dy: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::linear_input_gradient::<Self>(dy, w)
    }

    /// dyᵀ x: the gradient by w.
    #[fusion(default)]
    fn linear_weight_gradient(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::linear_weight_gradient::<Self>(x, dy)
    }

    #[fusion(default)]
    fn rms_norm(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        eps: f32,
        offset: f32,
    ) -> FloatTensor<Self> {
        reference::rms_norm::<Self>(x, w, eps, offset)
    }

    /// The gradients by x and w, in their types.
    #[fusion(default)]
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
        offset: f32,
        wanted: Wanted,
    ) -> (Option<FloatTensor<Self>>, Option<FloatTensor<Self>>) {
        reference::rms_norm_backward::<Self>(x, w, dy, [eps, offset], wanted)
    }

    #[fusion(default)]
    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        reference::rotary::<Self>(x, cos, sin)
    }

    /// The gradient by x.
    #[fusion(default)]
    fn rotary_backward(
        dy: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        reference::rotary::<Self>(dy, cos, Self::float_neg(sin))
    }

    #[fusion(default)]
    fn gated(
        g: FloatTensor<Self>,
        u: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        reference::gated::<Self>(g, u, activation)
    }

    /// The gradients by g and u.
    #[fusion(default)]
    fn gated_backward(
        g: FloatTensor<Self>,
        u: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::gated_backward::<Self>(g, u, dy, activation)
    }

    #[fusion(default)]
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sequences: IntTensor<Self>,
        low: IntTensor<Self>,
        high: IntTensor<Self>,
        scores: Scores,
    ) -> FloatTensor<Self> {
        reference::attention::<Self>(q, k, v, sequences, low, high, scores).0
    }

    /// The attention, and in f32 m = max s and 1 / Σ e^(s − m) of each query's scores s,
    /// `[batch, heads, queries, 2]`.
    #[fusion(default)]
    fn attention_with_stats(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sequences: IntTensor<Self>,
        low: IntTensor<Self>,
        high: IntTensor<Self>,
        scores: Scores,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::attention::<Self>(q, k, v, sequences, low, high, scores)
    }

    /// The gradients by q, k and v, of those that are wanted, given the output o, its stats and the
    /// gradient dy by o.
    #[fusion(default)]
    #[allow(
        clippy::too_many_arguments,
        clippy::type_complexity,
        reason = "a backend takes and gives its tensors one by one"
    )]
    fn attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        stats: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        sequences: IntTensor<Self>,
        low: IntTensor<Self>,
        high: IntTensor<Self>,
        scores: Scores,
        wanted: [bool; 3],
    ) -> (Option<FloatTensor<Self>>, Option<FloatTensor<Self>>, Option<FloatTensor<Self>>) {
        // Plain operations have Σ p dp at hand, which is dy · o.
        drop(o);
        let pass = reference::Pass { q, k, v, stats, dy };
        reference::attention_backward::<Self>(pass, [sequences, low, high], scores, wanted)
    }

    #[fusion(default)]
    fn cache_write(
        cache: FloatTensor<Self>,
        new: FloatTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        reference::cache_write::<Self>(cache, new, places)
    }

    #[fusion(default)]
    fn logprobs(
        h: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        logits: Logits,
    ) -> FloatTensor<Self> {
        reference::logprobs::<Self>(h, w, targets, logits)
    }

    #[fusion(default)]
    fn logprobs_backward(
        h: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        dy: FloatTensor<Self>,
        logits: Logits,
        with_weight: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        reference::logprobs_backward::<Self>(h, w, targets, dy, logits, with_weight)
    }

    #[fusion(default)]
    fn cross_entropy(
        h: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        objective: Objective,
        logits: Logits,
        gradients: Wanted,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>, Option<FloatTensor<Self>>) {
        reference::cross_entropy::<Self>(h, w, targets, weights, objective, logits, gradients)
    }
}

#[cfg(feature = "gpu")]
impl Kernels for burn_cubecl::CubeBackend {}

/// How scores come from queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scores {
    /// Factor of q · k.
    pub(crate) scale: f32,
    /// c of c tanh(s / c).
    pub(crate) softcap: Option<f32>,
    /// No query sees a key from this place on: what lies behind need not be read.
    pub(crate) keys: usize,
}

/// How logits come from hidden states and the output matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Logits {
    /// Factor of h Wᵀ.
    pub(crate) scale: f32,
    /// c of c tanh(z / c).
    pub(crate) softcap: Option<f32>,
}

/// Which gradients an operation is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// By the input.
    pub(crate) input: bool,
    /// By the weight.
    pub(crate) weight: bool,
}

impl Wanted {
    /// An evaluation.
    pub(crate) const NOTHING: Self = Self { input: false, weight: false };
}

/// Which keys each query sees: those from `low` to before `high` of its sequence. On the device.
#[derive(Clone, Debug)]
pub(crate) struct Visible {
    /// For each row of the batch its sequence in the key and value tensors, `[batch]`.
    pub(crate) sequences: Tensor<1, Int>,
    /// `[batch, queries]`.
    pub(crate) low: Tensor<2, Int>,
    /// `[batch, queries]`; above `low`: every query sees a key.
    pub(crate) high: Tensor<2, Int>,
}

/// x Wᵀ: x `[.., in]`, w `[out, in]` to `[.., out]`. On the CPU w may be bf16 with x in f32.
pub(crate) fn linear<const D: usize>(x: Tensor<D>, w: Tensor<2>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::linear(x.into_dispatch(), w.into_dispatch()))
}

/// x / √(mean(x²) + eps) · (w + offset) over the last axis (Zhang & Sennrich 2019,
/// arXiv:1910.07467): x `[.., d]`, w `[d]`.
pub(crate) fn rms_norm<const D: usize>(
    x: Tensor<D>,
    w: Tensor<1>,
    eps: f32,
    offset: f32,
) -> Tensor<D> {
    let (x, w) = (x.into_dispatch(), w.into_dispatch());
    Tensor::from_dispatch(Dispatch::rms_norm(x, w, eps, offset))
}

/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864), the first half of the rotated
/// numbers against the second: x `[batch, time, heads, dim]`, cos and sin `[batch * time, half]`.
/// Numbers from `2 * half` on pass unchanged.
pub(crate) fn rotary(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    let (x, cos, sin) = (x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch());
    Tensor::from_dispatch(Dispatch::rotary(x, cos, sin))
}

/// act(g) · u (Shazeer 2020, arXiv:2002.05202), of equal shapes.
pub(crate) fn gated<const D: usize>(g: Tensor<D>, u: Tensor<D>, act: Activation) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::gated(g.into_dispatch(), u.into_dispatch(), act))
}

/// Attention with grouped heads: q `[batch, queries, heads, dim]`, k and v
/// `[sequences, capacity, kv_heads, dim]` to `[batch, queries, heads, dim]`.
pub(crate) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    visible: &Visible,
    scores: Scores,
) -> Tensor<4> {
    let Visible { sequences, low, high } = visible.clone();
    Tensor::from_dispatch(Dispatch::attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        sequences.into_dispatch(),
        low.into_dispatch(),
        high.into_dispatch(),
        scores,
    ))
}

/// Writes new keys (or values) `[batch, time, kv_heads, dim]` into a cache
/// `[sequences, capacity, kv_heads, dim]`: token i of all into place `places[i]`, counted through
/// all sequences; the places differ. In place where nobody else holds the cache.
pub(crate) fn cache_write(cache: Tensor<4>, new: Tensor<4>, places: Tensor<1, Int>) -> Tensor<4> {
    let (cache, new) = (cache.into_dispatch(), new.into_dispatch());
    Tensor::from_dispatch(Dispatch::cache_write(cache, new, places.into_dispatch()))
}

/// Log-probability of the targets and entropy, `[n, 2]`, both differentiable: h `[n, dim]`,
/// w `[vocabulary, dim]`, targets `[n]`. Logits exist for a few rows at a time, forward and backward.
pub(crate) fn logprobs(
    h: Tensor<2>,
    w: Tensor<2>,
    targets: Tensor<1, Int>,
    logits: Logits,
) -> Tensor<2> {
    let (h, w, targets) = (h.into_dispatch(), w.into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(Dispatch::logprobs(h, w, targets, logits))
}

/// The gradients by h `[n, dim]` and, if wanted, by w in f32, of a loss of which `dy` `[n, 2]` is the
/// gradient by what [`logprobs`] returns.
pub(crate) fn logprobs_backward(
    h: Tensor<2>,
    w: Tensor<2>,
    targets: Tensor<1, Int>,
    dy: Tensor<2>,
    logits: Logits,
    with_weight: bool,
) -> (Tensor<2>, Option<Tensor<2>>) {
    let (h, w, targets) = (h.into_dispatch(), w.into_dispatch(), targets.into_dispatch());
    let dy = dy.into_dispatch();
    let (dh, dw) = Dispatch::logprobs_backward(h, w, targets, dy, logits, with_weight);
    (Tensor::from_dispatch(dh), dw.map(Tensor::from_dispatch))
}

/// What a pass over the logits finds for its targets, in f32.
#[derive(Debug)]
pub(crate) struct Scored {
    /// Log-probability of the target, entropy, 1 where no word is likelier, loss: `[n, 4]`.
    pub(crate) rows: Tensor<2>,
    /// Gradient of Σ weight · loss by h, `[n, dim]`, in its type,
    pub(crate) by_hidden: Option<Tensor<2>>,
    /// and by w.
    pub(crate) by_weight: Option<Tensor<2>>,
}

/// The losses of targets with weights `[n]`, and their gradients in the same pass: h `[n, dim]`,
/// w `[vocabulary, dim]`, targets `[n]`. Logits exist for a few rows at a time.
pub(crate) fn cross_entropy(
    h: Tensor<2>,
    w: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    objective: Objective,
    logits: Logits,
    gradients: Wanted,
) -> Scored {
    let (h, w, targets) = (h.into_dispatch(), w.into_dispatch(), targets.into_dispatch());
    let weights = weights.into_dispatch();
    let (rows, by_hidden, by_weight) =
        Dispatch::cross_entropy(h, w, targets, weights, objective, logits, gradients);
    Scored {
        rows: Tensor::from_dispatch(rows),
        by_hidden: by_hidden.map(Tensor::from_dispatch),
        by_weight: by_weight.map(Tensor::from_dispatch),
    }
}
