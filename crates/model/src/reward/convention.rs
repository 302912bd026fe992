//! How process reward models mark the steps of a solution. Start here: one line of [`Convention`] and
//! one file per convention.

use std::path::Path;

use posttrain_core::Prompt;
use serde::{Deserialize, Deserializer, Serialize};

use super::{MathShepherd, QwenMath, Reading, RewardTokenizer, Rlhflow, Skywork, Trl};
use crate::config::{Config, Head};
use crate::error::Error;

/// How a process reward model wants a solution written, and where and how it says what it thinks of
/// each step.
///
/// | convention | prompt and steps | a step is judged at | P(good) |
/// |---|---|---|---|
/// | `math_shepherd` | text | the tag ` ки` behind it | of `+` against `-` |
/// | `rlhflow` | a conversation, each step a user's message | the token before the answer `+` | of `+` against `-` |
/// | `skywork` | text, a step a line | its newline | logistic function of the value head |
/// | `qwen_math` | a conversation, steps in the answer | `<extra_0>` behind it | second of two scores |
/// | `trl` | text, a separator behind each step | the last token of the separator | second of two scores |
///
/// In a configuration it is a name, or a mapping with `type` and what differs from the defaults:
///
/// ```
/// use posttrain_model::reward::{Convention, MathShepherd};
/// let named: Convention = serde_json::from_str(r#""math_shepherd""#)?;
/// assert_eq!(named, Convention::MathShepherd(MathShepherd::default()));
/// let other: Convention =
///     serde_json::from_str(r#"{"type": "math_shepherd", "separator": "\n\n"}"#)?;
/// assert_ne!(named, other);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Convention {
    /// Math-Shepherd.
    MathShepherd(MathShepherd),
    /// The process reward models of `RLHFlow`.
    Rlhflow(Rlhflow),
    /// Skywork-o1-Open-PRM.
    Skywork(Skywork),
    /// Qwen2.5-Math-PRM.
    QwenMath(QwenMath),
    /// What TRL's `PRMTrainer` trains.
    Trl(Trl),
}

/// Beside the weights: how steps are marked, with settings that no head tells.
pub(crate) const CONVENTION: &str = "reward_convention.json";

/// A solution as token ids, and where each of its steps is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// The token ids.
    pub ids: Vec<u32>,
    /// For each step the place among them, in order.
    pub places: Vec<usize>,
}

impl Convention {
    /// Their names.
    pub const NAMES: [&'static str; 5] =
        ["math_shepherd", "rlhflow", "skywork", "qwen_math", "trl"];

    /// The convention that a head stands for; language models do not tell.
    pub fn of(config: &Config) -> Option<Self> {
        match config.head {
            Head::Perceptron { labels: 2, .. } => Some(Self::QwenMath(QwenMath::default())),
            Head::Value { .. } => Some(Self::Skywork(Skywork::default())),
            Head::Token { labels: 2, .. } => Some(Self::Trl(Trl::default())),
            _ => None,
        }
    }

    /// The convention that a checkpoint or an adapter was trained with, where its folder says so.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Json`].
    pub fn read(folder: impl AsRef<Path>) -> Result<Option<Self>, Error> {
        let path = folder.as_ref().join(CONVENTION);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| Error::Json { path, source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// The file that [`Convention::read`] reads, with its name: a companion of the weights.
    pub fn to_file(&self) -> (String, Vec<u8>) {
        let json = serde_json::to_vec_pretty(self).expect("settings are JSON");
        (CONVENTION.to_owned(), json)
    }

    /// The head that it reads; `None` of those that read a language model's tokens.
    pub fn head(&self, config: &Config) -> Option<Head> {
        match self {
            Self::MathShepherd(_) | Self::Rlhflow(_) => None,
            Self::Skywork(_) => {
                Some(Head::Value { lm_head: !config.tie_word_embeddings, prefixed: false })
            }
            Self::QwenMath(_) => Some(Head::Perceptron { labels: 2, lm_head: false }),
            Self::Trl(_) => Some(Head::Token { labels: 2, bias: true }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MathShepherd(_) => MathShepherd::NAME,
            Self::Rlhflow(_) => Rlhflow::NAME,
            Self::Skywork(_) => Skywork::NAME,
            Self::QwenMath(_) => QwenMath::NAME,
            Self::Trl(_) => Trl::NAME,
        }
    }

    /// Writes a solution: for training and for scoring alike. The steps of a shorter solution are
    /// written as the first steps of a longer one.
    ///
    /// # Errors
    /// [`Error::Unscorable`] for a solution that cannot be written so (a step that holds the mark, a
    /// conversation of several turns where a text is wanted), [`Error::NoTag`] for a tokenizer without
    /// the tags, [`Error::NoChatTemplate`] and [`Error::Chat`].
    pub fn encode(
        &self,
        tokenizer: &RewardTokenizer,
        prompt: &Prompt,
        steps: &[String],
    ) -> Result<Marked, Error> {
        if steps.is_empty() {
            return Ok(Marked::default());
        }
        let marked = match self {
            Self::MathShepherd(convention) => convention.encode(tokenizer, prompt, steps),
            Self::Rlhflow(convention) => convention.encode(tokenizer, prompt, steps),
            Self::Skywork(convention) => convention.encode(tokenizer, prompt, steps),
            Self::QwenMath(convention) => convention.encode(tokenizer, prompt, steps),
            Self::Trl(convention) => convention.encode(tokenizer, prompt, steps),
        }?;
        if marked.places.len() != steps.len() {
            return Err(Error::Unscorable(format!(
                "{}: {} marks for {} steps: the prompt or a step holds the mark itself",
                self.name(),
                marked.places.len(),
                steps.len()
            )));
        }
        Ok(marked)
    }

    /// How the model says what it thinks at a mark.
    ///
    /// # Errors
    /// [`Error::NoTag`] for a tokenizer without the tags, [`Error::Input`] for a model whose head says
    /// something else.
    pub fn reading(&self, tokenizer: &RewardTokenizer, config: &Config) -> Result<Reading, Error> {
        let reading = match self {
            Self::MathShepherd(convention) => convention.reading(tokenizer)?,
            Self::Rlhflow(convention) => convention.reading(tokenizer)?,
            Self::Skywork(_) => Reading::Value,
            Self::QwenMath(_) | Self::Trl(_) => Reading::TwoScores,
        };
        reading.check(self.name(), config)?;
        Ok(reading)
    }
}

impl<'de> Deserialize<'de> for Convention {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Full {
            MathShepherd(MathShepherd),
            Rlhflow(Rlhflow),
            Skywork(Skywork),
            QwenMath(QwenMath),
            Trl(Trl),
        }
        let value = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(name) => serde_json::json!({ "type": name }),
            other => other,
        };
        let full = Full::deserialize(value).map_err(serde::de::Error::custom)?;
        Ok(match full {
            Full::MathShepherd(convention) => Self::MathShepherd(convention),
            Full::Rlhflow(convention) => Self::Rlhflow(convention),
            Full::Skywork(convention) => Self::Skywork(convention),
            Full::QwenMath(convention) => Self::QwenMath(convention),
            Full::Trl(convention) => Self::Trl(convention),
        })
    }
}

/// The places of a token.
pub(super) fn places(ids: &[u32], mark: u32) -> Vec<usize> {
    ids.iter().enumerate().filter(|(_, id)| **id == mark).map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_settings() {
        for name in Convention::NAMES {
            let named: Convention = serde_json::from_value(name.into()).unwrap();
            assert_eq!(named.name(), name);
            let written = serde_json::to_value(&named).unwrap();
            assert_eq!(written["type"], name);
            assert_eq!(serde_json::from_value::<Convention>(written).unwrap(), named);
        }
        let wrong = |json: serde_json::Value| {
            serde_json::from_value::<Convention>(json).unwrap_err().to_string()
        };
        assert!(wrong("shepherd".into()).contains("`math_shepherd`"));
        let misspelt = serde_json::json!({"type": "trl", "seperator": "x"});
        assert!(wrong(misspelt).contains("expected `step_separator`"));
    }
}
