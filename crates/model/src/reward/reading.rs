//! What a model says at the mark of a step.

use burn::tensor::Tensor;

use crate::config::Config;
use crate::decoder::{Decoder, Gradients};
use crate::error::Error;

/// What is read at a mark. All of them are log-odds: P(good) is their logistic function, and the loss
/// of a label its binary cross-entropy, which for two scores or tokens is the cross-entropy of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Logit of one token less that of another.
    Tokens {
        /// That a step is good.
        good: u32,
        /// That it is not.
        bad: u32,
    },
    /// The one score of the head.
    Value,
    /// The second of two scores less the first.
    TwoScores,
}

impl Reading {
    /// The log-odds of "good" at places of the hidden states of [`Decoder::forward`]
    /// `[batch, time, hidden_size]`: `[places]` in f32, differentiable. Places are counted as in
    /// [`Decoder::scores`].
    ///
    /// # Panics
    /// When the model does not say this ([`Convention::reading`](super::Convention::reading) checks
    /// it), or a place is not in the batch.
    pub fn log_odds(self, model: &Decoder, hidden: Tensor<3>, places: &[usize]) -> Tensor<1> {
        self.difference(match self {
            Self::Tokens { good, bad } => model.token_logits(hidden, places, &[bad, good]),
            Self::Value | Self::TwoScores => model.scores(hidden, places),
        })
    }

    /// Gradient by the hidden states of any loss over [`Reading::log_odds`], given the one by the
    /// log-odds `[places]`. Those of the head, where it is trained, are added to `gradients`: what the
    /// closure of [`Decoder::backward`] has to do.
    ///
    /// # Panics
    /// As [`Reading::log_odds`], and when the model stands on a device with autodiff.
    pub fn log_odds_backward(
        self,
        model: &Decoder,
        hidden: Tensor<3>,
        places: &[usize],
        by_log_odds: Tensor<1>,
        gradients: &mut Gradients,
    ) -> Tensor<3> {
        let column: Tensor<2> = by_log_odds.unsqueeze_dim(1);
        let both = |column: Tensor<2>| Tensor::cat(vec![column.clone().neg(), column], 1);
        match self {
            Self::Tokens { good, bad } => {
                let ids = [bad, good];
                model.token_logits_backward(hidden, places, &ids, both(column), gradients)
            }
            Self::Value => model.scores_backward(hidden, places, column, gradients),
            Self::TwoScores => model.scores_backward(hidden, places, both(column), gradients),
        }
    }

    /// The same for hidden states `[rows, hidden_size]`.
    pub(super) fn rows(self, model: &Decoder, hidden: Tensor<2>) -> Tensor<1> {
        self.difference(match self {
            Self::Tokens { good, bad } => model.token_logit_rows(hidden, &[bad, good]),
            Self::Value | Self::TwoScores => model.score_rows(hidden),
        })
    }

    fn difference(self, said: Tensor<2>) -> Tensor<1> {
        let column = |index| said.clone().narrow(1, index, 1).reshape([-1]);
        match self {
            Self::Value => column(0),
            Self::Tokens { .. } | Self::TwoScores => column(1) - column(0),
        }
    }

    /// Whether a model says this.
    pub(super) fn check(self, convention: &str, config: &Config) -> Result<(), Error> {
        let (fits, expected) = match self {
            Self::Tokens { .. } => (config.has_logits(), "a language model"),
            Self::Value => (config.head.labels() == Some(1), "a head with one score"),
            Self::TwoScores => (config.head.labels() == Some(2), "a head with two scores"),
        };
        if fits {
            return Ok(());
        }
        Err(Error::Input {
            what: format!("the head of a model read as `{convention}`"),
            found: format!("{:?}", config.head),
            expected: expected.into(),
        })
    }
}
