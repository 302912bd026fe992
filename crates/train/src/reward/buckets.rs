//! Pairs by length.

use super::ScoredPair;

/// Splits pairs at the quantiles of the tokens of both answers into at most `count` buckets of about equal size,
/// shortest first. Pairs of one length stay together, so where many have the same there are fewer buckets.
///
/// ```
/// use posttrain_train::reward::{ScoredPair, by_length};
/// let pair = |tokens| ScoredPair { chosen_tokens: tokens, ..ScoredPair::default() };
/// let buckets = by_length(&[9, 1, 5, 3].map(pair), 2);
/// assert_eq!(buckets[0].iter().map(ScoredPair::tokens).collect::<Vec<_>>(), [1, 3]);
/// ```
pub fn by_length(pairs: &[ScoredPair], count: usize) -> Vec<Vec<ScoredPair>> {
    let mut sorted = pairs.to_vec();
    sorted.sort_by_key(ScoredPair::tokens);
    let (mut buckets, mut start) = (Vec::new(), 0);
    for number in 1..=count {
        // The last pair up to the quantile, and all that are as long.
        let Some(last) = (number * sorted.len()).div_ceil(count).checked_sub(1) else { continue };
        let end = sorted.partition_point(|pair| pair.tokens() <= sorted[last].tokens());
        if end > start {
            buckets.push(sorted[start..end].to_vec());
            start = end;
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(tokens: &[usize], count: usize) -> Vec<Vec<usize>> {
        let pair =
            |&tokens: &usize| ScoredPair { rejected_tokens: tokens, ..ScoredPair::default() };
        let pairs: Vec<ScoredPair> = tokens.iter().map(pair).collect();
        let buckets = by_length(&pairs, count);
        buckets.iter().map(|bucket| bucket.iter().map(ScoredPair::tokens).collect()).collect()
    }

    #[test]
    fn quantiles() {
        assert_eq!(lengths(&[5, 4, 3, 2, 1], 2), [vec![1, 2, 3], vec![4, 5]]);
        assert_eq!(lengths(&[1, 2, 2, 2, 3], 4), [vec![1, 2, 2, 2], vec![3]]);
        assert_eq!(lengths(&[7, 7, 7], 4), [vec![7, 7, 7]]);
        assert_eq!(lengths(&[2, 1], 4), [vec![1], vec![2]]);
        assert!(lengths(&[], 4).is_empty() && lengths(&[1], 0).is_empty());
    }

    #[test]
    fn none_is_lost() {
        for n in 1..60 {
            let tokens: Vec<usize> = (0..n).map(|i| (i * 7919) % 13).collect();
            for count in 1..9 {
                let mut all: Vec<usize> = lengths(&tokens, count).concat();
                assert!(all.is_sorted());
                let mut expected = tokens.clone();
                expected.sort_unstable();
                all.sort_unstable();
                assert_eq!(all, expected);
            }
        }
    }
}
