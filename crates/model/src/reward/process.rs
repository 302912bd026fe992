//! Process reward models: one number for each step of a solution.

use std::path::Path;

use burn::tensor::Device;
use posttrain_core::{Prompt, StepReward, StepSample};

use super::outcome::apart;
use super::scorer::{Asked, Scorer, finite, logistic};
use super::{Convention, Marked, RewardTokenizer};
use crate::decoder::{Decoder, LoadOptions};
use crate::error::Error;

/// A model that says of each step how probably it is good, from 0 to 1.
///
/// What a solution begins with is known from earlier calls: in a search, where solutions grow, only the
/// new steps are computed.
#[derive(Debug)]
pub struct ProcessRewardModel {
    scorer: Scorer,
    tokenizer: RewardTokenizer,
    convention: Convention,
}

/// How a [`ProcessRewardModel`] is loaded and scores.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// How the weights are loaded.
    pub load: LoadOptions,
    /// How steps are marked; `None` where the folder or the head tells ([`Convention::read`],
    /// [`Convention::of`]).
    pub convention: Option<Convention>,
    /// Tokens whose keys and values are kept for the next call, those least recently used going first.
    /// Each takes 2 · layers · `num_key_value_heads` · `head_dim` numbers.
    pub cache_tokens: usize,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self { load: LoadOptions::default(), convention: None, cache_tokens: 16_384 }
    }
}

impl ProcessRewardModel {
    /// Loads the model, the tokenizer and the chat template of a folder, with the default options.
    ///
    /// # Errors
    /// Those of [`Decoder::load`], [`RewardTokenizer::from_model`] and [`Convention::reading`], and
    /// [`Error::NoConvention`] for a checkpoint that does not tell how steps are marked.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        Self::load_with(folder, device, &ProcessOptions::default())
    }

    /// As [`ProcessRewardModel::load`], with options.
    ///
    /// # Errors
    /// Those of [`ProcessRewardModel::load`] and [`Decoder::load_with`].
    pub fn load_with(
        folder: impl AsRef<Path>,
        device: &Device,
        options: &ProcessOptions,
    ) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let model = Decoder::load_with(folder, device, &options.load)?;
        let convention = match &options.convention {
            Some(convention) => Some(convention.clone()),
            None => Convention::read(folder)?.or_else(|| Convention::of(model.config())),
        };
        let convention = convention.ok_or_else(|| Error::NoConvention {
            path: folder.to_owned(),
            head: model.config().head,
            known: Convention::NAMES.join(", "),
        })?;
        let tokenizer = RewardTokenizer::from_model(folder)?;
        Self::new(model, tokenizer, convention, options.cache_tokens)
    }

    /// From a model, for instance one that has just been trained, and its tokenizer.
    ///
    /// # Errors
    /// Those of [`Convention::reading`].
    pub fn new(
        model: Decoder,
        tokenizer: RewardTokenizer,
        convention: Convention,
        cache_tokens: usize,
    ) -> Result<Self, Error> {
        let reading = convention.reading(&tokenizer, model.config())?;
        let read = move |model: &Decoder, hidden| reading.rows(model, hidden);
        let scorer = Scorer::new(model, cache_tokens, Box::new(read));
        Ok(Self { scorer, tokenizer, convention })
    }

    /// The model.
    pub fn model(&self) -> &Decoder {
        self.scorer.model()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &RewardTokenizer {
        &self.tokenizer
    }

    /// How steps are marked.
    pub fn convention(&self) -> &Convention {
        &self.convention
    }

    /// Tokens that went through the model so far; those that were known did not.
    pub fn computed_tokens(&self) -> u64 {
        self.scorer.computed()
    }

    /// A solution as token ids with its marks.
    ///
    /// # Errors
    /// Those of [`Convention::encode`].
    pub fn encode(&self, prompt: &Prompt, steps: &[String]) -> Result<Marked, Error> {
        self.convention.encode(&self.tokenizer, prompt, steps)
    }

    /// The scores at the marks of encoded solutions.
    pub fn score(&self, solutions: &[Marked]) -> Vec<Result<Vec<f64>, Error>> {
        let texts: Vec<Asked> = solutions
            .iter()
            .map(|Marked { ids, places }| {
                // What stands behind the last mark says nothing about it.
                let end = places.iter().max().map_or(0, |last| last + 1).min(ids.len());
                let mut asked: Vec<usize> = places.iter().copied().filter(|p| *p < end).collect();
                asked.sort_unstable();
                asked.dedup();
                (ids[..end].to_vec(), asked)
            })
            .collect();
        let scores = self.scorer.score(&texts).into_iter().zip(texts.iter().zip(solutions));
        let of = |(scores, ((_, asked), marked)): (Result<Vec<f32>, Error>, (&Asked, &Marked))| {
            let scores = scores?;
            let at = |place: &usize| {
                let log_odds = asked.binary_search(place).ok().and_then(|at| scores.get(at));
                let log_odds = log_odds.copied().ok_or_else(|| {
                    Error::Unscorable(format!("mark {place} lies outside of the solution"))
                })?;
                finite(log_odds).map(logistic)
            };
            marked.places.iter().map(at).collect()
        };
        scores.map(of).collect()
    }
}

impl StepReward for ProcessRewardModel {
    fn step_reward(
        &self,
        samples: &[StepSample<'_>],
    ) -> Vec<Result<Vec<f64>, posttrain_core::Error>> {
        let encoded = samples.iter().map(|sample| self.encode(sample.prompt, sample.steps));
        let (solutions, failed) = apart(encoded.collect());
        let mut scores = self.score(&solutions).into_iter();
        let of = |failed: Option<Error>| match failed {
            Some(error) => Err(error.into()),
            None => scores.next().expect("scores for each solution").map_err(Into::into),
        };
        failed.into_iter().map(of).collect()
    }
}
