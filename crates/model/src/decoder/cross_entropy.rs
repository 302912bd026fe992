//! The loss of given tokens and its gradients in one pass, without the logits of whole sequences.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use super::logprobs::indices;
use super::{Decoder, Gradients, Targets};
use crate::kernel::{self, Objective, Wanted};

/// What [`Decoder::cross_entropy`] finds for its targets.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// Σ weight · loss over the targets.
    pub loss: f64,
    /// Natural-log probability of each target.
    pub logprobs: Vec<f32>,
    /// Entropy of the distribution that each target was drawn from, in nats.
    pub entropy: Vec<f32>,
    /// Whether no token is likelier than the target.
    pub top1: Vec<bool>,
    /// Gradient of the loss by the hidden states, `[batch, time, hidden_size]`: what
    /// [`Decoder::backward`] wants to know. Absent in an evaluation.
    pub by_hidden: Option<Tensor<3>>,
}

impl Decoder {
    /// The loss Σ weight · l of the targets under an [`Objective`], from the hidden states of
    /// [`Decoder::forward`] `[batch, time, hidden_size]`. With weights 1/n it is a mean.
    ///
    /// With `gradients` the one by the hidden states is made in the same pass, and the one by the
    /// output matrix, if that is trained, is added to them. Logits exist for a few rows at a time.
    ///
    /// # Panics
    /// When the hidden states are not those of the targets' batch, a target is no token of the
    /// vocabulary, the weights are not as many as the targets, or the model stands on a device with
    /// autodiff.
    pub fn cross_entropy(
        &self,
        hidden: Tensor<3>,
        targets: &Targets,
        weights: &[f32],
        objective: Objective,
        gradients: Option<&mut Gradients>,
    ) -> CrossEntropy {
        assert_eq!(weights.len(), targets.len(), "one weight for each target");
        let rows = self.targeted(hidden, targets);
        if targets.is_empty() {
            let by_hidden = gradients.map(|_| rows.spread(None));
            let (logprobs, entropy, top1) = (vec![], vec![], vec![]);
            return CrossEntropy { loss: 0.0, logprobs, entropy, top1, by_hidden };
        }
        let weights_on_device = TensorData::new(weights.to_vec(), [weights.len()]);
        let head = self.projection(rows.chosen(), gradients.is_some());
        let wanted = gradients
            .as_ref()
            .map_or(Wanted::NOTHING, |_| Wanted { input: true, weight: head.trains });
        let found = kernel::cross_entropy(
            head.h.clone(),
            head.w.clone(),
            rows.tokens.clone(),
            Tensor::from_data(weights_on_device, &self.device()),
            objective,
            self.logits_form(),
            wanted,
        );
        let by_hidden = gradients.zip(found.by_hidden).map(|(gradients, by_hidden)| {
            rows.spread(Some(head.back(by_hidden, found.by_weight, gradients)))
        });
        let numbers = found.rows.into_data().convert::<f32>().try_into_vec::<f32>();
        let numbers = numbers.expect("numbers as they were asked for");
        let column = |index| numbers.iter().skip(index).step_by(4).copied();
        CrossEntropy {
            loss: column(3).zip(weights).map(|(l, &w)| f64::from(l) * f64::from(w)).sum(),
            logprobs: column(0).collect(),
            entropy: column(1).collect(),
            top1: column(2).map(|is| is != 0.0).collect(),
            by_hidden,
        }
    }

    /// Gradient by the hidden states of any loss over [`Decoder::logprobs`]: `by_logprobs`
    /// `[targets, 2]` is its gradient by the log-probabilities and the entropies. The one by the
    /// output matrix, if that is trained, is added to `gradients`.
    ///
    /// # Panics
    /// As [`Decoder::cross_entropy`].
    pub fn logprobs_backward(
        &self,
        hidden: Tensor<3>,
        targets: &Targets,
        by_logprobs: Tensor<2>,
        gradients: &mut Gradients,
    ) -> Tensor<3> {
        assert_eq!(by_logprobs.dims(), [targets.len(), 2], "two numbers for each target");
        let rows = self.targeted(hidden, targets);
        if targets.is_empty() {
            return rows.spread(None);
        }
        let head = self.projection(rows.chosen(), true);
        let (dh, dw) = kernel::logprobs_backward(
            head.h.clone(),
            head.w.clone(),
            rows.tokens.clone(),
            by_logprobs,
            self.logits_form(),
            head.trains,
        );
        rows.spread(Some(head.back(dh, dw, gradients)))
    }

    /// Which rows of the hidden states have a target.
    pub(super) fn targeted(&self, hidden: Tensor<3>, targets: &Targets) -> Targeted {
        let [batch, time, _] = hidden.dims();
        targets.assert_of(batch * time);
        self.assert_tokens(targets.tokens());
        let places = indices(targets.places().iter().copied(), &hidden.device());
        let tokens = indices(targets.tokens().iter().map(|&id| id as usize), &hidden.device());
        Targeted { hidden, places, tokens }
    }
}

/// The rows of hidden states that are projected, and the tokens they are to foretell.
#[derive(Debug)]
pub(super) struct Targeted {
    hidden: Tensor<3>,
    places: Tensor<1, Int>,
    pub(super) tokens: Tensor<1, Int>,
}

impl Targeted {
    /// `[targets, hidden_size]`
    pub(super) fn chosen(&self) -> Tensor<2> {
        self.hidden.clone().flatten::<2>(0, 1).select(0, self.places.clone())
    }

    /// Rows to their places among zeros, `[batch, time, hidden_size]`.
    pub(super) fn spread(&self, rows: Option<Tensor<2>>) -> Tensor<3> {
        let zeros = self.hidden.zeros_like();
        let Some(rows) = rows else { return zeros };
        let zeros = zeros.flatten::<2>(0, 1);
        let all = zeros.select_assign(0, self.places.clone(), rows, IndexingUpdateOp::Add);
        all.reshape(self.hidden.dims())
    }
}
