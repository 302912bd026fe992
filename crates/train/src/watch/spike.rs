//! Single values far above those before them.
//!
//! Over the last `N` values, with `m` their median and `q` their 95th percentile:
//!
//! ```text
//! s = (q - m) / 1.645         one-sided standard deviation; equal to the usual one for a normal distribution
//! z = (x - m) / max(s, 0.01 |m|)
//! ```
//!
//! `x` is a spike when `z` exceeds the limit and `x` is far enough above `m` to matter. Losses of small batches
//! are skewed to the right: a scale from the upper tail itself gives fewer false alarms there than the median
//! absolute deviation, and up to 5 % of the window may be earlier spikes without blinding it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::exact::Exact;

/// Values that are remembered.
const WINDOW: usize = 100;
/// Values that have to be there before anything is called unusual.
const ENOUGH: usize = 20;
/// The place of the 95th percentile in a normal distribution.
const UPPER: f64 = 1.645;
/// The smallest scale, as a share of the median: constant values have none of their own.
const SMALLEST: f64 = 0.01;

/// When a value is a spike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// The standard deviations.
    pub(super) deviations: f64,
    /// How far above the median, as a share of it.
    pub(super) relative: f64,
    /// How far above the median.
    pub(super) absolute: f64,
}

/// The last values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Window {
    values: VecDeque<Exact>,
    /// The last value was a spike; the next ones are not told again.
    inside: bool,
}

/// A value that is far above the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spike {
    pub(super) usual: f64,
    pub(super) deviations: f64,
}

impl Window {
    /// Adds `x`, which is compared with the values before it. Of several spikes in a row the first is told.
    pub(super) fn push(&mut self, x: f64, limit: Limit) -> Option<Spike> {
        let sorted = self.sorted();
        let usual = quantile(&sorted, 0.5);
        let spread = (quantile(&sorted, 0.95) - usual) / UPPER;
        let deviations = (x - usual) / spread.max(SMALLEST * usual.abs()).max(f64::MIN_POSITIVE);
        let rise = (limit.relative * usual.abs()).max(limit.absolute);
        let spike = sorted.len() >= ENOUGH && deviations > limit.deviations && x - usual > rise;
        let first = spike && !self.inside;
        self.inside = spike;
        if self.values.len() == WINDOW {
            self.values.pop_front();
        }
        self.values.push_back(Exact(x));
        first.then_some(Spike { usual, deviations })
    }

    /// The median of the values; 0 without any.
    pub(super) fn median(&self) -> f64 {
        quantile(&self.sorted(), 0.5)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted: Vec<f64> = self.values.iter().map(|value| value.0).collect();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Linear between the two nearest, as numpy's default.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = q * last as f64;
    let below = sorted[place as usize];
    let above = sorted[last.min(place as usize + 1)];
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { deviations: 6.0, relative: 0.1, absolute: 0.1 };

    #[test]
    fn quantiles_as_numpy() {
        // numpy.quantile([1, 2, 4, 8], [0.5, 0.95])
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 8.0], 0.5), 3.0);
        assert!((quantile(&[1.0, 2.0, 4.0, 8.0], 0.95) - 7.4).abs() < 1e-12);
        assert_eq!(quantile(&[5.0], 0.95), 5.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    /// By hand: the values 1.00 to 1.20 in steps of 0.01 have the median 1.1 and the 95th percentile 1.19.
    #[test]
    fn a_spike_and_its_numbers() {
        let mut window = Window::default();
        for i in 0..21 {
            assert_eq!(window.push(1.0 + 0.01 * f64::from(i), LIMIT), None);
        }
        let scale = 0.09 / 1.645;
        // Just below and just above six deviations.
        assert_eq!(window.clone().push(1.1 + 5.9 * scale, LIMIT), None);
        let spike = window.push(1.1 + 6.1 * scale, LIMIT).unwrap();
        assert!((spike.usual - 1.1).abs() < 1e-12, "{spike:?}");
        assert!((spike.deviations - 6.1).abs() < 1e-9, "{spike:?}");
    }

    #[test]
    fn a_row_of_spikes_is_told_once_and_told_again_after_calm() {
        let mut window = Window::default();
        let mut told = Vec::new();
        for step in 0..200 {
            let x = if [100, 101, 102, 150].contains(&step) {
                8.0
            } else {
                2.0 + 0.01 * f64::from(step % 7)
            };
            if window.push(x, LIMIT).is_some() {
                told.push(step);
            }
        }
        assert_eq!(told, [100, 150]);
    }

    #[test]
    fn few_values_and_small_rises_are_no_spikes() {
        let mut window = Window::default();
        for _ in 0..ENOUGH - 1 {
            window.push(1.0, LIMIT);
        }
        assert_eq!(window.push(50.0, LIMIT), None);
        let mut tiny = Window::default();
        for _ in 0..50 {
            assert_eq!(tiny.push(0.01, LIMIT), None);
        }
        // Many deviations, yet nobody minds a loss of 0.1.
        assert_eq!(tiny.push(0.1, LIMIT), None);
        assert!(tiny.push(0.2, LIMIT).is_some());
    }
}
