//! What a model answers.

use serde::{Deserialize, Serialize};

/// One generated answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The text, without special tokens and without the stop string.
    pub text: String,
    /// The sampled token ids, the end token included; empty when an endpoint does not tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_ids: Vec<u32>,
    /// Natural-log probability of each token of `token_ids` under the model, before temperature
    /// and cuts; empty unless asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<f32>,
    /// Why the generation ended.
    pub finish_reason: FinishReason,
    /// Tokens of the prompt, for the accounting.
    #[serde(default)]
    pub prompt_tokens: usize,
    /// Tokens generated, for the accounting; also known where `token_ids` is not.
    #[serde(default)]
    pub completion_tokens: usize,
}

impl Completion {
    /// Sum of the token log-probabilities; `None` when they were not asked for.
    ///
    /// ```
    /// use posttrain_core::{Completion, FinishReason};
    ///
    /// let completion = Completion {
    ///     text: "42".into(),
    ///     token_ids: vec![19, 17],
    ///     logprobs: vec![-0.25, -0.5],
    ///     finish_reason: FinishReason::Stop,
    ///     prompt_tokens: 7,
    ///     completion_tokens: 2,
    /// };
    /// assert_eq!(completion.logprob(), Some(-0.75));
    /// ```
    pub fn logprob(&self) -> Option<f64> {
        (!self.logprobs.is_empty()).then(|| self.logprobs.iter().map(|&p| f64::from(p)).sum())
    }
}

/// Why a generation ended. The names are `OpenAI`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// `max_tokens` was reached: the answer is cut off.
    Length,
    /// The model called tools.
    ToolCalls,
    /// An endpoint withheld the answer.
    ContentFilter,
    /// The caller cancelled the request.
    Cancelled,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finish_reasons_have_openai_names() {
        let name = |reason| serde_json::to_string(&reason).unwrap();
        assert_eq!(name(FinishReason::ToolCalls), r#""tool_calls""#);
        assert_eq!(name(FinishReason::Length), r#""length""#);
    }

    #[test]
    fn without_logprobs_there_is_no_sum() {
        let json = r#"{"text": "a", "finish_reason": "stop"}"#;
        assert_eq!(serde_json::from_str::<Completion>(json).unwrap().logprob(), None);
    }
}
