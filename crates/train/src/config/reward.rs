//! Reward models: one score for an answer, or one for each of its steps.

use posttrain_model::config::{Config, Head};
use posttrain_model::reward::Convention;
use serde::{Deserialize, Serialize};

use super::{DataArguments, Method, Settings};
use crate::Error;
use crate::data::{BatchOptions, RowOptions, SamplingStrategy};
use crate::preference::BradleyTerry;

/// The settings of training a reward model.
pub type RewardConfig = Settings<RewardArguments>;

/// The section of reward models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardArguments {
    /// What is scored.
    pub kind: RewardKind,
    /// Of an outcome model: how strongly rewards are held around 0.
    pub center_rewards_coefficient: Option<f64>,
    /// Of a process model: how steps are marked and read, by its name or with what differs from the
    /// defaults. A head that tells makes it needless.
    pub convention: Option<Convention>,
    /// The order of the rows.
    pub train_sampling_strategy: SamplingStrategy,
    /// Shuffles the rows once, before everything else.
    pub shuffle_dataset: bool,
    /// Trains without the dropout of adapters. With dropout prompts are computed for each answer.
    pub disable_dropout: bool,
}

impl Default for RewardArguments {
    fn default() -> Self {
        Self {
            kind: RewardKind::Outcome,
            center_rewards_coefficient: None,
            convention: None,
            train_sampling_strategy: SamplingStrategy::Random,
            shuffle_dataset: false,
            disable_dropout: true,
        }
    }
}

/// What a reward model scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardKind {
    /// Whole answers, learned from pairs.
    #[default]
    Outcome,
    /// Every step, learned from labelled steps.
    Process,
}

/// What evaluations of outcome models measure.
const OF_PAIRS: [&str; 10] = [
    "loss",
    "accuracy",
    "margin",
    "min_reward",
    "mean_reward",
    "max_reward",
    "auc",
    "brier",
    "ece",
    "length_baseline",
];
/// And those of process models.
const OF_STEPS: [&str; 5] = ["loss", "accuracy", "auc", "brier", "ece"];

impl RewardArguments {
    /// The convention of a process model: that of the configuration, or of the head of the checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] where neither says it.
    pub fn convention(&self, model: &Config) -> Result<Convention, Error> {
        self.convention.clone().or_else(|| Convention::of(model)).ok_or_else(|| {
            let expected = format!("one of {}", Convention::NAMES.join(", "));
            Error::config("convention", "missing, and the checkpoint does not tell", expected)
        })
    }

    /// The loss of an outcome model.
    pub fn bradley_terry(&self) -> BradleyTerry {
        BradleyTerry { center_rewards_coefficient: self.center_rewards_coefficient }
    }
}

impl Method for RewardArguments {
    const LEARNING_RATE: f64 = 1e-4;

    fn task_type(&self) -> &'static str {
        match (self.kind, &self.convention) {
            (RewardKind::Outcome, _) => "SEQ_CLS",
            (RewardKind::Process, Some(Convention::MathShepherd(_) | Convention::Rlhflow(_))) => {
                "CAUSAL_LM"
            }
            (RewardKind::Process, _) => "TOKEN_CLS",
        }
    }

    fn head(&self, model: &Config) -> Result<Option<Head>, Error> {
        if self.kind == RewardKind::Outcome {
            return match (model.head, model.head.labels()) {
                (Head::Language, _) => Ok(Some(Head::Sequence { labels: 1 })),
                (_, Some(1)) => Ok(None),
                // It was trained for something else; another one would forget that without a word.
                (head, _) => {
                    let expected = "a language model, or one with one score";
                    Err(Error::config("model", format!("a checkpoint with {head:?}"), expected))
                }
            };
        }
        if Convention::of(model).is_some_and(|own| self.convention.is_none() || self.fits(&own)) {
            return Ok(None);
        }
        let convention = self.convention(model)?;
        let wanted = convention.head(model);
        if model.head != Head::Language {
            let found = format!("a checkpoint with {:?}", model.head);
            let expected = format!("a language model, or the head of `{}`", convention.name());
            return Err(Error::config("model", found, expected));
        }
        Ok(wanted)
    }

    fn validate(&self, settings: &Settings<Self>) -> Result<(), Error> {
        let measured: &[&str] = match self.kind {
            RewardKind::Outcome => &OF_PAIRS,
            RewardKind::Process => &OF_STEPS,
        };
        settings.training.selection()?.check(measured)?;
        self.bradley_terry().validate()?;
        if settings.data.truncation_mode != DataArguments::default().truncation_mode {
            let expected = "nothing: what is too long is refused, and not truncated";
            return Err(Error::config("truncation_mode", "given", expected));
        }
        match self.kind {
            RewardKind::Outcome if self.convention.is_some() => {
                let expected = "nothing with `kind: outcome`: it is how steps are marked";
                Err(Error::config("convention", "given", expected))
            }
            RewardKind::Process if self.center_rewards_coefficient.is_some() => {
                let expected = "nothing with `kind: process`: it is of pairs";
                Err(Error::config("center_rewards_coefficient", "given", expected))
            }
            _ => Ok(()),
        }
    }
}

impl RewardArguments {
    /// Whether the convention of a head is the one that is asked for.
    fn fits(&self, own: &Convention) -> bool {
        self.convention.as_ref().is_some_and(|asked| asked.name() == own.name())
    }
}

impl RewardConfig {
    /// How pairs become token ids. An answer that is too long is no row: its end, where it is scored,
    /// would be lost.
    pub fn row_options(&self) -> RowOptions {
        let mut options = RowOptions { whole: true, ..RowOptions::default() };
        options.chat.max_length = Some(self.data.max_length);
        options.chat.turns = posttrain_chat::TrainedTurns::Everything;
        options.bad_rows = self.data.untrained_rows;
        options
    }

    /// How rows become batches.
    pub fn batch_options(&self) -> BatchOptions {
        BatchOptions {
            shuffle_dataset: self.method.shuffle_dataset,
            train_sampling_strategy: self.method.train_sampling_strategy,
            ..self.training.batch_options(self.data.max_length)
        }
    }

    /// How validation rows become batches.
    pub fn eval_batch_options(&self) -> BatchOptions {
        self.training.eval_batch_options(self.batch_options())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::Document;

    fn read(text: &str, sets: &[&str]) -> Result<RewardConfig, Error> {
        let text = format!("model: m\ndata: d.jsonl\noutput_dir: o\n{text}");
        let mut document = Document::parse("run.yaml", &text)?;
        sets.iter().try_for_each(|set| document.set(set))?;
        RewardConfig::from_document(document)
    }

    #[test]
    fn a_convention_by_its_name_or_with_its_settings() {
        let named = |text: &str| read(text, &[]).unwrap().method.convention.unwrap().name();
        for name in Convention::NAMES {
            assert_eq!(named(&format!("kind: process\nconvention: {name}\n")), name);
        }
        let text = "kind: process\nconvention: {type: trl, step_separator: '##'}\n";
        let config = read(text, &[]).unwrap();
        let document = Document::parse("resolved.yaml", &config.to_yaml()).unwrap();
        assert_eq!(RewardConfig::from_document(document).unwrap(), config);
        // A head that tells makes it needless, so that it is asked for with the model.
        assert!(read("kind: process\n", &[]).is_ok());
    }

    #[test]
    fn what_is_misspelt_has_its_line_and_a_suggestion() {
        let error = |text: &str| read(text, &[]).unwrap_err().to_string();
        let kind = error("kind: proces\n");
        assert!(kind.starts_with("run.yaml: line 4: `kind`: unknown variant `proces`"), "{kind}");
        assert!(kind.ends_with("(did you mean `process`?)"), "{kind}");
        let name = error("kind: process\nconvention: math_sheperd\n");
        assert!(name.contains("line 5") && name.ends_with("(did you mean `math_shepherd`?)"));
        let key = error("kind: process\nconvention:\n  type: trl\n  step_seperator: x\n");
        assert!(key.contains("expected `step_separator`"), "{key}");
        let flat = error("center_reward_coefficient: 1\n");
        assert!(flat.ends_with("(did you mean `center_rewards_coefficient`?)"), "{flat}");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_key() {
        let process = "kind=process";
        for (key, sets) in [
            ("convention", &["convention=trl"][..]),
            ("center_rewards_coefficient", &[process, "center_rewards_coefficient=0.1"]),
            ("center_rewards_coefficient", &["center_rewards_coefficient=-1"]),
            ("metric_for_best_model", &["metric_for_best_model=rewards/accuracies"]),
            ("metric_for_best_model", &[process, "metric_for_best_model=margin"]),
        ] {
            let error = read("", sets).unwrap_err();
            let Error::Config { key: found, .. } = &error else { panic!("{sets:?}: {error}") };
            assert_eq!(found, key, "{sets:?}: {error}");
        }
        let ece = read("", &[process, "metric_for_best_model=ece"]).unwrap();
        assert_eq!(ece.method.task_type(), "TOKEN_CLS");
    }
}
