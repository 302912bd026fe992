//! Skywork-o1-Open-PRM (Skywork o1 Team 2024): the question and the steps in lines, all encoded apart.
//! The value head is read at the newline behind each step.
//!
//! ```text
//! <bos>question⏎step 1⏎step 2⏎
//! ```
//!
//! Skywork's own script splits an answer at each newline; here a step is what the caller says, so that
//! there is one number for it, also where it has several lines.

use posttrain_core::Prompt;
use serde::{Deserialize, Serialize};

use super::tokenizer::question;
use super::{Marked, RewardTokenizer};
use crate::error::Error;

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Skywork {
    /// Behind each step; its last token is.
    pub step_token: String,
}

impl Default for Skywork {
    fn default() -> Self {
        Self { step_token: "\n".into() }
    }
}

impl Skywork {
    pub(super) const NAME: &'static str = "skywork";

    pub(super) fn encode(
        &self,
        tokenizer: &RewardTokenizer,
        prompt: &Prompt,
        steps: &[String],
    ) -> Result<Marked, Error> {
        let no_tag = |what, tag: &str, reason: &str| Error::NoTag {
            convention: Self::NAME,
            what,
            tag: tag.to_owned(),
            reason: reason.to_owned(),
        };
        let bos = tokenizer.bos_token().ok_or_else(|| {
            no_tag("token that begins a text", "bos_token", "tokenizer_config.json names none")
        })?;
        let mut ids = tokenizer.plain(&format!("{bos}{}\n", question(prompt)?))?;
        let end = tokenizer.plain(&self.step_token)?.last().copied();
        let end = end.ok_or_else(|| {
            no_tag("token behind a step", &self.step_token, "it becomes no token")
        })?;
        let mut places = Vec::with_capacity(steps.len());
        for step in steps {
            ids.extend(tokenizer.plain(step)?);
            ids.push(end);
            places.push(ids.len() - 1);
        }
        Ok(Marked { ids, places })
    }
}
