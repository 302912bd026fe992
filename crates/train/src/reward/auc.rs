//! The area under the ROC curve: the probability that a positive has a higher score than a negative (Mann and
//! Whitney, *On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other*, 1947).
//!
//! ```text
//! AUC = Σ_p Σ_n ([p > n] + ½ [p = n]) / (P N)
//! ```
//!
//! By one sorted pass over groups of equal scores, in O((P + N) log (P + N)); counted in whole numbers, so exactly.
//! Over pairs it compares every chosen with every rejected answer, also of other prompts: a model whose scores are
//! right within each prompt but shifted from prompt to prompt has an accuracy of 1 and a lower AUC.

/// The area under the ROC curve; `None` without positives or without negatives, or when a score is not a number.
///
/// ```
/// use posttrain_train::reward::auc;
/// assert_eq!(auc(&[0.8, 0.35], &[0.1, 0.4]), Some(0.75));
/// ```
pub fn auc(positive: &[f64], negative: &[f64]) -> Option<f64> {
    let with = |scores: &[f64], label: bool| scores.iter().map(|&score| (score, label)).collect();
    let mut all: Vec<(f64, bool)> = with(positive, true);
    all.extend::<Vec<_>>(with(negative, false));
    if positive.is_empty() || negative.is_empty() || all.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    // Twice the number of pairs that are won, a tie counted as one.
    let (mut won, mut below) = (0_u128, 0_u128);
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let positives = group.iter().filter(|(_, label)| *label).count() as u128;
        let negatives = group.len() as u128 - positives;
        won += positives * (2 * below + negatives);
        below += negatives;
    }
    Some(won as f64 / (2.0 * positive.len() as f64 * negative.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 3 beats both negatives, 2 beats 1 and ties with 2, 1 ties with 1: 2 + 1.5 + 0.5 of 6.
    #[test]
    fn ties_and_ends() {
        assert_eq!(auc(&[3.0, 2.0, 1.0], &[1.0, 2.0]), Some(4.0 / 6.0));
        assert_eq!(auc(&[1.0, 1.0], &[1.0]), Some(0.5));
        assert_eq!(auc(&[0.0], &[-0.0]), Some(0.5));
        assert_eq!(auc(&[f64::INFINITY], &[f64::NEG_INFINITY]), Some(1.0));
        assert_eq!(auc(&[], &[1.0]), None);
        assert_eq!(auc(&[1.0], &[]), None);
        assert_eq!(auc(&[1.0], &[f64::NAN]), None);
    }

    #[test]
    fn as_the_double_sum() {
        let scores = |seed: u64, n: u64| -> Vec<f64> {
            (0..n)
                .map(|i| (((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 17) as f64)
                .collect()
        };
        for seed in 0..20 {
            let (positive, negative) = (scores(seed, 31), scores(seed + 1_000, 23));
            let mut sum = 0.0;
            for p in &positive {
                for n in &negative {
                    sum += if p > n {
                        1.0
                    } else if p == n {
                        0.5
                    } else {
                        0.0
                    };
                }
            }
            assert_eq!(auc(&positive, &negative), Some(sum / (31.0 * 23.0)));
        }
    }
}
