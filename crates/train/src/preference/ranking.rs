//! Answers to one prompt in an order, for losses over more than two.

use super::batch::{Answer, Metrics};
use super::maths::mean;

/// Several answers to one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Under the policy.
    pub answers: Vec<Answer>,
    /// How good each is: only the order counts. Equal rewards make no order.
    pub rewards: Vec<f64>,
}

impl Group {
    /// The first of the best answers.
    pub(super) fn best(&self) -> usize {
        let better = |best: usize, i: usize| self.rewards[i] > self.rewards[best];
        (0..self.answers.len()).fold(0, |best, i| if better(best, i) { i } else { best })
    }

    /// How many answers are better than the one at `i`.
    pub(super) fn rank(&self, i: usize) -> usize {
        self.rewards.iter().filter(|reward| **reward > self.rewards[i]).count()
    }

    /// The indices of all (better, worse).
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let n = self.answers.len();
        assert_eq!(n, self.rewards.len(), "answers and rewards");
        let all = (0..n).flat_map(move |i| (0..n).map(move |j| (i, j)));
        all.filter(|&(i, j)| self.rewards[i] > self.rewards[j])
    }
}

/// The best answers against the others, by `score`, and the share of pairs in the right order.
pub(super) fn metrics(groups: &[Group], score: impl Fn(&Answer) -> f64) -> Metrics {
    let right = groups.iter().flat_map(|group| {
        let score = |i: usize| score(&group.answers[i]);
        group.pairs().map(|(i, j)| f64::from(u8::from(score(i) > score(j)))).collect::<Vec<_>>()
    });
    let right = mean(right);
    let of = |best: bool, number: &dyn Fn(&Answer) -> f64| {
        mean(groups.iter().flat_map(|group| {
            let top = group.best();
            let answers = group.answers.iter().enumerate();
            let those = answers.filter(move |(i, _)| (*i == top) == best);
            those.map(|(_, answer)| number(answer)).collect::<Vec<_>>()
        }))
    };
    let (c, r) = (of(true, &score), of(false, &score));
    vec![
        ("rewards/chosen", c),
        ("rewards/rejected", r),
        ("rewards/accuracies", right),
        ("rewards/margins", c - r),
        ("logps/chosen", of(true, &|answer| answer.sum)),
        ("logps/rejected", of(false, &|answer| answer.sum)),
    ]
}
