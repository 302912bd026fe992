//! How many pairs have their scores in the right order.
//!
//! ```text
//! accuracy = (#{c > r} + ½ #{c = r}) / n
//! ```
//!
//! Ties count half, as in the area under the curve: a model that gives every answer the same score has the accuracy
//! of a coin. TRL's `accuracy` and `rewards/accuracies` count them as wrong, which is [`PairOrder::strict`].

use serde::{Deserialize, Serialize};

use super::{ScoredPair, Share};

/// Pairs in order, out of order and tied.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairOrder {
    /// All pairs.
    pub pairs: usize,
    /// Those whose better answer has the higher score.
    pub wins: usize,
    /// Those with two equal scores.
    pub ties: usize,
    /// The share in order, a tie counted as half, with its 95 % interval.
    pub accuracy: Share,
}

impl PairOrder {
    /// Of pairs; `None` without any.
    pub fn of(pairs: &[ScoredPair]) -> Option<Self> {
        let wins = pairs.iter().filter(|pair| pair.chosen > pair.rejected).count();
        let ties = pairs.iter().filter(|pair| pair.chosen == pair.rejected).count();
        let accuracy = Share::wilson(wins as f64 + 0.5 * ties as f64, pairs.len())?;
        Some(Self { pairs: pairs.len(), wins, ties, accuracy })
    }

    /// The share in order where a tie is wrong, as TRL counts.
    pub fn strict(&self) -> f64 {
        self.wins as f64 / self.pairs as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half() {
        let pair = |chosen, rejected| ScoredPair { chosen, rejected, ..ScoredPair::default() };
        let order =
            PairOrder::of(&[pair(1.0, 0.0), pair(0.5, 0.5), pair(0.0, 2.0), pair(-0.0, 0.0)])
                .unwrap();
        assert_eq!((order.pairs, order.wins, order.ties), (4, 1, 2));
        assert_eq!((order.accuracy.value, order.strict()), (0.5, 0.25));
        assert_eq!(PairOrder::of(&[]), None);
    }
}
