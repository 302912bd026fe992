//! The percentile bootstrap of a mean (B. Efron and R. Tibshirani, "An Introduction to the
//! Bootstrap", 1993, chapter 13).
//!
//! The gains `d_i = a_i - b_i` of two configurations on the same items are drawn again with
//! replacement, n of n, and averaged; the interval is between the α/2 and 1 - α/2 quantiles of the
//! averages, interpolated as numpy does. For few items (below 30, say) it is too narrow.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// How many times the items are drawn again.
pub const RESAMPLES: usize = 10_000;

/// The interval of the mean of `gains`, at least one, at `level`, such as 0.95. The same seed draws
/// the same items.
pub(crate) fn interval(gains: &[f64], level: f64, seed: u64) -> (f64, f64) {
    let n = gains.len();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = || ((u128::from(random.next_u64()) * n as u128) >> 64) as usize;
    let mut means: Vec<f64> =
        (0..RESAMPLES).map(|_| (0..n).map(|_| gains[draw()]).sum::<f64>() / n as f64).collect();
    means.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    (quantile(&means, tail), quantile(&means, 1.0 - tail))
}

/// Of sorted values, linear between the two nearest.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_hand() {
        let sorted = [0.0, 1.0, 2.0, 10.0];
        assert_eq!(quantile(&sorted, 0.0), 0.0);
        assert_eq!(quantile(&sorted, 0.5), 1.5);
        assert!((quantile(&sorted, 0.9) - 7.6).abs() < 1e-12);
        assert_eq!(quantile(&sorted, 1.0), 10.0);
    }

    /// Two items: the mean is the first, the second or their middle, with chances 1/4, 1/4 and 1/2.
    #[test]
    fn two_items_by_hand() {
        assert_eq!(interval(&[0.0, 1.0], 0.95, 1), (0.0, 1.0));
        assert_eq!(interval(&[0.0, 1.0], 0.4, 1), (0.5, 0.5));
        assert_eq!(interval(&[0.25; 9], 0.95, 1), (0.25, 0.25));
    }

    #[test]
    fn seeded() {
        let gains: Vec<f64> = (0..40).map(|i| f64::from(i * i % 17)).collect();
        assert_eq!(interval(&gains, 0.95, 1), interval(&gains, 0.95, 1));
        assert_ne!(interval(&gains, 0.95, 1), interval(&gains, 0.95, 2));
    }

    /// A million resamples of numpy; ten thousand estimate the quantile of a normal to 0.027
    /// standard deviations, four times that is allowed.
    #[test]
    fn intervals_are_numpys() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/merge/search/bootstrap.json"
        );
        let text = std::fs::read_to_string(path).expect("a fixture");
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
        for row in rows {
            let gains: Vec<f64> = serde_json::from_value(row["gains"].clone()).expect("gains");
            let wanted = ["low", "high", "sd"].map(|key| row[key].as_f64().expect("a number"));
            let (low, high) = interval(&gains, 0.95, 3);
            let allowed = 0.108 * wanted[2];
            assert!((low - wanted[0]).abs() < allowed, "{low} {}", wanted[0]);
            assert!((high - wanted[1]).abs() < allowed, "{high} {}", wanted[1]);
        }
    }
}
