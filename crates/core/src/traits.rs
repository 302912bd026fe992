//! What models, endpoints, reward models and verifiers can do. All traits are object-safe, batched,
//! and answer each item of a batch on its own, so that one failure loses nothing else.

use serde_json::{Map, Value};

use crate::{Completion, Error, Prompt, Sampling};

/// One prompt with its sampling parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is asked.
    pub prompt: Prompt,
    /// How to sample the answer.
    pub sampling: Sampling,
}

impl Request {
    /// A request from a text or a conversation.
    pub fn new(prompt: impl Into<Prompt>, sampling: Sampling) -> Self {
        Self { prompt: prompt.into(), sampling }
    }
}

/// Writes answers: a local model or a server.
///
/// ```
/// use posttrain_core::{Completion, Error, FinishReason, Generate, Prompt, Request, Sampling};
///
/// /// Answers every prompt with its own text.
/// struct Echo;
///
/// impl Generate for Echo {
///     fn generate(&self, requests: &[Request]) -> Vec<Result<Completion, Error>> {
///         requests
///             .iter()
///             .map(|request| {
///                 let text = match &request.prompt {
///                     Prompt::Text(text) => text.clone(),
///                     Prompt::Conversation(chat) => chat.messages[0].text().into_owned(),
///                 };
///                 Ok(Completion {
///                     text,
///                     token_ids: vec![],
///                     logprobs: vec![],
///                     finish_reason: FinishReason::Stop,
///                     prompt_tokens: 1,
///                     completion_tokens: 1,
///                 })
///             })
///             .collect()
///     }
/// }
///
/// let model: &dyn Generate = &Echo;
/// let answers = model.generate(&[Request::new("hello", Sampling::greedy())]);
/// assert_eq!(answers[0].as_ref().unwrap().text, "hello");
/// ```
pub trait Generate: Send + Sync {
    /// Answers every request; the results stand in the order of the requests.
    fn generate(&self, requests: &[Request]) -> Vec<Result<Completion, Error>>;
}

/// A context and the text whose probability is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuation {
    /// What comes before; not scored.
    pub context: Prompt,
    /// The text to score.
    pub continuation: String,
}

/// The log-probability of a continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// Natural-log probability of each token of the continuation.
    pub token_logprobs: Vec<f32>,
    /// Whether greedy decoding would have written exactly this continuation.
    pub is_greedy: bool,
}

impl Likelihood {
    /// Sum over the tokens.
    pub fn logprob(&self) -> f64 {
        self.token_logprobs.iter().map(|&p| f64::from(p)).sum()
    }
}

/// Scores given texts, for multiple-choice benchmarks and perplexity.
pub trait LogLikelihood: Send + Sync {
    /// Scores every continuation; the results stand in the order of the requests.
    fn loglikelihood(&self, requests: &[Continuation]) -> Vec<Result<Likelihood, Error>>;
}

/// Maps texts to vectors.
pub trait Embed: Send + Sync {
    /// Length of the vectors.
    fn dimensions(&self) -> usize;

    /// One vector of [`Embed::dimensions`] numbers for each text, in order.
    fn embed(&self, texts: &[&str]) -> Vec<Result<Vec<f32>, Error>>;
}

/// An answer to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// What was asked.
    pub prompt: &'a Prompt,
    /// The answer.
    pub response: &'a str,
    /// The row's other columns: the right answer, unit tests, constraints. Verifiers read them by
    /// name.
    pub columns: &'a Map<String, Value>,
}

/// Scores whole answers: a verifier or an outcome reward model. Higher is better.
///
/// ```
/// use posttrain_core::{Error, Reward, Sample};
///
/// /// 1 when the answer is the column `answer`, else 0.
/// struct Exact;
///
/// impl Reward for Exact {
///     fn reward(&self, samples: &[Sample<'_>]) -> Vec<Result<f64, Error>> {
///         let score = |sample: &Sample<'_>| match sample.columns.get("answer") {
///             Some(answer) => Ok(f64::from(answer.as_str() == Some(sample.response.trim()))),
///             None => Err(Error::Unscorable { reason: "no column `answer`".into() }),
///         };
///         samples.iter().map(score).collect()
///     }
/// }
/// ```
pub trait Reward: Send + Sync {
    /// Scores every sample; the results stand in the order of the samples. A sample that cannot be
    /// judged is [`Error::Unscorable`], which is not the same as a score of 0.
    fn reward(&self, samples: &[Sample<'_>]) -> Vec<Result<f64, Error>>;
}

/// A solution in steps, to be judged step by step.
#[derive(Clone, Copy, Debug)]
pub struct StepSample<'a> {
    /// What was asked.
    pub prompt: &'a Prompt,
    /// The steps written so far.
    pub steps: &'a [String],
}

/// Scores every step of a solution: a process reward model.
pub trait StepReward: Send + Sync {
    /// For every sample one score between 0 and 1 per step, in order.
    fn step_reward(&self, samples: &[StepSample<'_>]) -> Vec<Result<Vec<f64>, Error>>;
}
