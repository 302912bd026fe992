//! What the length of the answers says by itself.
//!
//! People and models alike tend to prefer the longer answer, and a reward model that has learnt nothing else can look
//! good (Singhal et al., *A Long Way to Go: Investigating Length Correlations in RLHF*, 2023, arXiv:2310.03716). So "the
//! longer answer is better" and "the shorter answer is better" are scored on the same pairs as the model; equal lengths
//! count half. A model that is worth its name is better than the better of the two, and also right where the better
//! answer is the shorter.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{PairOrder, ScoredPair, Share};

/// The accuracy of length, and that of the model where length is right and where it is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthBaseline {
    /// How often "the longer answer is better" is right.
    pub longer: Share,
    /// How often "the shorter answer is better" is right.
    pub shorter: Share,
    /// Pairs whose answers have the same length.
    pub equal: usize,
    /// The accuracy of the model where the better answer is the longer one; none without such pairs.
    pub model_where_longer: Option<Share>,
    /// The accuracy of the model where the better answer is the shorter one.
    pub model_where_shorter: Option<Share>,
    /// The accuracy of the model on all pairs.
    pub model: Share,
}

impl LengthBaseline {
    /// Of pairs; `None` without any.
    pub fn of(pairs: &[ScoredPair]) -> Option<Self> {
        let those = |order: Ordering| -> Vec<ScoredPair> {
            let is = |pair: &&ScoredPair| pair.chosen_tokens.cmp(&pair.rejected_tokens) == order;
            pairs.iter().filter(is).copied().collect()
        };
        let (longer, shorter) = (those(Ordering::Greater), those(Ordering::Less));
        let equal = pairs.len() - longer.len() - shorter.len();
        let model = |pairs: &[ScoredPair]| PairOrder::of(pairs).map(|order| order.accuracy);
        let share = Share::wilson(longer.len() as f64 + 0.5 * equal as f64, pairs.len())?;
        Some(Self {
            longer: share,
            shorter: share.inverse(),
            equal,
            model_where_longer: model(&longer),
            model_where_shorter: model(&shorter),
            model: model(pairs)?,
        })
    }

    /// The better of the two rules.
    pub fn best(&self) -> Share {
        if self.longer.value >= self.shorter.value { self.longer } else { self.shorter }
    }

    /// Whether length alone is as good as the model, as far as so many pairs can tell: the better rule reaches the
    /// 95 % interval of the model's accuracy.
    pub fn explains(&self) -> bool {
        self.best().value >= self.model.low
    }

    /// The same in a sentence.
    pub fn verdict(&self) -> String {
        let rule = if self.longer.value >= self.shorter.value { "longer" } else { "shorter" };
        let (best, model) = (100.0 * self.best().value, self.model);
        let found = format!(
            "\u{201c}the {rule} answer is better\u{201d} is right for {best:.1} % of the pairs"
        );
        if self.best().value > model.high {
            format!(
                "Length alone explains the preferences better than the model: {found}, the model for {model}."
            )
        } else if self.explains() {
            format!(
                "Length alone explains the preferences as well as the model: {found}, the model for {model}."
            )
        } else {
            format!(
                "Length alone does not explain the preferences: {found}, the model for {model}."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(margin: f64, chosen_tokens: usize, rejected_tokens: usize) -> ScoredPair {
        ScoredPair { chosen: margin, rejected: 0.0, chosen_tokens, rejected_tokens }
    }

    /// By hand: of 4 pairs 2 have the longer answer chosen, 1 the shorter, 1 is equal.
    #[test]
    fn shares() {
        let pairs = [pair(1.0, 9, 3), pair(-1.0, 9, 3), pair(1.0, 3, 9), pair(1.0, 4, 4)];
        let found = LengthBaseline::of(&pairs).unwrap();
        assert_eq!((found.longer.value, found.shorter.value, found.equal), (0.625, 0.375, 1));
        assert_eq!(found.model_where_longer.unwrap().value, 0.5);
        assert_eq!(found.model_where_shorter.unwrap().value, 1.0);
        assert_eq!(found.model.value, 0.75);
        assert_eq!(LengthBaseline::of(&[]), None);
        assert_eq!(LengthBaseline::of(&pairs[..2]).unwrap().model_where_shorter, None);
    }

    /// A hundred pairs: the longer one is chosen in `longer` of them, the model is right in `right`.
    fn hundred(longer: usize, right: usize) -> LengthBaseline {
        let tokens = |i| if i < longer { (9, 3) } else { (3, 9) };
        let pairs: Vec<ScoredPair> = (0..100)
            .map(|i| pair(if i < right { 1.0 } else { -1.0 }, tokens(i).0, tokens(i).1))
            .collect();
        LengthBaseline::of(&pairs).unwrap()
    }

    /// 80 of 100 have the interval 71.1 to 86.7.
    #[test]
    fn verdicts() {
        let sentence = |longer, right| hundred(longer, right).verdict();
        assert_eq!(
            sentence(60, 80),
            "Length alone does not explain the preferences: \u{201c}the longer answer is better\u{201d} is right for 60.0 % \
             of the pairs, the model for 80.0 % (71.1 to 86.7)."
        );
        assert!(!hundred(60, 80).explains() && hundred(72, 80).explains());
        assert!(sentence(72, 80).starts_with("Length alone explains the preferences as well as"));
        assert!(sentence(28, 80).contains("the shorter answer is better"));
        assert!(sentence(90, 80).contains("better than the model"));
    }
}
