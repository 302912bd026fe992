//! When a CMA-ES has nothing more to find (arXiv 1604.00772, appendix B.3).

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a CMA-ES ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Steps in every direction are smaller than `tolx`.
    Tolx,
    /// The best scores of the last 10 + ⌈30n/λ⌉ generations and all scores of the last one lie
    /// within `tolfun` of each other.
    Tolfun,
    /// Neither the best nor the median score got better: over the last fifth of the generations
    /// (at least 120 + 30n/λ, at most 20 000), the median of the last 30 % is not above that of
    /// the first 30 %.
    Stagnation,
    /// As many scores were told as were allowed.
    MaxEvaluations,
    /// The longest axis of the distribution is ten million times the shortest.
    Condition,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tolx => "tolx",
            Self::Tolfun => "tolfun",
            Self::Stagnation => "stagnation",
            Self::MaxEvaluations => "max_evaluations",
            Self::Condition => "condition",
        })
    }
}

/// The best and the median score of each generation, as many as the criteria look back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    best: VecDeque<f64>,
    median: VecDeque<f64>,
}

const LONGEST: usize = 20_000;

impl History {
    /// Adds a generation: its finite scores from the best to the worst, at least one.
    pub(crate) fn push(&mut self, sorted: &[f64]) {
        self.best.push_back(sorted[0]);
        self.median.push_back(sorted[sorted.len() / 2]);
        if self.best.len() > LONGEST {
            self.best.pop_front();
            self.median.pop_front();
        }
    }

    /// Whether the best of the last generations lie within `tolerance`; false for fewer.
    pub(crate) fn is_flat(&self, n: usize, lambda: usize, tolerance: f64) -> bool {
        let last = 10 + (30 * n).div_ceil(lambda);
        let recent = || self.best.iter().rev().take(last);
        let high = recent().copied().fold(f64::NEG_INFINITY, f64::max);
        let low = recent().copied().fold(f64::INFINITY, f64::min);
        self.best.len() >= last && high - low < tolerance
    }

    pub(crate) fn stagnates(&self, n: usize, lambda: usize, generations: usize) -> bool {
        let window = (generations / 5).max(120 + 30 * n / lambda).min(LONGEST);
        self.best.len() >= window
            && [&self.best, &self.median].into_iter().all(|scores| {
                let recent: Vec<f64> = scores.range(scores.len() - window..).copied().collect();
                let third = window * 3 / 10;
                median(&recent[window - third..]) <= median(&recent[..third])
            })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}
