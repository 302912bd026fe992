//! How better and worse answers differ, before anything is trained.

use serde::Serialize;

use super::{Answers, RowKind};
use crate::reward::auc;

/// Rows of answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswersReport {
    /// Rows.
    pub rows: usize,
    /// Better answers: chosen ones, the best of rankings, good ones.
    pub better: usize,
    /// The others.
    pub worse: usize,
    /// Mean number of tokens of better answers.
    pub better_length: f64,
    /// Mean number of tokens of the others.
    pub worse_length: f64,
    /// Of rows with better and worse answers of different mean lengths,
    pub compared: usize,
    /// in how many the better ones are longer.
    pub longer_is_better: usize,
    /// How probably a better answer of any row is longer than a worse one of any row; equal lengths count
    /// half. None where there are not both.
    pub length_auc: Option<f64>,
    /// Tokens that begin several answers of a row, and are computed once.
    pub shared_tokens: usize,
}

impl AnswersReport {
    pub(super) fn new(all: &Answers, kind: RowKind) -> Self {
        let (mut lengths, mut compared, mut longer) = ([Vec::new(), Vec::new()], 0, 0);
        let mut shared_tokens = 0;
        for row in 0..all.len() {
            let texts = all.row(row);
            let stems = all.stem(row) * (texts.len() - 1);
            shared_tokens += stems;
            let mut own = [Vec::new(), Vec::new()];
            for (text, better) in texts.zip(all.better(row, kind)) {
                let answer = all.texts().length(text) - all.prompt(text).len();
                own[usize::from(!better)].push(answer as f64);
            }
            let [better, worse] = own.each_ref().map(|lengths| mean(lengths));
            if own.iter().all(|lengths| !lengths.is_empty()) && better != worse {
                compared += 1;
                longer += usize::from(better > worse);
            }
            for (all, own) in lengths.iter_mut().zip(own) {
                all.extend(own);
            }
        }
        Self {
            rows: all.len(),
            better: lengths[0].len(),
            worse: lengths[1].len(),
            better_length: mean(&lengths[0]),
            worse_length: mean(&lengths[1]),
            compared,
            longer_is_better: longer,
            length_auc: auc(&lengths[0], &lengths[1]),
            shared_tokens,
        }
    }

    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let Self { rows, better, worse, better_length, worse_length, .. } = self;
        let mut lines = vec![
            ("rows of answers", format!("{rows}: {better} better answers, {worse} worse")),
            ("answer lengths", format!("better {better_length:.1}, worse {worse_length:.1}")),
            ("shared tokens", format!("{} are computed once", self.shared_tokens)),
        ];
        if self.compared > 0 {
            let share = 100.0 * self.longer_is_better as f64 / self.compared as f64;
            let value = format!("longer in {share:.1} % of {} rows", self.compared);
            lines.push(("better answers", value));
        }
        lines
    }

    /// Whether length alone tells better from worse in many rows: more than three in five, and more
    /// than three standard deviations from a fair coin.
    pub(super) fn length_explains(&self) -> Option<String> {
        let n = self.compared as f64;
        let share = self.longer_is_better as f64 / n.max(1.0);
        let (right, word) = if share > 0.5 { (share, "longer") } else { (1.0 - share, "shorter") };
        if self.compared == 0 {
            return self.length_explains_labels();
        }
        let clear = right > 0.6 && right - 0.5 > 3.0 * 0.5 / n.sqrt();
        clear.then(|| {
            format!(
                "the better answer is the {word} one in {:.1} % of {} rows: length alone explains \
                 much of the preference, and a model may learn nothing else",
                100.0 * right,
                self.compared
            )
        })
    }

    /// The same for rows of one answer: the better ones of all rows against the worse ones, with the
    /// standard error of an AUC of ½ (Hanley and `McNeil` 1982).
    fn length_explains_labels(&self) -> Option<String> {
        let (n, m) = (self.better as f64, self.worse as f64);
        let auc = self.length_auc?;
        let (right, word) = if auc > 0.5 { (auc, "longer") } else { (1.0 - auc, "shorter") };
        let error = ((n + m + 1.0) / (12.0 * n * m)).sqrt();
        (right > 0.6 && right - 0.5 > 3.0 * error).then(|| {
            format!(
                "a good answer is {word} than a bad one with a probability of {:.1} %: length alone \
                 explains much of the labels, and a model may learn nothing else",
                100.0 * right
            )
        })
    }
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len().max(1) as f64
}
