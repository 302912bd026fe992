//! The rows of TRL's `PRMTrainer` (1.13, `trl.experimental.prm`, after Uesato et al. 2022,
//! arXiv:2211.14275): prompt and steps encoded apart, a separator behind each step, and the last token of
//! the separator classified.
//!
//! ```text
//! <bos>prompt step 1⏎step 2⏎
//! ```

use posttrain_core::Prompt;
use serde::{Deserialize, Serialize};

use super::{Marked, RewardTokenizer};
use crate::error::Error;

/// The settings; the default is that of `PRMConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trl {
    /// Behind each step.
    pub step_separator: String,
}

impl Default for Trl {
    fn default() -> Self {
        Self { step_separator: "\n".into() }
    }
}

impl Trl {
    pub(super) const NAME: &'static str = "trl";

    /// A conversation is written by the chat template; TRL knows texts alone.
    pub(super) fn encode(
        &self,
        tokenizer: &RewardTokenizer,
        prompt: &Prompt,
        steps: &[String],
    ) -> Result<Marked, Error> {
        let mut ids = match prompt {
            Prompt::Text(text) => {
                let mut ids: Vec<u32> = tokenizer.bos_id().into_iter().collect();
                ids.extend(tokenizer.plain(text)?);
                ids
            }
            Prompt::Conversation(_) => tokenizer.text().encode_prompt(prompt)?,
        };
        let separator = tokenizer.plain(&self.step_separator)?;
        if separator.is_empty() {
            return Err(Error::NoTag {
                convention: Self::NAME,
                what: "separator",
                tag: self.step_separator.clone(),
                reason: "it becomes no token".into(),
            });
        }
        let mut places = Vec::with_capacity(steps.len());
        for step in steps {
            ids.extend(tokenizer.plain(step)?);
            ids.extend(&separator);
            places.push(ids.len() - 1);
        }
        Ok(Marked { ids, places })
    }
}
