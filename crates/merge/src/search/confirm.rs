//! Whether what a search found holds on items that it did not use.
//!
//! The best of many trials is partly the luckiest one, so its score says too much. Here the best
//! candidates, the configuration as it was given and the parents are scored item by item on other
//! items. The baseline is the best of the last two there (which favours it), and the gain over it
//! has a paired bootstrap interval. With k candidates each interval is at 1 - 0.05/k, so that all
//! hold at once in 95 % of cases (Bonferroni).

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::bootstrap;
use super::run::Search;
use crate::Error;

/// What to confirm, and on what.
#[derive(Clone, Debug)]
pub struct Confirm {
    /// The ids of all items that scored the trials.
    pub searched: Vec<String>,
    /// The ids of the items to confirm on, in the order of the scores.
    pub held_out: Vec<String>,
    /// Configurations that a candidate must beat, by name, such as each model alone. The one that
    /// the search began with is always among them.
    pub parents: Vec<(String, Value)>,
    /// How many of the best trials to confirm.
    pub candidates: usize,
}

/// What the held-out items say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confirmation {
    /// How many items.
    pub items: usize,
    /// The level of each interval.
    pub level: f64,
    /// The best configuration that is not of the search.
    pub baseline: String,
    /// Its mean score.
    pub baseline_mean: f64,
    /// The candidates, from the best score in the search.
    pub candidates: Vec<Gain>,
}

/// A candidate against the baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// The trial.
    pub trial: usize,
    /// Its score in the search.
    pub search_score: f64,
    /// Its mean score on the held-out items.
    pub mean: f64,
    /// How much that is above the baseline.
    pub gain: f64,
    /// The low end of the interval of the gain.
    pub low: f64,
    /// The high end.
    pub high: f64,
}

impl Gain {
    /// Whether the whole interval is above zero.
    pub fn is_confirmed(&self) -> bool {
        self.low > 0.0
    }
}

impl Search {
    /// Scores the best candidates, the start and the parents on held-out items: `score` gives one
    /// score per item, in the order of [`Confirm::held_out`]. Merge and evaluate with
    /// [`Search::seed`], as the trials did.
    ///
    /// # Errors
    /// [`Error::Value`] for an item that the search has used (naming the first), one that is there
    /// twice, fewer than two items, and a search without results; [`Error::Evaluation`] when
    /// `score` fails, or gives another number of scores or one that is not finite.
    pub fn confirm<E: fmt::Display>(
        &self,
        confirm: &Confirm,
        mut score: impl FnMut(&Value) -> Result<Vec<f64>, E>,
    ) -> Result<Confirmation, Error> {
        check(confirm)?;
        let mut best = self.ranked();
        best.retain(|record| record.number > 0);
        best.truncate(confirm.candidates);
        if best.is_empty() {
            let found = format!("{} wanted, none scored", confirm.candidates);
            return Err(Error::value("candidates", found, "at least one trial with a score"));
        }
        let items = confirm.held_out.len();
        let mut scores = |what: &str, config: &Value| {
            let wrong = |reason: String| Error::Evaluation { what: what.to_owned(), reason };
            let scores = score(config).map_err(|error| wrong(error.to_string()))?;
            if scores.len() != items {
                return Err(wrong(format!("{} scores, expected {items}", scores.len())));
            }
            match scores.iter().zip(&confirm.held_out).find(|(score, _)| !score.is_finite()) {
                Some((score, id)) => Err(wrong(format!("item `{id}` has the score {score}"))),
                None => Ok(scores),
            }
        };
        let mut baseline = ("start".to_owned(), scores("start", self.config())?);
        for (name, config) in &confirm.parents {
            let parent = scores(name, config)?;
            if mean(&parent) > mean(&baseline.1) {
                baseline = (name.clone(), parent);
            }
        }
        let level = 1.0 - 0.05 / best.len() as f64;
        let mut candidates = Vec::with_capacity(best.len());
        for record in best {
            let found = scores(&format!("trial {}", record.number), &self.config_of(record)?)?;
            let gains: Vec<f64> = found.iter().zip(&baseline.1).map(|(a, b)| a - b).collect();
            let (low, high) = bootstrap::interval(&gains, level, self.seed());
            candidates.push(Gain {
                trial: record.number,
                search_score: record.score.unwrap_or(f64::NAN),
                mean: mean(&found),
                gain: mean(&gains),
                low,
                high,
            });
        }
        let (baseline, baseline_mean) = (baseline.0, mean(&baseline.1));
        Ok(Confirmation { items, level, baseline, baseline_mean, candidates })
    }
}

impl Confirmation {
    /// A table in Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "Baseline on {} held-out items: {} with {}. Intervals at {:.2} %, paired bootstrap with \
             {} resamples.\n\n| trial | score in the search | held out | gain | interval | \
             |\n|--:|--:|--:|--:|:-:|---|\n",
            self.items,
            super::report::cell(&self.baseline),
            super::report::short(self.baseline_mean),
            self.level * 100.0,
            bootstrap::RESAMPLES
        );
        for gain in &self.candidates {
            let [score, mean, more, low, high] =
                [gain.search_score, gain.mean, gain.gain, gain.low, gain.high]
                    .map(super::report::short);
            let word = if gain.is_confirmed() { "confirmed" } else { "not confirmed" };
            let line = format!(
                "| {} | {score} | {mean} | {more} | {low} to {high} | {word} |\n",
                gain.trial
            );
            text.push_str(&line);
        }
        text
    }
}

fn check(confirm: &Confirm) -> Result<(), Error> {
    if confirm.held_out.len() < 2 {
        let found = format!("{} items", confirm.held_out.len());
        return Err(Error::value("held_out", found, "at least 2"));
    }
    let searched: HashSet<&String> = confirm.searched.iter().collect();
    let mut seen = HashSet::new();
    for (i, id) in confirm.held_out.iter().enumerate() {
        let key = format!("held_out[{i}]");
        if searched.contains(id) {
            let expected = "an item that the search has not used: a score on it confirms nothing";
            return Err(Error::value(key, format!("`{id}`"), expected));
        }
        if !seen.insert(id) {
            return Err(Error::value(key, format!("`{id}` again"), "each item once"));
        }
    }
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
