//! Scores at given places, with their gradients.

use burn::module::Module;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};

use super::logprobs::indices;
use super::{Decoder, Gradients};

impl Decoder {
    /// The scores of the head at places of the hidden states of [`Decoder::forward`]
    /// `[batch, time, hidden_size]`: `[places, labels]` in f32, differentiable. A place is counted
    /// through the batch: row · time + token.
    ///
    /// # Panics
    /// When the model has no head that scores ([`Head::labels`](crate::config::Head::labels) tells),
    /// or a place is not in the batch.
    pub fn scores(&self, hidden: Tensor<3>, places: &[usize]) -> Tensor<2> {
        if places.is_empty() {
            return nothing(&hidden, self.labels());
        }
        self.score_rows(rows(hidden, places))
    }

    /// Gradient by the hidden states of any loss over [`Decoder::scores`], given the one by the scores
    /// `[places, labels]`. Those by the parameters of the head, where they are trained, are added to
    /// `gradients`: what the closure of [`Decoder::backward`] has to do.
    ///
    /// # Panics
    /// As [`Decoder::scores`], and when the gradient is of another shape or the model stands on a device
    /// with autodiff.
    pub fn scores_backward(
        &self,
        hidden: Tensor<3>,
        places: &[usize],
        by_scores: Tensor<2>,
        gradients: &mut Gradients,
    ) -> Tensor<3> {
        assert_eq!(by_scores.dims(), [places.len(), self.labels()], "one number for each score");
        if places.is_empty() {
            return hidden.zeros_like();
        }
        let h = Tensor::from_inner(rows(hidden.clone(), places)).require_grad();
        let by_rows = if let Some(head) = &self.score {
            let head = head.clone().train();
            let mut found = back(head.forward(h.clone()), by_scores);
            gradients.collect("score", &head, &mut found);
            h.grad_remove(&mut found)
        } else {
            let head = self.v_head.clone().expect("a head that scores").train();
            let mut found = back(head.summary.forward(h.clone()), by_scores);
            gradients.collect("v_head", &head, &mut found);
            h.grad_remove(&mut found)
        };
        spread(&hidden, places, by_rows.expect("the hidden states were tracked"))
    }

    /// The scores of hidden states `[rows, hidden_size]`, in f32.
    pub(crate) fn score_rows(&self, hidden: Tensor<2>) -> Tensor<2> {
        match (&self.score, &self.v_head) {
            (Some(score), _) => wide(score.forward(hidden)),
            (_, Some(head)) => wide(head.summary.forward(hidden)),
            _ => panic!("the model has no head that scores; `with_head` puts one on it"),
        }
    }

    fn labels(&self) -> usize {
        let labels = self.config.head.labels();
        labels.expect("the model has no head that scores; `with_head` puts one on it")
    }
}

/// Hidden states at places, `[places, hidden_size]`.
pub(super) fn rows(hidden: Tensor<3>, places: &[usize]) -> Tensor<2> {
    let [batch, time, _] = hidden.dims();
    let inside = places.iter().all(|&place| place < batch * time);
    assert!(inside, "the places are of another batch than the hidden states");
    let places = indices(places.iter().copied(), &hidden.device());
    hidden.flatten::<2>(0, 1).select(0, places)
}

/// Rows to their places among zeros, `[batch, time, hidden_size]`.
pub(super) fn spread(hidden: &Tensor<3>, places: &[usize], rows: Tensor<2>) -> Tensor<3> {
    let places: Tensor<1, Int> = indices(places.iter().copied(), &hidden.device());
    let zeros = hidden.zeros_like().flatten::<2>(0, 1);
    zeros.select_assign(0, places, rows, IndexingUpdateOp::Add).reshape(hidden.dims())
}

/// The gradients of everything behind `y`, given the one by `y`.
pub(super) fn back(y: Tensor<2>, by_y: Tensor<2>) -> burn::tensor::Gradients {
    let by_y = if by_y.dtype() == y.dtype() { by_y } else { by_y.cast(y.dtype()) };
    (y * Tensor::from_inner(by_y)).sum().backward()
}

pub(super) fn wide(y: Tensor<2>) -> Tensor<2> {
    if y.dtype() == DType::F32 { y } else { y.cast(DType::F32) }
}

fn nothing(hidden: &Tensor<3>, columns: usize) -> Tensor<2> {
    Tensor::zeros([0, columns], (&hidden.device(), DType::F32))
}
