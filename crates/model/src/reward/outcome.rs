//! Outcome reward models: one number for an answer.

use std::path::Path;

use burn::tensor::Device;
use posttrain_chat::Chat;
use posttrain_core::{Message, Prompt, Reward, Sample};

use super::RewardTokenizer;
use super::scorer::{Scorer, finite, logistic};
use crate::decoder::{Decoder, LoadOptions};
use crate::error::Error;

/// A model with a head of one score, which reads it at the last token of a prompt with its answer.
///
/// A conversation is written by the chat template, with the answer as its last message. A text is
/// followed by the answer and, as in TRL's `RewardTrainer`, by the end token.
#[derive(Debug)]
pub struct RewardModel {
    scorer: Scorer,
    tokenizer: RewardTokenizer,
    logistic: bool,
}

/// How a [`RewardModel`] is loaded and scores.
#[derive(Clone, Debug)]
pub struct RewardOptions {
    /// How the weights are loaded.
    pub load: LoadOptions,
    /// Rewards between 0 and 1: 1 / (1 + e^−score), the probability of being preferred to an answer of
    /// the score 0 (Bradley and Terry 1952). Otherwise the score as it is.
    pub logistic: bool,
    /// Tokens whose keys and values are kept for the next call; 0 keeps none.
    pub cache_tokens: usize,
}

impl Default for RewardOptions {
    fn default() -> Self {
        Self { load: LoadOptions::default(), logistic: false, cache_tokens: 4096 }
    }
}

impl RewardModel {
    /// Loads the model, the tokenizer and the chat template of a folder, with the default options.
    ///
    /// # Errors
    /// Those of [`Decoder::load`] and [`RewardTokenizer::from_model`], and [`Error::Input`] for a head
    /// with another number of scores than one, or none.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        Self::load_with(folder, device, &RewardOptions::default())
    }

    /// As [`RewardModel::load`], with options.
    ///
    /// # Errors
    /// Those of [`RewardModel::load`] and [`Decoder::load_with`].
    pub fn load_with(
        folder: impl AsRef<Path>,
        device: &Device,
        options: &RewardOptions,
    ) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let model = Decoder::load_with(folder, device, &options.load)?;
        Self::new(model, RewardTokenizer::from_model(folder)?, options)
    }

    /// From a model, for instance one that has just been trained, and its tokenizer.
    ///
    /// # Errors
    /// [`Error::Input`] for a head with another number of scores than one, or none.
    pub fn new(
        model: Decoder,
        tokenizer: RewardTokenizer,
        options: &RewardOptions,
    ) -> Result<Self, Error> {
        let head = model.config().head;
        if head.labels() != Some(1) {
            return Err(Error::Input {
                what: "the head of a reward model".into(),
                found: format!("{head:?}"),
                expected: "one with one score".into(),
            });
        }
        let read = |model: &Decoder, hidden| model.score_rows(hidden).reshape([-1]);
        let scorer = Scorer::new(model, options.cache_tokens, Box::new(read));
        Ok(Self { scorer, tokenizer, logistic: options.logistic })
    }

    /// The model.
    pub fn model(&self) -> &Decoder {
        self.scorer.model()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &RewardTokenizer {
        &self.tokenizer
    }

    /// Tokens that went through the model so far; those that were known did not.
    pub fn computed_tokens(&self) -> u64 {
        self.scorer.computed()
    }

    /// The ids of a prompt with its answer: what training and scoring read.
    ///
    /// # Errors
    /// [`Error::Chat`] when the tokenizer or the template fails, [`Error::NoChatTemplate`] for a
    /// conversation where there is none.
    pub fn encode(&self, prompt: &Prompt, response: &str) -> Result<Vec<u32>, Error> {
        match prompt {
            Prompt::Text(text) => {
                let eos = self.tokenizer.eos_token().filter(|eos| !response.ends_with(eos));
                let whole = format!("{text}{response}{}", eos.unwrap_or_default());
                self.tokenizer.text().encode(&whole, true)
            }
            Prompt::Conversation(chat) => {
                let mut chat = chat.clone();
                chat.messages.push(Message::assistant(response));
                self.tokenizer.text().encode_conversation(&chat)
            }
        }
    }

    /// The ids of a conversation that ends with its answer, with everything that its template reads.
    ///
    /// # Errors
    /// As [`RewardModel::encode`].
    pub fn encode_chat(&self, chat: &impl Chat) -> Result<Vec<u32>, Error> {
        self.tokenizer.text().encode_conversation(chat)
    }

    /// The rewards of texts as token ids.
    pub fn reward_ids(&self, texts: &[Vec<u32>]) -> Vec<Result<f64, Error>> {
        let config = self.model().config();
        let asked = |ids: &Vec<u32>| {
            let last = if ids.is_empty() { vec![] } else { vec![config.pooled(ids)] };
            (ids.clone(), last)
        };
        let texts: Vec<_> = texts.iter().map(asked).collect();
        self.scorer.score(&texts).into_iter().map(|scores| self.reward_of(&scores?)).collect()
    }

    fn reward_of(&self, scores: &[f32]) -> Result<f64, Error> {
        let last = scores.first();
        let score = finite(*last.ok_or_else(|| Error::Unscorable("the text is empty".into()))?)?;
        Ok(if self.logistic { logistic(score) } else { score })
    }
}

impl Reward for RewardModel {
    fn reward(&self, samples: &[Sample<'_>]) -> Vec<Result<f64, posttrain_core::Error>> {
        let encoded = samples.iter().map(|sample| self.encode(sample.prompt, sample.response));
        let (texts, failed) = apart(encoded.collect());
        let mut rewards = self.reward_ids(&texts).into_iter();
        let of = |failed: Option<Error>| match failed {
            Some(error) => Err(error.into()),
            None => rewards.next().expect("a reward for each text").map_err(Into::into),
        };
        failed.into_iter().map(of).collect()
    }
}

/// What could be made of a batch, and for each item its error if it could not.
pub(super) fn apart<T>(made: Vec<Result<T, Error>>) -> (Vec<T>, Vec<Option<Error>>) {
    let mut items = Vec::with_capacity(made.len());
    let failed = made.into_iter().map(|item| match item {
        Ok(item) => {
            items.push(item);
            None
        }
        Err(error) => Some(error),
    });
    let failed = failed.collect();
    (items, failed)
}
