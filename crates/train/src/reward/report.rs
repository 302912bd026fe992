//! All measures of a set of scores, over all pairs and by length.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::calibration::{BINS, brier_of_pairs};
use super::{Calibration, LengthBaseline, PairOrder, ScoredPair, auc, by_length};
use crate::checkpoint::write_file;
use crate::error::Error;
use crate::watch::words::percent;

/// Where [`ScoreReport::save`] writes the numbers.
pub const SCORES_JSON: &str = "scores.json";
/// Where it writes the page.
pub const SCORES_HTML: &str = "scores.html";

/// Buckets by length.
const BUCKETS: usize = 4;

/// What is measured of a set of pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// How many are in order.
    pub order: PairOrder,
    /// The mean of chosen - rejected.
    pub margin: f64,
    /// The area under the ROC curve, every chosen answer against every rejected one.
    pub auc: Option<f64>,
    /// The Brier score of s(chosen - rejected).
    pub brier: f64,
    /// How far the confidences s(|chosen - rejected|) can be believed.
    pub calibration: Calibration,
}

/// Pairs of about the same length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// The fewest tokens of both answers of a pair.
    pub from: usize,
    /// The most.
    pub to: usize,
    /// What is measured of them.
    pub measures: Measures,
    /// What length says by itself within the bucket.
    pub length: LengthBaseline,
}

/// The scores of a reward model in numbers. Serialises to JSON, displays as text, and makes HTML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreReport {
    /// Of all pairs.
    pub all: Measures,
    /// What length says by itself.
    pub length: LengthBaseline,
    /// By quartiles of the tokens of both answers, shortest first; fewer where many pairs have one length.
    pub buckets: Vec<Bucket>,
}

impl Measures {
    fn of(pairs: &[ScoredPair]) -> Option<Self> {
        let column = |of: fn(&ScoredPair) -> f64| pairs.iter().map(of).collect::<Vec<_>>();
        Some(Self {
            order: PairOrder::of(pairs)?,
            margin: column(ScoredPair::margin).iter().sum::<f64>() / pairs.len() as f64,
            auc: auc(&column(|pair| pair.chosen), &column(|pair| pair.rejected)),
            brier: brier_of_pairs(pairs)?,
            calibration: Calibration::of_pairs(pairs)?,
        })
    }

    /// Names and values of a line of numbers.
    pub(super) fn cells(&self) -> [(&'static str, String); 6] {
        let number = |value: f64| format!("{value:.3}");
        [
            ("pairs", self.order.pairs.to_string()),
            ("accuracy", self.order.accuracy.to_string()),
            ("margin", number(self.margin)),
            ("AUC", self.auc.map(number).unwrap_or_default()),
            ("ECE", number(self.calibration.ece)),
            ("Brier", number(self.brier)),
        ]
    }
}

impl ScoreReport {
    /// Measures pairs.
    ///
    /// # Errors
    /// [`Error::Data`] when there are none, or a score is not a finite number; it names the pair, from 0 on.
    pub fn new(pairs: &[ScoredPair]) -> Result<Self, Error> {
        for (number, pair) in pairs.iter().enumerate() {
            for (answer, score) in [("chosen", pair.chosen), ("rejected", pair.rejected)] {
                if !score.is_finite() {
                    let reason = format!("the score of its {answer} answer is {score}");
                    return Err(Error::Data { row: format!("pair {number}"), reason });
                }
            }
        }
        let none = || Error::Data { row: "the scores".into(), reason: "there are no pairs".into() };
        let bucket = |pairs: Vec<ScoredPair>| {
            Some(Bucket {
                from: pairs.first()?.tokens(),
                to: pairs.last()?.tokens(),
                measures: Measures::of(&pairs)?,
                length: LengthBaseline::of(&pairs)?,
            })
        };
        Ok(Self {
            all: Measures::of(pairs).ok_or_else(none)?,
            length: LengthBaseline::of(pairs).ok_or_else(none)?,
            buckets: by_length(pairs, BUCKETS).into_iter().filter_map(bucket).collect(),
        })
    }

    /// What an evaluation can have beside TRL's `accuracy` and `margin`, for [`Extras`](crate::watch::Extras):
    /// `auc`, `brier`, `ece` and `length_baseline`, the accuracy of the better rule of length.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let auc = self.all.auc.map(|value| ("auc", value));
        let others = [
            ("brier", self.all.brier),
            ("ece", self.all.calibration.ece),
            ("length_baseline", self.length.best().value),
        ];
        auc.into_iter().chain(others).collect()
    }

    /// Writes [`SCORES_JSON`] and [`SCORES_HTML`] into a folder, which is made where there is none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, folder: &Path, title: &str) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let path = folder.join(SCORES_JSON);
        let json = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Checkpoint { path: path.clone(), reason: error.to_string() })?;
        write_file(&path, &json)?;
        write_file(&folder.join(SCORES_HTML), self.page(title).as_bytes())
    }

    /// Names and values of what is said of all pairs.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let PairOrder { pairs, wins, ties, accuracy } = self.all.order;
        let strict = percent(self.all.order.strict());
        let tied = match ties {
            0 => String::new(),
            _ => format!("; {strict} if ties are wrong"),
        };
        let [_, _, margin, auc, ece, brier] = self.all.cells().map(|(_, value)| value);
        let LengthBaseline { longer, shorter, equal, .. } = self.length;
        let mut lines = vec![
            ("pairs", format!("{pairs}, {wins} in order, {ties} tied")),
            ("accuracy", format!("{accuracy}{tied}")),
            ("mean margin", margin),
            ("AUC", auc),
            ("ECE", format!("{ece} with {BINS} bins")),
            ("Brier", format!("{brier}; a coin has 0.250")),
            ("the longer is better", longer.to_string()),
            ("the shorter is better", format!("{shorter}; {equal} of equal length")),
        ];
        let model = [
            ("model, better is longer", self.length.model_where_longer),
            ("model, better is shorter", self.length.model_where_shorter),
        ];
        lines
            .extend(model.into_iter().filter_map(|(name, share)| Some((name, share?.to_string()))));
        lines
    }
}

/// A table, one by length, and the verdict about length.
impl fmt::Display for ScoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.lines() {
            writeln!(f, "{name:<26}{value}")?;
        }
        writeln!(f, "by tokens of both answers")?;
        for bucket in &self.buckets {
            write!(f, "  {}–{}:", bucket.from, bucket.to)?;
            for (name, value) in bucket.measures.cells() {
                write!(f, "  {name} {value}")?;
            }
            writeln!(f, "  longer is better {}", percent(bucket.length.longer.value))?;
        }
        f.write_str(&self.length.verdict())
    }
}
