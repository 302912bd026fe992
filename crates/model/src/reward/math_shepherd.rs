//! Math-Shepherd (Wang et al. 2023, arXiv:2312.08935): the question, a space, and the steps, each with
//! a tag behind it. At the tag, a language model says `+` or `-`.
//!
//! ```text
//! question␣Step 1: … ки⏎Step 2: … ки
//! ```
//!
//! `search-and-learn` separates steps by an empty line ([`MathShepherd::separator`]) and puts a system
//! prompt before the question, which the caller does with a system message.

use posttrain_core::Prompt;
use serde::{Deserialize, Serialize};

use super::convention::places;
use super::tokenizer::question;
use super::{Marked, Reading, RewardTokenizer};
use crate::error::Error;

/// The settings; the defaults are those of `math-shepherd-mistral-7b-prm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MathShepherd {
    /// Behind each step and a space; one token.
    pub step_tag: String,
    /// Between a tag and the next step.
    pub separator: String,
    /// Said at the tag of a good step; one token.
    pub good_token: String,
    /// Said at the tag of another.
    pub bad_token: String,
}

impl Default for MathShepherd {
    fn default() -> Self {
        Self {
            step_tag: "ки".into(),
            separator: "\n".into(),
            good_token: "+".into(),
            bad_token: "-".into(),
        }
    }
}

impl MathShepherd {
    pub(super) const NAME: &'static str = "math_shepherd";

    pub(super) fn encode(
        &self,
        tokenizer: &RewardTokenizer,
        prompt: &Prompt,
        steps: &[String],
    ) -> Result<Marked, Error> {
        let mark = token(tokenizer, "step tag", &self.step_tag)?;
        let steps = steps.iter().map(|step| format!("{step} {}", self.step_tag));
        let steps: Vec<String> = steps.collect();
        let text = format!("{} {}", question(prompt)?, steps.join(&self.separator));
        let ids = tokenizer.text().encode(&text, true)?;
        Ok(Marked { places: places(&ids, mark), ids })
    }

    pub(super) fn reading(&self, tokenizer: &RewardTokenizer) -> Result<Reading, Error> {
        token(tokenizer, "step tag", &self.step_tag)?;
        Ok(Reading::Tokens {
            good: token(tokenizer, "token of a good step", &self.good_token)?,
            bad: token(tokenizer, "token of a bad step", &self.bad_token)?,
        })
    }
}

/// A tag stands behind a space.
fn token(tokenizer: &RewardTokenizer, what: &'static str, tag: &str) -> Result<u32, Error> {
    tokenizer.tag(MathShepherd::NAME, what, &format!(" {tag}"))
}
