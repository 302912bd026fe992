//! How good the scores of a process reward model are: each step on its own, also by how far into the
//! solution it stands.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::calibration::BINS;
use super::{Calibration, SCORES_HTML, SCORES_JSON, Share, auc, brier, histogram, reliability};
use crate::checkpoint::write_file;
use crate::error::Error;
use crate::watch::html::{escape, page, table};

/// Buckets by length.
const BUCKETS: usize = 4;

/// What a model says of a step, and what the data says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoredStep {
    /// P(good), from 0 to 1.
    pub probability: f64,
    /// The label, from 0 to 1; good from ½ on.
    pub label: f64,
    /// Tokens of the prompt and the solution up to the step's end.
    pub tokens: usize,
}

impl ScoredStep {
    fn good(&self) -> bool {
        self.label >= 0.5
    }
}

/// What is measured of a set of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMeasures {
    /// How many.
    pub steps: usize,
    /// How many are good.
    pub good: usize,
    /// How often P(good) is on the side of ½ on which the label is.
    pub accuracy: Share,
    /// What the more frequent label has by itself.
    pub majority: f64,
    /// The area under the ROC curve; none where all steps are good, or all bad.
    pub auc: Option<f64>,
    /// The Brier score.
    pub brier: f64,
    /// How far P(good) can be believed.
    pub calibration: Calibration,
}

/// Steps of solutions of about the same length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepBucket {
    /// The fewest tokens up to a step's end.
    pub from: usize,
    /// The most.
    pub to: usize,
    /// What is measured of them.
    pub measures: StepMeasures,
}

/// The scores of a process reward model in numbers. Serialises to JSON, displays as text, and makes HTML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Of all steps.
    pub all: StepMeasures,
    /// By quartiles of the tokens up to the step's end, the shortest first.
    pub buckets: Vec<StepBucket>,
}

impl StepMeasures {
    fn of(steps: &[ScoredStep]) -> Option<Self> {
        let of = |good| -> Vec<f64> {
            steps.iter().filter(|s| s.good() == good).map(|s| s.probability).collect()
        };
        let (good, bad) = (of(true), of(false));
        let right = |step: &&ScoredStep| (step.probability >= 0.5) == step.good();
        let right = steps.iter().filter(right).count();
        let outcomes: Vec<(f64, bool)> =
            steps.iter().map(|step| (step.probability, step.good())).collect();
        let hard: Vec<(f64, f64)> =
            outcomes.iter().map(|&(p, good)| (p, f64::from(u8::from(good)))).collect();
        Some(Self {
            steps: steps.len(),
            good: good.len(),
            accuracy: Share::wilson(right as f64, steps.len())?,
            majority: good.len().max(bad.len()) as f64 / steps.len() as f64,
            auc: auc(&good, &bad),
            brier: brier(&outcomes)?,
            calibration: Calibration::of(&hard, BINS)?,
        })
    }

    fn cells(&self) -> [(&'static str, String); 6] {
        let number = |value: f64| format!("{value:.3}");
        [
            ("steps", format!("{}, {} good", self.steps, self.good)),
            ("accuracy", self.accuracy.to_string()),
            ("more frequent label", number(self.majority)),
            ("AUC", self.auc.map_or("none: all steps are alike".into(), number)),
            ("ECE", number(self.calibration.ece)),
            ("Brier", number(self.brier)),
        ]
    }
}

impl StepReport {
    /// Measures steps.
    ///
    /// # Errors
    /// [`Error::Data`] when there are none, or a probability or label is not from 0 to 1; it names the
    /// step, from 0 on.
    pub fn new(steps: &[ScoredStep]) -> Result<Self, Error> {
        let within = |value: f64| (0.0..=1.0).contains(&value);
        let wrong = |step: &ScoredStep| !(within(step.probability) && within(step.label));
        if let Some(at) = steps.iter().position(wrong) {
            let ScoredStep { probability, label, .. } = steps[at];
            let reason = format!("P(good) {probability} and label {label}, expected 0 to 1");
            return Err(Error::Data { row: format!("step {at}"), reason });
        }
        let none = || Error::Data { row: "the scores".into(), reason: "there are no steps".into() };
        let all = StepMeasures::of(steps).ok_or_else(none)?;
        let mut sorted = steps.to_vec();
        sorted.sort_by_key(|step| step.tokens);
        let bucket = |steps: &[ScoredStep]| {
            let (from, to) = (steps.first()?.tokens, steps.last()?.tokens);
            Some(StepBucket { from, to, measures: StepMeasures::of(steps)? })
        };
        let buckets = sorted.chunks(sorted.len().div_ceil(BUCKETS)).filter_map(bucket).collect();
        Ok(Self { all, buckets })
    }

    /// What an evaluation can have, for [`Extras`](crate::watch::Extras): `accuracy`, `auc`, `brier`,
    /// `ece`.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let StepMeasures { accuracy, auc, brier, calibration, .. } = &self.all;
        let auc = auc.map(|value| ("auc", value));
        let others = [("accuracy", accuracy.value), ("brier", *brier), ("ece", calibration.ece)];
        auc.into_iter().chain(others).collect()
    }

    /// Writes [`SCORES_JSON`] and [`SCORES_HTML`] into a folder, which is made where there is none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, folder: &Path, title: &str) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let json = serde_json::to_vec_pretty(self).expect("numbers are JSON");
        write_file(&folder.join(SCORES_JSON), &json)?;
        let body = format!("<header><h1>{}</h1></header>{}", escape(title), self.html());
        write_file(&folder.join(SCORES_HTML), page(title, &body).as_bytes())
    }

    /// As a piece of HTML.
    pub fn html(&self) -> String {
        let mut out = String::from("<section class=\"data-report\" id=\"scores\">\n");
        out.push_str(&table(self.all.cells()));
        out.push_str(&reliability(&self.all.calibration).to_html("reliability"));
        out.push_str(&histogram(&self.all.calibration).to_svg());
        out.push_str("<h2>By length</h2><table class=\"numbers\"><tr><th>tokens so far</th>");
        for (name, _) in self.all.cells() {
            _ = write!(out, "<th>{name}</th>");
        }
        out.push_str("</tr>");
        for StepBucket { from, to, measures } in &self.buckets {
            _ = write!(out, "<tr><td>{from}–{to}</td>");
            for (_, value) in measures.cells() {
                _ = write!(out, "<td>{value}</td>");
            }
            out.push_str("</tr>");
        }
        out.push_str("</table></section>\n");
        out
    }
}

/// A table, and one by length.
impl fmt::Display for StepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.all.cells() {
            writeln!(f, "{name:<24} {value}")?;
        }
        for StepBucket { from, to, measures } in &self.buckets {
            let [(_, steps), (_, accuracy), ..] = measures.cells();
            writeln!(f, "{:<24} {steps}, accuracy {accuracy}", format!("{from} to {to} tokens"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn step(probability: f64, label: f64, tokens: usize) -> ScoredStep {
        ScoredStep { probability, label, tokens }
    }

    #[test]
    fn by_hand() {
        let steps =
            [step(0.9, 1.0, 10), step(0.4, 1.0, 20), step(0.6, 0.0, 30), step(0.1, 0.25, 40)];
        let report = StepReport::new(&steps).unwrap();
        let all = &report.all;
        assert_eq!((all.steps, all.good, all.accuracy.value, all.majority), (4, 2, 0.5, 0.5));
        // Of four pairs of a good and a bad step 0.4 against 0.6 is in the wrong order.
        assert_eq!(all.auc, Some(0.75));
        let expected = (0.01 + 0.36 + 0.36 + 0.01) / 4.0;
        assert!((all.brier - expected).abs() < 1e-12);
        assert_eq!(report.buckets.len(), 4);
        assert_eq!((report.buckets[2].from, report.buckets[2].measures.accuracy.value), (30, 0.0));
        assert!(report.to_string().contains("4, 2 good"));
        let folder = tempfile::tempdir().unwrap();
        report.save(folder.path(), "steps").unwrap();
        let read = std::fs::read(folder.path().join(SCORES_JSON)).unwrap();
        // Fractions are read quickly, and may be off in the last bit.
        let read: StepReport = serde_json::from_slice(&read).unwrap();
        assert_eq!(read.to_string(), report.to_string());
    }

    #[test]
    fn what_is_no_probability_is_named() {
        assert!(StepReport::new(&[]).unwrap_err().to_string().contains("no steps"));
        let error = StepReport::new(&[step(0.5, 1.0, 1), step(f64::NAN, 1.0, 2)]).unwrap_err();
        assert!(error.to_string().starts_with("step 1: P(good) NaN"), "{error}");
    }
}
