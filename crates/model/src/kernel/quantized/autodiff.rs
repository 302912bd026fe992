//! The gradient by the input; the matrix has none.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::{Form, QuantizedKernels};

/// dx = dy W; neither x nor a dense W is kept.
#[derive(Debug)]
struct LinearBackward;

impl<B: QuantizedKernels> Backward<B, 1> for LinearBackward {
    type State = (IntTensor<B>, FloatTensor<B>, IntTensor<B>, Form);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (words, scales, nested, form) = ops.state;
        let [node] = ops.parents;
        if let Some(node) = node {
            let dx = B::quantized_input_gradient(dy, words, scales, nested, form);
            grads.register::<B>(node.id, dx);
        }
    }
}

impl<B: QuantizedKernels, C: CheckpointStrategy> QuantizedKernels for Autodiff<B, C> {
    fn quantized_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        nested: IntTensor<Self>,
        form: Form,
    ) -> FloatTensor<Self> {
        let ((x, node), (scales, _)) = (x.into_parts(), scales.into_parts());
        let y = B::quantized_linear(x, words.clone(), scales.clone(), nested.clone(), form);
        match LinearBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((words, scales, nested, form), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}
