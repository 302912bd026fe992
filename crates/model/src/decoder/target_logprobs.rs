//! Log-probabilities of targets, and the gradient of any loss over them.

use burn::tensor::{Tensor, TensorData};

use super::cross_entropy::Targeted;
use super::head::Projection;
use super::{Decoder, Gradients, Targets};
use crate::kernel::{self, Objective, Wanted};

/// What a model says about its targets, and what the way back needs.
#[derive(Debug)]
pub struct Scored<'a> {
    /// Natural-log probability of each target.
    pub logprobs: Vec<f32>,
    /// Entropy of the distribution that each target was drawn from, in nats.
    pub entropy: Vec<f32>,
    /// Whether no token is likelier than the target.
    pub top1: Vec<bool>,
    back: Option<Back<'a>>,
}

#[derive(Debug)]
struct Back<'a> {
    model: &'a Decoder,
    targets: &'a Targets,
    /// `[batch, time, hidden_size]`
    hidden: Tensor<3>,
    /// The gradient of −log p of each target by its own hidden state, `[targets, hidden_size]`; absent
    /// where the head is trained, whose gradient is a sum that needs the loss first.
    own: Option<(Tensor<2>, Targeted, Projection)>,
}

impl Decoder {
    /// Scores the targets from the hidden states of [`Decoder::forward`],
    /// `[batch, time, hidden_size]`. The loss is the caller's: its slope goes into
    /// [`Scored::backward`]. Where the head is frozen, the logits are made once for both.
    ///
    /// # Panics
    /// As [`Decoder::cross_entropy`].
    pub fn scored<'a>(
        &'a self,
        hidden: Tensor<3>,
        targets: &'a Targets,
        with_gradient: bool,
    ) -> Scored<'a> {
        if targets.is_empty() {
            let back = with_gradient.then(|| Back { model: self, targets, hidden, own: None });
            return Scored { logprobs: vec![], entropy: vec![], top1: vec![], back };
        }
        let rows = self.targeted(hidden.clone(), targets);
        let head = self.projection(rows.chosen(), with_gradient);
        let at_once = with_gradient && !head.trains;
        let ones = TensorData::new(vec![1.0_f32; targets.len()], [targets.len()]);
        let found = kernel::cross_entropy(
            head.h.clone(),
            head.w.clone(),
            rows.tokens.clone(),
            Tensor::from_data(ones, &self.device()),
            Objective::Nll,
            self.logits_form(),
            Wanted { input: at_once, weight: false },
        );
        let own = found.by_hidden.map(|by_hidden| (by_hidden, rows, head));
        let back = with_gradient.then(|| Back { model: self, targets, hidden, own });
        let numbers = found.rows.into_data().convert::<f32>().try_into_vec::<f32>();
        let numbers = numbers.expect("numbers as they were asked for");
        let column = |index| numbers.iter().skip(index).step_by(4).copied();
        Scored {
            logprobs: column(0).collect(),
            entropy: column(1).collect(),
            top1: column(2).map(|is| is != 0.0).collect(),
            back,
        }
    }
}

impl Scored<'_> {
    /// The gradient by the hidden states, `[batch, time, hidden_size]`, of a loss whose gradient by
    /// each log-probability is `by_logprobs`. What the loss has for the output matrix, if that is
    /// trained, is added to `gradients`.
    ///
    /// # Panics
    /// When the numbers are not as many as the targets, or the scores were made without a gradient.
    pub fn backward(self, by_logprobs: &[f32], gradients: &mut Gradients) -> Tensor<3> {
        let Back { model, targets, hidden, own } = self.back.expect("scores with a gradient");
        assert_eq!(by_logprobs.len(), targets.len(), "one number for each target");
        let device = model.device();
        let tensor = |numbers: Vec<f32>, columns| {
            Tensor::<2>::from_data(TensorData::new(numbers, [targets.len(), columns]), &device)
        };
        if let Some((by_nll, rows, head)) = own {
            let slopes = tensor(by_logprobs.iter().map(|slope| -slope).collect(), 1);
            let by_rows = by_nll.clone() * slopes.cast(by_nll.dtype());
            return rows.spread(Some(head.back(by_rows, None, gradients)));
        }
        let both = tensor(by_logprobs.iter().flat_map(|&slope| [slope, 0.0]).collect(), 2);
        model.logprobs_backward(hidden, targets, both, gradients)
    }
}
