//! The best checkpoint, and when to stop since none is better.
//!
//! As transformers' `metric_for_best_model`, `greater_is_better` and `EarlyStoppingCallback` do it. With `m`
//! the metric of an evaluation and `b` the best of those before it:
//!
//! ```text
//! best      m better than b
//! patience  starts anew if m is better than b by more than the threshold, else one evaluation of it is used up
//! ```
//!
//! `b` also moves by gains that are smaller than the threshold, so that many of them in a row use up the
//! patience although their sum exceeds it; transformers has the same.
//!
//! **Differs from transformers:** a metric that is not a number uses up patience from the first evaluation on
//! (there the first counts as an improvement). Which way is better is known for the metrics of which it is clear,
//! perplexity and entropy among them; of others `greater_is_better` has to say it (there every name that does not
//! end in `loss` is better when greater).

use serde::{Deserialize, Serialize};

use super::EvalMetrics;
use super::exact::Exact;
use super::extra::{self, EVAL};
use crate::error::Error;

/// The last words of names of which greater is better: `rewards/accuracies`, `margin`, ...
const GREATER: [&str; 5] = ["accuracies", "accuracy", "margins", "margin", "auc"];
/// And those of which smaller is better.
const SMALLER: [&str; 6] = ["loss", "perplexity", "entropy", "nll", "ece", "brier"];
/// What an evaluation may have beside the metrics of its recipe.
const FIELDS: [&str; 4] = ["loss", "perplexity", "entropy", "mean_token_accuracy"];

/// Remembers the best evaluation and counts those since.
///
/// ```
/// use posttrain_train::watch::{EvalMetrics, Selection};
///
/// let mut selection = Selection::new("eval_loss", None, Some(2), 0.0)?;
/// let mut stops = Vec::new();
/// for (step, loss) in [(10, 2.0), (20, 1.5), (30, 1.6), (40, 1.7)] {
///     let mut evaluation = EvalMetrics::default();
///     (evaluation.step, evaluation.eval_loss) = (step, loss);
///     stops.push(selection.observe(&evaluation)?.stop);
/// }
/// assert_eq!(stops, [false, false, false, true]);
/// assert_eq!(selection.best(), Some((1.5, 20)));
/// # Ok::<(), posttrain_train::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Selection {
    /// With `eval_`.
    metric: String,
    greater_is_better: bool,
    patience: Option<u64>,
    threshold: f64,
    state: SelectionState,
}

/// What a [`Selection`] remembers; part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SelectionState {
    best: Option<(Exact, u64)>,
    without_gain: u64,
}

/// What an evaluation means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// No evaluation before was as good.
    pub best: bool,
    /// The patience is used up.
    pub stop: bool,
}

impl Selection {
    /// `metric` with or without `eval_`, one of the fields of evaluations or of what the recipe adds to them;
    /// `greater_is_better` as the metric wants it when `None`; without `patience` (transformers'
    /// `early_stopping_patience`, in evaluations) it never says stop.
    ///
    /// # Errors
    /// When it is no name of a metric, or not known whether more of it is better and `greater_is_better` does not
    /// say; when the patience is 0, or the threshold is negative or not a number. Whether evaluations have the
    /// metric is known to [`Selection::check`], and at the first of them.
    pub fn new(
        metric: &str,
        greater_is_better: Option<bool>,
        patience: Option<u64>,
        threshold: f64,
    ) -> Result<Self, Error> {
        let name = metric.strip_prefix(EVAL).unwrap_or(metric);
        if !FIELDS.contains(&name) && extra::check(name).is_err() {
            return Err(unknown(metric, &FIELDS.map(|name| format!("{EVAL}{name}"))));
        }
        let last = name.rsplit(['/', '_', '-', '.']).next().unwrap_or(name);
        let greater = match greater_is_better {
            Some(greater) => greater,
            None if GREATER.contains(&last) => true,
            None if SMALLER.contains(&last) => false,
            None => {
                let expected = format!("true or false: whether more {name} is better is not known");
                return Err(Error::config("greater_is_better", "missing", expected));
            }
        };
        if patience == Some(0) {
            return Err(Error::config("early_stopping_patience", 0, "at least 1 evaluation"));
        }
        if !(threshold >= 0.0 && threshold.is_finite()) {
            return Err(Error::config("early_stopping_threshold", threshold, "a number from 0 on"));
        }
        Ok(Self {
            metric: format!("{EVAL}{name}"),
            greater_is_better: greater,
            patience,
            threshold,
            state: SelectionState::default(),
        })
    }

    /// That evaluations will have the metric; `measured` are the names of all their metrics, without `eval_`. For
    /// recipes, which know them before the first evaluation.
    ///
    /// # Errors
    /// When they will not; it lists those that they will have.
    pub fn check(&self, measured: &[&str]) -> Result<(), Error> {
        let names: Vec<String> = measured.iter().map(|name| format!("{EVAL}{name}")).collect();
        if names.contains(&self.metric) { Ok(()) } else { Err(unknown(&self.metric, &names)) }
    }

    /// The same rule, with what an earlier part of the run has seen.
    #[must_use]
    pub fn with_state(self, state: SelectionState) -> Self {
        Self { state, ..self }
    }

    /// What has to be in a checkpoint.
    pub fn state(&self) -> &SelectionState {
        &self.state
    }

    /// The best metric so far, and its step.
    pub fn best(&self) -> Option<(f64, u64)> {
        self.state.best.map(|(Exact(value), step)| (value, step))
    }

    /// Takes one evaluation into account.
    ///
    /// # Errors
    /// When the evaluation did not measure the metric; it lists those that it did.
    pub fn observe(&mut self, evaluation: &EvalMetrics) -> Result<Verdict, Error> {
        let measured = measured(evaluation);
        let Some(&(_, value)) = measured.iter().find(|(name, _)| *name == self.metric) else {
            let names: Vec<String> = measured.into_iter().map(|(name, _)| name).collect();
            return Err(unknown(&self.metric, &names));
        };
        let (better, gain) = match self.best() {
            None => (!value.is_nan(), f64::INFINITY),
            Some((best, _)) if self.greater_is_better => (value > best, value - best),
            Some((best, _)) => (value < best, best - value),
        };
        self.state.without_gain =
            if better && gain > self.threshold { 0 } else { self.state.without_gain + 1 };
        if better {
            self.state.best = Some((Exact(value), evaluation.step));
        }
        let stop = self.patience.is_some_and(|patience| self.state.without_gain >= patience);
        Ok(Verdict { best: better, stop })
    }
}

/// The metrics of an evaluation by which checkpoints can be compared, with `eval_`.
fn measured(evaluation: &EvalMetrics) -> Vec<(String, f64)> {
    let EvalMetrics { eval_loss, perplexity, eval_entropy, .. } = *evaluation;
    let values = [Some(eval_loss), perplexity, eval_entropy, evaluation.eval_mean_token_accuracy];
    let fields = FIELDS.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)));
    let all = fields.chain(evaluation.extra.iter());
    all.map(|(name, value)| (format!("{EVAL}{name}"), value)).collect()
}

fn unknown(metric: &str, names: &[String]) -> Error {
    Error::config("metric_for_best_model", metric, format!("one of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::Extras;
    use super::*;

    fn at(step: u64, eval_loss: f64) -> EvalMetrics {
        EvalMetrics { step, eval_loss, ..EvalMetrics::default() }
    }

    fn verdicts(selection: &mut Selection, losses: &[f64]) -> Vec<(bool, bool)> {
        let evaluations = losses.iter().zip(1..);
        evaluations
            .map(|(&loss, step)| selection.observe(&at(step, loss)).unwrap())
            .map(|verdict| (verdict.best, verdict.stop))
            .collect()
    }

    /// By hand: gains of 0.1 are below the threshold of 0.15, yet move the best.
    #[test]
    fn small_gains_use_up_patience() {
        let mut selection = Selection::new("loss", None, Some(2), 0.15).unwrap();
        assert_eq!(
            verdicts(&mut selection, &[2.0, 1.9, 1.7, 1.6, 1.5]),
            [(true, false), (true, false), (true, false), (true, false), (true, true)]
        );
        assert_eq!(selection.best(), Some((1.5, 5)));
    }

    #[test]
    fn an_equal_metric_is_not_better() {
        let mut selection = Selection::new("eval_loss", None, Some(1), 0.0).unwrap();
        assert_eq!(verdicts(&mut selection, &[1.0, 1.0]), [(true, false), (false, true)]);
    }

    #[test]
    fn what_is_not_a_number_is_never_better() {
        let mut selection = Selection::new("eval_loss", None, Some(2), 0.0).unwrap();
        assert_eq!(
            verdicts(&mut selection, &[f64::NAN, 3.0, f64::NAN, f64::NAN]),
            [(false, false), (true, false), (false, false), (false, true)]
        );
    }

    #[test]
    fn a_resumed_selection_goes_on_as_if_never_stopped() {
        let losses = [2.0, 1.0 / 3.0, 0.1 + 0.2, 0.3, 0.3, 0.31, 0.1, 0.2];
        let new = || Selection::new("eval_loss", None, Some(3), 0.01).unwrap();
        let whole = verdicts(&mut new(), &losses);
        for cut in 0..losses.len() {
            let mut first = new();
            let mut both = verdicts(&mut first, &losses[..cut]);
            let state = serde_json::to_string(first.state()).unwrap();
            let mut second = new().with_state(serde_json::from_str(&state).unwrap());
            both.extend(verdicts(&mut second, &losses[cut..]));
            assert_eq!(both, whole, "{state}");
        }
    }

    #[test]
    fn the_metric_says_which_way_is_better() {
        let mut accuracy = Selection::new("mean_token_accuracy", None, None, 0.0).unwrap();
        for (step, value, best) in [(1, 0.5, true), (2, 0.6, true), (3, 0.55, false)] {
            let evaluation =
                EvalMetrics { step, eval_mean_token_accuracy: Some(value), ..at(step, 9.0) };
            assert_eq!(accuracy.observe(&evaluation).unwrap(), Verdict { best, stop: false });
        }
        let error = accuracy.observe(&at(4, 1.0)).unwrap_err().to_string();
        assert_eq!(
            error,
            "`metric_for_best_model` is eval_mean_token_accuracy, expected one of eval_loss"
        );
        let mut perplexity = Selection::new("eval_perplexity", None, None, 0.0).unwrap();
        for (step, value) in [(1, 2.0), (2, 1.0)] {
            let evaluation = EvalMetrics { perplexity: Some(value), ..at(step, 9.0) };
            assert!(perplexity.observe(&evaluation).unwrap().best);
        }
    }

    #[test]
    fn a_metric_of_the_recipe_is_as_good_as_any() {
        let with = |step, accuracy| EvalMetrics {
            extra: Extras::new([("rewards/accuracies", accuracy), ("kl", 0.5)]).unwrap(),
            ..at(step, 1.0)
        };
        for name in ["rewards/accuracies", "eval_rewards/accuracies"] {
            let mut selection = Selection::new(name, None, Some(1), 0.0).unwrap();
            assert!(selection.observe(&with(1, 0.5)).unwrap().best);
            assert!(selection.observe(&with(2, 0.75)).unwrap().best);
            let worse = Verdict { best: false, stop: true };
            assert_eq!(selection.observe(&with(3, 0.7)).unwrap(), worse);
            assert_eq!(selection.best(), Some((0.75, 2)));
        }
        // Known before the run where the recipe says what it measures, else at the first evaluation.
        let mut misspelt = Selection::new("rewards/accuracy", None, None, 0.0).unwrap();
        let expected =
            "`metric_for_best_model` is eval_rewards/accuracy, expected one of eval_loss, ";
        let error = misspelt.check(&["loss", "rewards/accuracies"]).unwrap_err().to_string();
        assert_eq!(error, format!("{expected}eval_rewards/accuracies"));
        let error = misspelt.observe(&with(1, 0.5)).unwrap_err().to_string();
        assert_eq!(error, format!("{expected}eval_kl, eval_rewards/accuracies"));
        let margin = Selection::new("rewards/margins", None, None, 0.0).unwrap();
        assert!(margin.check(&["loss", "rewards/margins"]).is_ok());
    }

    #[test]
    fn which_way_is_better_is_known_or_asked_for() {
        for (name, greater) in [
            ("accuracy", true),
            ("eval_rewards/margins", true),
            ("auc", true),
            ("nll_loss", false),
            ("eval_ece", false),
        ] {
            let selection = Selection::new(name, None, None, 0.0).unwrap();
            assert_eq!(selection.greater_is_better, greater, "{name}");
            let turned = Selection::new(name, Some(!greater), None, 0.0).unwrap();
            assert_eq!(turned.greater_is_better, !greater, "{name}");
        }
        let error = Selection::new("eval_kl", None, None, 0.0).unwrap_err().to_string();
        assert_eq!(
            error,
            "`greater_is_better` is missing, expected true or false: whether more kl is better is not known"
        );
        assert!(Selection::new("eval_kl", Some(false), None, 0.0).is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let message = |result: Result<Selection, Error>| result.unwrap_err().to_string();
        for name in ["learning_rate", "eval_", "two words"] {
            assert_eq!(
                message(Selection::new(name, None, None, 0.0)),
                format!(
                    "`metric_for_best_model` is {name}, expected one of eval_loss, eval_perplexity, eval_entropy, \
                     eval_mean_token_accuracy"
                )
            );
        }
        assert!(
            message(Selection::new("loss", None, Some(0), 0.0)).contains("early_stopping_patience")
        );
        assert!(
            message(Selection::new("loss", None, None, f64::NAN))
                .contains("early_stopping_threshold")
        );
    }

    /// What transformers' own callback and trainer decided (`make_early_stopping.py`).
    #[test]
    fn as_transformers() {
        #[derive(Deserialize)]
        struct Case {
            metric: String,
            patience: u64,
            threshold: f64,
            values: Vec<f64>,
            best: Vec<bool>,
            stop: Vec<bool>,
            best_step: u64,
        }
        #[derive(Deserialize)]
        struct Fixture {
            cases: Vec<Case>,
        }
        let text = include_str!("../../../../tests/fixtures/watch/early_stopping.json");
        let Fixture { cases } = serde_json::from_str(text).unwrap();
        assert_eq!(cases.len(), 72);
        for case in cases {
            let patience = Some(case.patience);
            let mut selection =
                Selection::new(&case.metric, None, patience, case.threshold).unwrap();
            for (i, &value) in case.values.iter().enumerate() {
                let evaluation = EvalMetrics {
                    eval_mean_token_accuracy: Some(value),
                    ..at(i as u64 + 1, value)
                };
                let verdict = selection.observe(&evaluation).unwrap();
                assert_eq!(verdict, Verdict { best: case.best[i], stop: case.stop[i] }, "{value}");
            }
            assert_eq!(selection.best().unwrap().1, case.best_step);
        }
    }
}
