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
//! (there the first counts as an improvement), and perplexity and entropy are better when smaller, without
//! `greater_is_better: false` being set (there every name that does not end in `loss` is better when greater).

use serde::{Deserialize, Serialize};

use super::EvalMetrics;
use super::exact::Exact;
use crate::error::Error;

/// The metrics of an evaluation by which checkpoints can be compared, and whether greater is better.
const METRICS: [(&str, bool); 4] = [
    ("eval_loss", false),
    ("eval_perplexity", false),
    ("eval_entropy", false),
    ("eval_mean_token_accuracy", true),
];

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
    metric: &'static str,
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
    /// `metric` with or without `eval_`; `greater_is_better` as the metric wants it when `None`; without
    /// `patience` (transformers' `early_stopping_patience`, in evaluations) it never says stop.
    ///
    /// # Errors
    /// When the metric is not known, the patience is 0, or the threshold is negative or not a number.
    pub fn new(
        metric: &str,
        greater_is_better: Option<bool>,
        patience: Option<u64>,
        threshold: f64,
    ) -> Result<Self, Error> {
        let known = METRICS
            .iter()
            .find(|(name, _)| *name == metric || name.strip_prefix("eval_") == Some(metric));
        let Some(&(name, greater)) = known else {
            let names = METRICS.map(|(name, _)| name).join(", ");
            return Err(Error::config("metric_for_best_model", metric, format!("one of {names}")));
        };
        if patience == Some(0) {
            return Err(Error::config("early_stopping_patience", 0, "at least 1 evaluation"));
        }
        if !(threshold >= 0.0 && threshold.is_finite()) {
            return Err(Error::config("early_stopping_threshold", threshold, "a number from 0 on"));
        }
        Ok(Self {
            metric: name,
            greater_is_better: greater_is_better.unwrap_or(greater),
            patience,
            threshold,
            state: SelectionState::default(),
        })
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
    /// When the evaluation did not measure the metric.
    pub fn observe(&mut self, evaluation: &EvalMetrics) -> Result<Verdict, Error> {
        let value = match self.metric {
            "eval_perplexity" => Some(evaluation.perplexity()),
            "eval_entropy" => evaluation.eval_entropy,
            "eval_mean_token_accuracy" => evaluation.eval_mean_token_accuracy,
            _ => Some(evaluation.eval_loss),
        };
        let value = value.ok_or_else(|| {
            Error::config("metric_for_best_model", self.metric, "a metric that evaluations measure")
        })?;
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

#[cfg(test)]
mod tests {
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
        let error = accuracy.observe(&at(4, 1.0)).unwrap_err();
        assert!(
            error.to_string().contains("`metric_for_best_model` is eval_mean_token_accuracy"),
            "{error}"
        );
        let mut perplexity = Selection::new("eval_perplexity", None, None, 0.0).unwrap();
        assert!(perplexity.observe(&at(1, 2.0)).unwrap().best);
        assert!(perplexity.observe(&at(2, 1.0)).unwrap().best);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let message = |result: Result<Selection, Error>| result.unwrap_err().to_string();
        assert_eq!(
            message(Selection::new("accuracy", None, None, 0.0)),
            "`metric_for_best_model` is accuracy, expected one of eval_loss, eval_perplexity, eval_entropy, \
             eval_mean_token_accuracy"
        );
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
