//! Gradients. What has no backward of its own here has none at all: its inputs come without a graph.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend};

use super::{Dropout, Form, LoraKernels};

/// g = s dy B;  dx = drop(g A), dA = gᵀ drop(x), dB = s dyᵀ (drop(x) Aᵀ).
#[derive(Debug)]
struct LoraBackward;

impl<B: LoraKernels> Backward<B, 4> for LoraBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, Form);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, h, a, b, form) = ops.state;
        let [y_node, x_node, a_node, b_node] = ops.parents;
        let form = Form { input_gradient: x_node.is_some(), ..form };
        let (dx, da, db) = B::lora_backward(dy.clone(), x, h, a, b, form);
        for (node, gradient) in
            [(x_node, dx), (a_node, Some(da)), (b_node, Some(db)), (y_node, Some(dy))]
        {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// dx = drop(dy), with the same places.
#[derive(Debug)]
struct DropoutBackward;

impl<B: LoraKernels> Backward<B, 1> for DropoutBackward {
    type State = Dropout;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<B>(node.id, B::dropout(dy, ops.state));
        }
    }
}

impl<B: LoraKernels, C: CheckpointStrategy> LoraKernels for Autodiff<B, C> {
    fn lora_add(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let ((y, y_node), (x, x_node)) = (y.into_parts(), x.into_parts());
        let ((a, a_node), (b, b_node)) = (a.into_parts(), b.into_parts());
        let (y, h) = B::lora_add(y, x.clone(), a.clone(), b.clone(), form);
        let nodes = [y_node, x_node, a_node, b_node];
        let kept = h.clone();
        let y = match LoraBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x, h, a, b, form), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        };
        // Nobody differentiates by h.
        (y, <Self as AutodiffBackend>::from_inner(kept))
    }

    fn dropout(x: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let y = B::dropout(x, dropout);
        match DropoutBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(dropout, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}
