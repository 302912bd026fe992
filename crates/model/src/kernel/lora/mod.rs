//! Low-rank updates of linear layers, dropout and noise.

mod autodiff;
#[cfg(feature = "flex")]
mod flex;
mod reference;
#[cfg(all(test, feature = "flex"))]
mod tests;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::random::{Dropout, Stream};
pub(super) use reference::row_squares as dense_row_squares;

/// How a low-rank update enters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Form {
    /// Factor of the update.
    pub(crate) scale: f32,
    /// Of the input of the update.
    pub(crate) dropout: Option<Dropout>,
    /// Whether the gradient by the input is wanted.
    pub(crate) input_gradient: bool,
}

/// The operations. Shapes stand at the functions of this module with the same names.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "gpu"),
    Fusion: cfg(feature = "gpu"),
    Autodiff
)]
pub(crate) trait LoraKernels: Backend {
    /// The sum, and drop(x) Aᵀ.
    #[fusion(default)]
    fn lora_add(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::lora_add::<Self>(y, x, a, b, form)
    }

    /// The gradients by x (if wanted), A and B, given the one by the sum and h = drop(x) Aᵀ.
    #[fusion(default)]
    fn lora_backward(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        h: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        form: Form,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>, FloatTensor<Self>) {
        reference::lora_backward::<Self>(dy, x, h, a, b, form)
    }

    #[fusion(default)]
    fn dropout(x: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self> {
        reference::dropout::<Self>(x, dropout)
    }

    #[fusion(default)]
    fn uniform_like(x: FloatTensor<Self>, stream: Stream) -> FloatTensor<Self> {
        reference::uniform_like::<Self>(x, stream)
    }

    #[fusion(default)]
    fn row_squares(w: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::row_squares::<Self>(w)
    }
}

#[cfg(feature = "gpu")]
impl LoraKernels for burn_cubecl::CubeBackend {}

/// y + s (drop(x) Aᵀ) Bᵀ (Hu et al. 2021, arXiv:2106.09685): y `[.., out]`, x `[.., in]`,
/// A `[r, in]`, B `[out, r]`. In place where nobody else holds y. Differentiable by all four; the
/// backward pass makes the dropped places anew.
pub(crate) fn lora_add<const D: usize>(
    y: Tensor<D>,
    x: Tensor<D>,
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f32,
    dropout: Option<Dropout>,
) -> Tensor<D> {
    let form = Form { scale, dropout, input_gradient: true };
    let (y, x, a, b) = (y.into_dispatch(), x.into_dispatch(), a.into_dispatch(), b.into_dispatch());
    let (y, _) = Dispatch::lora_add(y, x, a, b, form);
    Tensor::from_dispatch(y)
}

/// x with some numbers zero and the others divided by the probability to stay. Differentiable.
pub(crate) fn dropout<const D: usize>(x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::dropout(x.into_dispatch(), dropout))
}

/// Uniform numbers in [−1, 1) of the shape, type and device of x, which has no graph.
pub(crate) fn uniform_like<const D: usize>(x: Tensor<D>, stream: Stream) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::uniform_like(x.into_dispatch(), stream))
}

/// Σ w² of each row, in f32: w `[out, in]`, without a graph, to `[out]`.
pub(crate) fn row_squares(w: Tensor<2>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::row_squares(w.into_dispatch()))
}
