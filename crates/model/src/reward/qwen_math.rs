//! Qwen2.5-Math-PRM (Zhang et al. 2025, arXiv:2501.07301): a conversation whose answer is the steps with
//! a special token behind each, at which the head is read.
//!
//! ```text
//! system: …, user: question, assistant: step 1<extra_0>step 2<extra_0>
//! ```

use posttrain_core::{Message, Prompt, Role};
use serde::{Deserialize, Serialize};

use super::convention::places;
use super::tokenizer::conversation;
use super::{Marked, RewardTokenizer};
use crate::error::Error;

/// The settings; the defaults are those of `Qwen2.5-Math-PRM-7B`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QwenMath {
    /// The system message of a prompt that has none.
    pub system: Option<String>,
    /// Behind each step; one token.
    pub step_token: String,
}

impl Default for QwenMath {
    fn default() -> Self {
        let system = r"Please reason step by step, and put your final answer within \boxed{}.";
        Self { system: Some(system.into()), step_token: "<extra_0>".into() }
    }
}

impl QwenMath {
    pub(super) const NAME: &'static str = "qwen_math";

    pub(super) fn encode(
        &self,
        tokenizer: &RewardTokenizer,
        prompt: &Prompt,
        steps: &[String],
    ) -> Result<Marked, Error> {
        let mark = tokenizer.tag(Self::NAME, "token behind a step", &self.step_token)?;
        let mut chat = conversation(prompt);
        let has_system = chat.messages.first().is_some_and(|first| first.role == Role::System);
        if let Some(system) = self.system.as_ref().filter(|_| !has_system) {
            chat.messages.insert(0, Message::system(system.clone()));
        }
        let answer = steps.iter().map(|step| format!("{step}{}", self.step_token));
        chat.messages.push(Message::assistant(answer.collect::<String>()));
        let ids = tokenizer.text().encode_conversation(&chat)?;
        Ok(Marked { places: places(&ids, mark), ids })
    }
}
