//! Gradients: every operation with its own backward pass. An input that is not tracked gets no
//! gradient, and where one would cost a product none is made for it.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, DType, TensorMetadata};

use super::reference::cast;
use super::{Kernels, Logits, Scores, Wanted, reference};
use crate::config::Activation;

/// Hands the gradients of the parents over.
macro_rules! register {
    ($backend:ty, $grads:ident, $(($node:expr, $gradient:expr)),+ $(,)?) => {
        $(if let (Some(node), Some(gradient)) = ($node, $gradient) {
            $grads.register::<$backend>(node.id, gradient);
        })+
    };
}

#[derive(Debug)]
struct LinearBackward;

impl<B: Kernels> Backward<B, 2> for LinearBackward {
    /// x, and the type of w, where w is tracked; w where x is.
    type State = (Option<(FloatTensor<B>, DType)>, Option<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ((x, w), [x_node, w_node]) = (ops.state, ops.parents);
        let dw = x.map(|(x, dtype)| cast::<B>(B::linear_weight_gradient(x, dy.clone()), dtype));
        let dx = w.map(|w| B::linear_input_gradient(dy, w));
        register!(B, grads, (x_node, dx), (w_node, dw));
    }
}

#[derive(Debug)]
struct NormBackward;

impl<B: Kernels> Backward<B, 2> for NormBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, f32, f32);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ((x, w, eps, offset), [x_node, w_node]) = (ops.state, ops.parents);
        let wanted = Wanted { input: x_node.is_some(), weight: w_node.is_some() };
        let (dx, dw) = B::rms_norm_backward(x, w, dy, eps, offset, wanted);
        register!(B, grads, (x_node, dx), (w_node, dw));
    }
}

#[derive(Debug)]
struct RotaryBackward;

impl<B: Kernels> Backward<B, 1> for RotaryBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ((cos, sin), [node]) = (ops.state, ops.parents);
        register!(B, grads, (node, Some(B::rotary_backward(dy, cos, sin))));
    }
}

#[derive(Debug)]
struct GatedBackward;

impl<B: Kernels> Backward<B, 2> for GatedBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, Activation);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ((g, u, activation), [g_node, u_node]) = (ops.state, ops.parents);
        let (dg, du) = B::gated_backward(g, u, dy, activation);
        register!(B, grads, (g_node, Some(dg)), (u_node, Some(du)));
    }
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: Kernels> Backward<B, 3> for AttentionBackward {
    /// q, k, v, output, stats; sequences, low, high.
    type State = ([FloatTensor<B>; 5], [IntTensor<B>; 3], Scores);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([q, k, v, o, stats], [sequences, low, high], scores) = ops.state;
        let [q_node, k_node, v_node] = ops.parents;
        let wanted = [q_node.is_some(), k_node.is_some(), v_node.is_some()];
        let (dq, dk, dv) =
            B::attention_backward(q, k, v, o, stats, dy, sequences, low, high, scores, wanted);
        register!(B, grads, (q_node, dq), (k_node, dk), (v_node, dv));
    }
}

/// Recomputes the logits of a few rows at a time and turns them into their gradient in place.
#[derive(Debug)]
struct LogprobsBackward;

impl<B: Kernels> Backward<B, 2> for LogprobsBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, IntTensor<B>, Logits);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (h, w, targets, logits) = ops.state;
        let [h_node, w_node] = ops.parents;
        let dtype = w.dtype();
        let (dh, dw) = B::logprobs_backward(h, w, targets, dy, logits, w_node.is_some());
        let dw = dw.map(|dw| cast::<B>(dw, dtype));
        register!(B, grads, (h_node, Some(dh)), (w_node, dw));
    }
}

impl<B: Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn linear(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        let (by_x, by_w) = (x.is_tracked(), w.is_tracked());
        let ((x, x_node), (w, w_node)) = (x.into_parts(), w.into_parts());
        let y = <B as Kernels>::linear(x.clone(), w.clone());
        match LinearBackward.prepare::<C>([x_node, w_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let dtype = w.dtype();
                prepared.finish((by_w.then_some((x, dtype)), by_x.then_some(w)), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn rms_norm(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        eps: f32,
        offset: f32,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (w, w_node)) = (x.into_parts(), w.into_parts());
        let y = B::rms_norm(x.clone(), w.clone(), eps, offset);
        match NormBackward.prepare::<C>([x_node, w_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x, w, eps, offset), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        if cos.is_tracked() || sin.is_tracked() {
            return reference::rotary::<Self>(x, cos, sin);
        }
        let ((x, node), cos, sin) = (x.into_parts(), cos.into_primitive(), sin.into_primitive());
        let y = B::rotary(x, cos.clone(), sin.clone());
        match RotaryBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((cos, sin), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn gated(
        g: FloatTensor<Self>,
        u: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let ((g, g_node), (u, u_node)) = (g.into_parts(), u.into_parts());
        let y = B::gated(g.clone(), u.clone(), activation);
        match GatedBackward.prepare::<C>([g_node, u_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((g, u, activation), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sequences: IntTensor<Self>,
        low: IntTensor<Self>,
        high: IntTensor<Self>,
        scores: Scores,
    ) -> FloatTensor<Self> {
        let ((q, q_node), (k, k_node), (v, v_node)) =
            (q.into_parts(), k.into_parts(), v.into_parts());
        let seen = [sequences.clone(), low.clone(), high.clone()];
        let inputs = [q.clone(), k.clone(), v.clone()];
        let nodes = [q_node, k_node, v_node];
        match AttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (o, stats) = B::attention_with_stats(q, k, v, sequences, low, high, scores);
                let [q, k, v] = inputs;
                prepared.finish(([q, k, v, o.clone(), stats], seen, scores), o)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(<B as Kernels>::attention(q, k, v, sequences, low, high, scores))
            }
        }
    }

    fn logprobs(
        h: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        logits: Logits,
    ) -> FloatTensor<Self> {
        let ((h, h_node), (w, w_node)) = (h.into_parts(), w.into_parts());
        let y = B::logprobs(h.clone(), w.clone(), targets.clone(), logits);
        match LogprobsBackward.prepare::<C>([h_node, w_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((h, w, targets, logits), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}
