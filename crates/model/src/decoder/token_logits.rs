//! Logits of a few tokens at given places, with their gradients.

use burn::module::{Module, Param};
use burn::tensor::{DType, Int, Tensor};

use super::head_scores::{back, rows, spread, wide};
use super::logprobs::indices;
use super::weight::{Weight, plain};
use super::{Decoder, Gradients, Linear};
use crate::adapter::{Initial, dora};
use crate::kernel;

impl Decoder {
    /// The logits of a few tokens at places of the hidden states of [`Decoder::forward`]
    /// `[batch, time, hidden_size]`: `[places, ids]` in f32, differentiable. Those of other tokens are
    /// not computed. Places are counted as in [`Decoder::scores`].
    ///
    /// # Panics
    /// When the model has no logits ([`Config::has_logits`](crate::config::Config::has_logits) tells),
    /// a place is not in the batch, or an id not in the vocabulary.
    pub fn token_logits(&self, hidden: Tensor<3>, places: &[usize], ids: &[u32]) -> Tensor<2> {
        self.assert_tokens(ids);
        if places.is_empty() || ids.is_empty() {
            return Tensor::zeros([places.len(), ids.len()], (&hidden.device(), DType::F32));
        }
        self.token_logit_rows(rows(hidden, places), ids)
    }

    /// Gradient by the hidden states of any loss over [`Decoder::token_logits`], given the one by these
    /// logits `[places, ids]`. Those by the output matrix or its adapter, where they are trained, are
    /// added to `gradients`.
    ///
    /// # Panics
    /// As [`Decoder::token_logits`], and when the gradient is of another shape or the model stands on a
    /// device with autodiff.
    pub fn token_logits_backward(
        &self,
        hidden: Tensor<3>,
        places: &[usize],
        ids: &[u32],
        by_logits: Tensor<2>,
        gradients: &mut Gradients,
    ) -> Tensor<3> {
        self.assert_tokens(ids);
        assert_eq!(by_logits.dims(), [places.len(), ids.len()], "one number for each logit");
        if places.is_empty() || ids.is_empty() {
            return hidden.zeros_like();
        }
        let on = indices(ids.iter().map(|&id| id as usize), &hidden.device().autodiff());
        let h = Tensor::from_inner(rows(hidden.clone(), places)).require_grad();
        let output = self.output().train();
        let mut found = back(self.formed(output.few(h.clone(), on)), by_logits);
        match &output {
            Output { lm_head: Some(head), .. } => gradients.collect("lm_head", head, &mut found),
            Output { embedding, .. } => {
                if let Some(weight) = embedding
                    && let Some(by_weight) = weight.val().grad_remove(&mut found)
                {
                    gradients.add("model.embed_tokens.weight", by_weight);
                }
            }
        }
        let by_rows = h.grad_remove(&mut found).expect("the hidden states were tracked");
        spread(&hidden, places, by_rows)
    }

    /// The logits of a few tokens for hidden states `[rows, hidden_size]`, in f32.
    pub(crate) fn token_logit_rows(&self, hidden: Tensor<2>, ids: &[u32]) -> Tensor<2> {
        let ids = indices(ids.iter().map(|&id| id as usize), &hidden.device());
        wide(self.formed(self.output().few(hidden, ids)))
    }

    /// What logits are made of.
    fn output(&self) -> Output {
        self.assert_logits();
        let lm_head = self.lm_head.clone();
        let tied = lm_head.is_none();
        Output { lm_head, embedding: tied.then(|| self.model.embed_tokens.weight.clone()) }
    }
}

/// The output matrix and its adapter, apart from the rest of the model.
#[derive(Module, Debug)]
struct Output {
    lm_head: Option<Linear>,
    /// Where there is no other matrix.
    embedding: Option<Param<Tensor<2>>>,
}

impl Output {
    /// h Wᵀ and the update of an adapter, for some rows of W: h `[rows, hidden_size]` to `[rows, ids]`.
    fn few(&self, h: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
        let Some(head) = &self.lm_head else {
            let matrix = self.embedding.as_ref().expect("an output matrix").val();
            return kernel::linear(h, matrix.select(0, ids));
        };
        let matrix = head.weight.dense().expect("the head is not quantised").val();
        let matrix = matrix.select(0, ids.clone());
        let y = kernel::linear(h.clone(), matrix.clone());
        let (Some(low), Some(a), Some(b)) = (&head.low, &head.lora_A, &head.lora_B) else {
            return y;
        };
        let (a, b) = (a.weight.val(), b.weight.val().select(0, ids.clone()));
        let initial = head.initial.clone();
        let initial = initial.map(|Initial { a, b }| Initial { a, b: b.select(0, ids.clone()) });
        let y = match initial.clone() {
            Some(initial) => initial.subtract(y, h.clone(), low.scale),
            None => y,
        };
        let y = kernel::lora::lora_add(y, h, a.clone(), b.clone(), low.scale, None);
        let Some(magnitude) = &head.lora_magnitude_vector else { return y };
        let factors = dora::Factors::new(&a, &b, low.scale, initial.as_ref());
        let norms = dora::row_norms(&Weight::Dense(Param::from_tensor(plain(matrix))), &factors);
        let c = dora::ratio(magnitude.val().select(0, ids), norms);
        let c = if c.dtype() == y.dtype() { c } else { c.cast(y.dtype()) };
        y * c.unsqueeze_dim(0)
    }
}
