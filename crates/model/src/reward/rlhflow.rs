//! The process reward models of `RLHFlow` (Xiong et al. 2024, "An Implementation of Generative PRM"):
//! a conversation in which the user writes the question with the first step, then step after step, and
//! the assistant answers each with `+`. What the model thinks of a step stands before that answer.
//!
//! ```text
//! user: question␣step 1, assistant: +, user: step 2, assistant: +, …
//! ```

use posttrain_chat::EncodeOptions;
use posttrain_core::{Conversation, Message, Prompt};
use serde::{Deserialize, Serialize};

use super::tokenizer::question;
use super::{Marked, Reading, RewardTokenizer};
use crate::error::Error;

/// The settings; the defaults are those of `Llama3.1-8B-PRM-Deepseek-Data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rlhflow {
    /// The answer to a good step, which stands behind every step; one token.
    pub good_token: String,
    /// The answer to another.
    pub bad_token: String,
}

impl Default for Rlhflow {
    fn default() -> Self {
        Self { good_token: "+".into(), bad_token: "-".into() }
    }
}

impl Rlhflow {
    pub(super) const NAME: &'static str = "rlhflow";

    pub(super) fn encode(
        &self,
        tokenizer: &RewardTokenizer,
        prompt: &Prompt,
        steps: &[String],
    ) -> Result<Marked, Error> {
        let question = question(prompt)?;
        let mut messages = Vec::with_capacity(2 * steps.len());
        for (number, step) in steps.iter().enumerate() {
            let text = if number == 0 { format!("{question} {step}") } else { step.clone() };
            messages.extend([Message::user(text), Message::assistant(self.good_token.clone())]);
        }
        let chat = Conversation::new(messages);
        let encoded = tokenizer.text().chat()?.encode(&chat, &EncodeOptions::default())?;
        // The answers are what of this conversation would be trained.
        let starts = (0..encoded.ids.len())
            .filter(|&place| encoded.mask[place] && (place == 0 || !encoded.mask[place - 1]));
        let good = token(tokenizer, "token of a good step", &self.good_token)?;
        let mut places = Vec::with_capacity(steps.len());
        for start in starts {
            if start == 0 || encoded.ids[start] != good {
                return Err(Error::NoTag {
                    convention: Self::NAME,
                    what: "token of a good step",
                    tag: self.good_token.clone(),
                    reason: "the chat template does not begin an answer with it".into(),
                });
            }
            places.push(start - 1);
        }
        Ok(Marked { ids: encoded.ids, places })
    }

    pub(super) fn reading(&self, tokenizer: &RewardTokenizer) -> Result<Reading, Error> {
        Ok(Reading::Tokens {
            good: token(tokenizer, "token of a good step", &self.good_token)?,
            bad: token(tokenizer, "token of a bad step", &self.bad_token)?,
        })
    }
}

fn token(tokenizer: &RewardTokenizer, what: &'static str, token: &str) -> Result<u32, Error> {
    tokenizer.token(Rlhflow::NAME, what, token)
}
