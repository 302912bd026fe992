//! Gradients. What has no backward of its own here is differentiated through its reference body.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, TensorMetadata};

use super::reference::cast;
use super::{Kernels, Logits};

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
        if let Some(node) = h_node {
            grads.register::<B>(node.id, dh);
        }
        if let Some((node, dw)) = w_node.zip(dw) {
            grads.register::<B>(node.id, cast::<B>(dw, dtype));
        }
    }
}

impl<B: Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
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
