//! The output matrix, and what an adapter adds to it.
//!
//! Logits are made a few rows at a time by operations that know one matrix. An adapted head is one
//! matrix too, for hidden states that are a little wider:
//!
//!   c ∘ (h Wᵀ + s (h Aᵀ) Bᵀ) = \[h, h Aᵀ\] · (c ∘ \[W, s B\])ᵀ

use burn::module::Module;
use burn::tensor::Tensor;

use super::parameters::trains;
use super::weight::plain;
use super::{Decoder, Gradients, Linear};
use crate::adapter::dora;

/// Hidden states and matrix of a product, and the way back from their gradients.
#[derive(Debug)]
pub(super) struct Projection {
    /// `[rows, width]`
    pub(super) h: Tensor<2>,
    /// `[vocab_size, width]`
    pub(super) w: Tensor<2>,
    /// Whether the gradient by `w` is wanted.
    pub(super) trains: bool,
    name: &'static str,
    adapted: Option<Adapted>,
}

/// The graph of an adapted head.
#[derive(Debug)]
struct Adapted {
    head: Linear,
    hidden: Tensor<2>,
    h: Tensor<2>,
    w: Tensor<2>,
}

impl Decoder {
    /// The matrix of the head without its adapter, `[vocab_size, hidden_size]`.
    pub(super) fn head(&self) -> Tensor<2> {
        self.assert_logits();
        match &self.lm_head {
            Some(head) => head.weight.dense().expect("the head is not quantised").val(),
            None => self.model.embed_tokens.weight.val(),
        }
    }

    /// The head with its adapter, if it has one that is active.
    pub(super) fn adapted_head(&self) -> Option<&Linear> {
        self.lm_head.as_ref().filter(|head| head.low.is_some())
    }

    /// Panics where the model has a head that scores and no output matrix.
    pub(super) fn assert_logits(&self) {
        let head = self.config.head;
        assert!(self.config.has_logits(), "a model with the head {head:?} has no logits");
    }

    /// Whether the output matrix is the embedding matrix.
    pub(crate) fn is_tied(&self) -> bool {
        self.lm_head.is_none() && self.config.has_logits()
    }

    /// What is multiplied for the logits of hidden states `[rows, hidden_size]`.
    pub(super) fn projected(&self, hidden: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        match self.adapted_head() {
            Some(head) => widened(head, hidden),
            None => (hidden, self.head()),
        }
    }

    /// The same for a model and hidden states on a device without autodiff, and with the way back
    /// where there is one to go.
    pub(super) fn projection(&self, hidden: Tensor<2>, back: bool) -> Projection {
        if !back {
            let (h, w) = self.projected(hidden);
            return Projection { h, w, trains: false, name: "lm_head", adapted: None };
        }
        if let Some(head) = self.adapted_head() {
            let (head, hidden) = (head.clone().train(), Tensor::from_inner(hidden).require_grad());
            let (h, w) = widened(&head, hidden.clone());
            let (plain_h, plain_w) = (plain(h.clone()), plain(w.clone()));
            let adapted = Some(Adapted { head, hidden, h, w });
            return Projection { h: plain_h, w: plain_w, trains: true, name: "lm_head", adapted };
        }
        let (name, trains) = match &self.lm_head {
            Some(head) => ("lm_head.weight", head.weight.dense().is_some_and(trains)),
            None => ("model.embed_tokens.weight", trains(&self.model.embed_tokens.weight)),
        };
        Projection { h: hidden, w: self.head(), trains, name, adapted: None }
    }
}

impl Projection {
    /// The gradient by the hidden states, given those by `h` and, where wanted, `w`; what is trained
    /// gets its own.
    pub(super) fn back(
        self,
        dh: Tensor<2>,
        dw: Option<Tensor<2>>,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let Some(Adapted { head, hidden, h, w }) = self.adapted else {
            if let Some(dw) = dw {
                gradients.add(self.name, dw);
            }
            return dh;
        };
        let mut surrogate = (h * Tensor::from_inner(dh)).sum();
        if let Some(dw) = dw {
            surrogate = surrogate + (w * Tensor::from_inner(dw)).sum();
        }
        let mut found = surrogate.backward();
        gradients.collect(self.name, &head, &mut found);
        hidden.grad_remove(&mut found).expect("the hidden states were tracked")
    }
}

fn widened(head: &Linear, h: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let (Some(low), Some(a), Some(b)) = (&head.low, &head.lora_A, &head.lora_B) else {
        unreachable!("an adapted head has factors")
    };
    let like = h.dtype();
    let cast = |t: Tensor<2>| if t.dtype() == like { t } else { t.cast(like) };
    let (a, b) = (a.weight.val(), b.weight.val());
    let matrix = head.weight.dense().expect("the head is not quantised").val();
    let mut narrow = vec![h.clone(), h.clone().matmul(cast(a.clone()).transpose())];
    let mut parts = vec![cast(matrix), cast(b.clone()).mul_scalar(low.scale)];
    if let Some(initial) = &head.initial {
        narrow.push(h.matmul(cast(initial.a.clone()).transpose()));
        parts.push(cast(initial.b.clone()).mul_scalar(-low.scale));
    }
    let mut w = Tensor::cat(parts, 1);
    if let Some(magnitude) = &head.lora_magnitude_vector {
        let factors = dora::Factors::new(&a, &b, low.scale, head.initial.as_ref());
        let c = dora::ratio(magnitude.val(), dora::row_norms(&head.weight, &factors));
        w = w * cast(c.unsqueeze_dim(1));
    }
    (Tensor::cat(narrow, 1), w)
}
