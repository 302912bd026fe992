//! Whether the probabilities of a model can be believed.
//!
//! Bradley and Terry say that the chosen answer wins with probability s(c - r). As a classifier of two classes the
//! model bets on the answer with the higher score, with confidence p = s(|c - r|), and is right (o = 1), wrong (0), or
//! tied (½). With M bins of equal width, as Guo et al. have them (*On Calibration of Modern Neural Networks*, 2017,
//! arXiv:1706.04599):
//!
//! ```text
//! B_m   = the predictions with p in ((m - 1) / M, m / M]
//! ECE   = Σ_m |B_m| / n · |mean o - mean p|       over each bin; 0 is perfect
//! Brier = mean (s(c - r) - 1)²                    Brier 1950; 0 is perfect, 0.25 is a model that says ½ to all
//! ```
//!
//! Confidences of two classes are at least ½, so half of the bins stay empty: with the [`BINS`] used for pairs ten
//! do not. A small ECE alone is no merit: a model that says ½ and is right in half of all cases has 0.

use serde::{Deserialize, Serialize};

use super::{ScoredPair, Share};
use crate::preference::maths::sigmoid;

/// Bins from 0 to 1 for pairs.
pub(super) const BINS: usize = 20;

/// Calibration of a set of probabilities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The expected calibration error, from 0 to 1.
    pub ece: f64,
    /// The bins that are not empty, by confidence.
    pub bins: Vec<Bin>,
}

/// Predictions of about the same confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Confidences above this; the lowest bin also has 0.
    pub low: f64,
    /// Up to this.
    pub high: f64,
    /// Predictions.
    pub count: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// How many of them are right, with its 95 % interval.
    pub accuracy: Share,
}

impl Calibration {
    /// Of confidences and outcomes: 1 right, 0 wrong, ½ for what counts as both. `None` without any, and when one of
    /// them is not from 0 to 1.
    ///
    /// ```
    /// use posttrain_train::reward::Calibration;
    /// let found = Calibration::of(&[(0.75, 1.0), (0.75, 0.0), (0.25, 0.0)], 10).unwrap();
    /// assert!((found.ece - (2.0 * 0.25 + 1.0 * 0.25) / 3.0).abs() < 1e-12);
    /// ```
    pub fn of(predictions: &[(f64, f64)], bins: usize) -> Option<Self> {
        let within = |value: f64| (0.0..=1.0).contains(&value);
        if predictions.is_empty() || !predictions.iter().all(|&(p, o)| within(p) && within(o)) {
            return None;
        }
        let bins = bins.max(1);
        let edge = |number: usize| number as f64 / bins as f64;
        let inner: Vec<f64> = (1..bins).map(edge).collect();
        let mut sums = vec![(0_usize, 0.0, 0.0); bins];
        for &(confidence, outcome) in predictions {
            let (count, sum, right) = &mut sums[inner.partition_point(|edge| *edge < confidence)];
            (*count, *sum, *right) = (*count + 1, *sum + confidence, *right + outcome);
        }
        let mut found = Self::default();
        for (number, (count, sum, right)) in sums.into_iter().enumerate() {
            let Some(accuracy) = Share::wilson(right, count) else { continue };
            let confidence = sum / count as f64;
            let share = count as f64 / predictions.len() as f64;
            found.ece += share * (accuracy.value - confidence).abs();
            let (low, high) = (edge(number), edge(number + 1));
            found.bins.push(Bin { low, high, count, confidence, accuracy });
        }
        Some(found)
    }

    /// Of pairs: confidence s(|c - r|) that the answer with the higher score is the better one. `None` without any, and when a
    /// score is not a number.
    pub fn of_pairs(pairs: &[ScoredPair]) -> Option<Self> {
        let bet = |pair: &ScoredPair| {
            let margin = pair.margin();
            let outcome = if margin > 0.0 {
                1.0
            } else if margin < 0.0 {
                0.0
            } else {
                0.5
            };
            (sigmoid(margin.abs()), outcome)
        };
        Self::of(&pairs.iter().map(bet).collect::<Vec<_>>(), BINS)
    }
}

/// The Brier score of probabilities from 0 to 1 for what did happen or did not; `None` without any.
pub fn brier(predictions: &[(f64, bool)]) -> Option<f64> {
    let square = |(p, happened): &(f64, bool)| (p - f64::from(u8::from(*happened))).powi(2);
    let sum: f64 = predictions.iter().map(square).sum();
    (!predictions.is_empty()).then(|| sum / predictions.len() as f64)
}

/// The same for pairs, of which always the chosen answer has won.
pub(super) fn brier_of_pairs(pairs: &[ScoredPair]) -> Option<f64> {
    let won = |pair: &ScoredPair| (sigmoid(pair.margin()), true);
    brier(&pairs.iter().map(won).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, with four bins: 0 and 0.25 in the first, 0.5 in the second, 0.75 and 0.7 in the third, 1 in the last.
    #[test]
    fn bins_are_open_below_and_closed_above() {
        let found = Calibration::of(
            &[(0.0, 0.0), (0.25, 1.0), (0.5, 1.0), (0.75, 1.0), (0.7, 0.0), (1.0, 1.0)],
            4,
        )
        .unwrap();
        let counts: Vec<(f64, usize)> =
            found.bins.iter().map(|bin| (bin.high, bin.count)).collect();
        assert_eq!(counts, [(0.25, 2), (0.5, 1), (0.75, 2), (1.0, 1)]);
        // |0.5 - 0.125| · 2 + |1 - 0.5| + |0.5 - 0.725| · 2 + 0, of 6
        assert!((found.ece - (0.75 + 0.5 + 0.45) / 6.0).abs() < 1e-12, "{}", found.ece);
        assert_eq!(Calibration::of(&[], 4), None);
        assert_eq!(Calibration::of(&[(1.5, 1.0)], 4), None);
        assert_eq!(Calibration::of(&[(f64::NAN, 1.0)], 4), None);
    }

    /// By hand: log 3 apart is s = 3/4, once right and once wrong; a tie is ½ and half right. Brier: (1/16 + 9/16 +
    /// 1/4) / 3.
    #[test]
    fn pairs() {
        let pair =
            |chosen: f64, rejected: f64| ScoredPair { chosen, rejected, ..ScoredPair::default() };
        let pairs = [pair(3f64.ln(), 0.0), pair(0.0, 3f64.ln()), pair(2.0, 2.0)];
        let found = Calibration::of_pairs(&pairs).unwrap();
        assert!((found.ece - 2.0 * 0.25 / 3.0).abs() < 1e-12, "{found:?}");
        assert_eq!(found.bins.len(), 2);
        let (tied, bet) = (found.bins[0], found.bins[1]);
        assert_eq!((tied.high, tied.confidence, tied.accuracy.value), (0.5, 0.5, 0.5));
        assert!((bet.confidence - 0.75).abs() < 1e-12 && bet.accuracy.value == 0.5);
        assert!((brier_of_pairs(&pairs).unwrap() - 0.875 / 3.0).abs() < 1e-12);
        assert_eq!(brier(&[]), None);
    }
}
