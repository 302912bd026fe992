//! How long the rows are.

use serde::Serialize;

use super::Samples;

/// The lengths of rows in tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Lengths {
    /// The shortest.
    pub min: usize,
    /// The longest.
    pub max: usize,
    /// The average.
    pub mean: f64,
    /// Half of the rows are not longer.
    pub median: usize,
    /// Of 100 rows, 95 are not longer.
    pub p95: usize,
    /// At most 16 ranges of equal width, from the shortest row to the longest.
    pub histogram: Vec<Bar>,
}

/// A range of lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// The first length of the range.
    pub from: usize,
    /// The last.
    pub to: usize,
    /// Rows in it.
    pub rows: u64,
}

impl Lengths {
    const BARS: usize = 16;

    pub(super) fn new(samples: &Samples) -> Self {
        Self::of((0..samples.len()).map(|index| samples.length(index)).collect())
    }

    fn of(mut lengths: Vec<usize>) -> Self {
        lengths.sort_unstable();
        let (Some(&min), Some(&max)) = (lengths.first(), lengths.last()) else {
            return Self::default();
        };
        // The smallest length that a share of the rows does not exceed.
        let rank =
            |share: f64| lengths[((lengths.len() as f64 * share).ceil() as usize).max(1) - 1];
        let width = (max - min + 1).div_ceil(Self::BARS);
        let bars = (min..=max).step_by(width).map(|from| {
            let to = from + width - 1;
            let rows = lengths.partition_point(|&length| length <= to)
                - lengths.partition_point(|&length| length < from);
            Bar { from, to: to.min(max), rows: rows as u64 }
        });
        Self {
            min,
            max,
            mean: lengths.iter().sum::<usize>() as f64 / lengths.len() as f64,
            median: rank(0.5),
            p95: rank(0.95),
            histogram: bars.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_by_hand() {
        let found = Lengths::of(vec![40, 3, 5, 5, 20]);
        assert_eq!((found.min, found.max, found.median, found.p95), (3, 40, 5, 40));
        assert_eq!(found.mean, 14.6);
        // 38 lengths in 16 bars: 3 each, so 13 bars.
        assert_eq!(found.histogram.len(), 13);
        assert_eq!(found.histogram[0], Bar { from: 3, to: 5, rows: 3 });
        assert_eq!(found.histogram[12], Bar { from: 39, to: 40, rows: 1 });
        assert_eq!(found.histogram.iter().map(|bar| bar.rows).sum::<u64>(), 5);
        let one = Lengths::of(vec![7]);
        assert_eq!(one.histogram, [Bar { from: 7, to: 7, rows: 1 }]);
        assert_eq!(Lengths::of(Vec::new()), Lengths::default());
    }
}
