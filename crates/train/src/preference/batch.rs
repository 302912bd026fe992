//! What losses take and give: log-probabilities of answers, and a loss with its gradient.

use super::maths::mean;

/// The log-probabilities of one answer under one model, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Answer {
    /// Σ log π(token) over the answer, in nats.
    pub sum: f64,
    /// The part of `sum` from tokens past the length of the other answer; only LD-DPO reads it.
    pub tail: f64,
    /// Σ log Σᵥ π(v)² over the same tokens (TRL's `log_sum_sq_probs`); only WPO reads it.
    pub log_sum_sq: f64,
    /// How many tokens the model predicts in the answer.
    pub tokens: usize,
}

impl Answer {
    /// Adds up the log-probabilities of an answer's tokens. `shared`: the length of the shorter
    /// answer of the pair.
    pub fn of<T: Copy + Into<f64>>(logprobs: &[T], shared: usize) -> Self {
        let sum = |tokens: &[T]| tokens.iter().map(|&token| token.into()).sum::<f64>();
        let tail = sum(&logprobs[shared.min(logprobs.len())..]);
        Self { sum: sum(logprobs), tail, log_sum_sq: 0.0, tokens: logprobs.len() }
    }

    /// log π(y) / |y|
    pub fn average(&self) -> f64 {
        self.sum / self.length()
    }

    /// |y|; 1 for an answer without tokens, as in TRL.
    pub(super) fn length(&self) -> f64 {
        self.tokens.max(1) as f64
    }
}

/// The two answers to one prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pair {
    /// The better one.
    pub chosen: Answer,
    /// The worse one.
    pub rejected: Answer,
}

impl Pair {
    /// Adds up the log-probabilities of both answers' tokens.
    pub fn of<T: Copy + Into<f64>>(chosen: &[T], rejected: &[T]) -> Self {
        let shared = chosen.len().min(rejected.len());
        Self { chosen: Answer::of(chosen, shared), rejected: Answer::of(rejected, shared) }
    }
}

/// The gradient by an [`Answer`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnswerGradient {
    /// By the log-probability of every token.
    pub sum: f64,
    /// What is added to it for tokens of the tail.
    pub tail: f64,
}

impl AnswerGradient {
    /// The gradient by each of the answer's `tokens`. `shared` as in [`Answer::of`].
    pub fn by_token(self, tokens: usize, shared: usize) -> impl Iterator<Item = f64> {
        (0..tokens).map(move |i| if i < shared { self.sum } else { self.sum + self.tail })
    }
}

/// The gradient by a [`Pair`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairGradient {
    /// By the better answer.
    pub chosen: AnswerGradient,
    /// By the worse one.
    pub rejected: AnswerGradient,
}

impl PairGradient {
    /// A gradient by the two sums.
    pub(super) fn by_sums([chosen, rejected]: [f64; 2]) -> Self {
        let by = |sum| AnswerGradient { sum, tail: 0.0 };
        Self { chosen: by(chosen), rejected: by(rejected) }
    }
}

/// The loss of a batch. There is no gradient by the reference: it is held fixed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loss<G> {
    /// The mean over the batch, plus the weighted NLL term where the loss has one.
    pub loss: f64,
    /// The gradient of `loss` by each pair, answer or group, in the order of the batch.
    pub gradient: Vec<G>,
    /// The gradient of `loss` by the log-probability of each token of the sequences that were
    /// given for an NLL term of their own; 0 without them.
    pub by_nll_token: f64,
    /// Means over the batch by TRL's names.
    pub metrics: Metrics,
}

/// Names and values.
pub type Metrics = Vec<(&'static str, f64)>;

/// −mean log π over all tokens of `sequences` and its slope by each of these log-probabilities.
///
/// The mean is one of tokens, not of sequences, as in TRL: a long one counts more.
pub(super) fn nll<'a>(sequences: impl IntoIterator<Item = &'a Answer>) -> (f64, f64) {
    let (sum, tokens) = sequences
        .into_iter()
        .fold((0.0, 0), |(sum, tokens), it| (sum + it.sum, tokens + it.tokens));
    let tokens = tokens.max(1) as f64;
    (-sum / tokens, -1.0 / tokens)
}

/// Rewards and log-probabilities `[chosen, rejected]` of each pair, as TRL reports them.
pub(super) fn pair_metrics(rewards: &[[f64; 2]], logps: &[[f64; 2]]) -> Metrics {
    let of = |numbers: &[[f64; 2]], which: usize| mean(numbers.iter().map(|pair| pair[which]));
    vec![
        ("rewards/chosen", of(rewards, 0)),
        ("rewards/rejected", of(rewards, 1)),
        ("rewards/accuracies", mean(rewards.iter().map(|[c, r]| f64::from(u8::from(c > r))))),
        ("rewards/margins", mean(rewards.iter().map(|[c, r]| c - r))),
        ("logps/chosen", of(logps, 0)),
        ("logps/rejected", of(logps, 1)),
    ]
}
