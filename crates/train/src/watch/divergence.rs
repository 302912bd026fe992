//! A loss that rises instead of falling.
//!
//! With `x` the losses and `β` = 0.98, the mean of about the last hundred:
//!
//! ```text
//! s_n = (1 - β) Σ β^(n-i) x_i / (1 - β^n)
//! v_n = Σ w_i² = (1 - β)(1 + β^n) / ((1 + β)(1 - β^n))      variance of s_n for noise of variance 1
//! σ²  = mean of (x_i - x_(i-1))² / 2 over the last hundred  noise without the trend
//! ```
//!
//! It diverges when `s_n` lies above its lowest value `s_k` by more than all three: a fifth of `s_k`, 0.1, and
//! `6 σ √(v_n + v_k)`, which chance does not reach. It is told once until the rise is down to half of that.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::exact::Exact;

const BETA: f64 = 0.98;
/// Differences that are remembered.
const WINDOW: usize = 100;
/// Losses that have to be there.
const ENOUGH: u64 = 10;
const RELATIVE: f64 = 0.2;
const ABSOLUTE: f64 = 0.1;
const DEVIATIONS: f64 = 6.0;

/// The smoothed loss and its lowest point.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Trend {
    count: u64,
    last: Exact,
    /// `(1 - β) Σ β^(n-i) x_i`
    sum: Exact,
    /// The lowest, its `v_k` and its step.
    lowest: Option<(Exact, Exact, u64)>,
    differences: VecDeque<Exact>,
    told: bool,
}

/// The smoothed loss is far above its lowest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rise {
    pub(super) smoothed: f64,
    pub(super) lowest: f64,
    pub(super) lowest_step: u64,
}

impl Trend {
    /// Adds the loss of a step.
    pub(super) fn push(&mut self, step: u64, loss: f64) -> Option<Rise> {
        if self.count > 0 {
            if self.differences.len() == WINDOW {
                self.differences.pop_front();
            }
            self.differences.push_back(Exact(loss - self.last.0));
        }
        self.count += 1;
        self.last = Exact(loss);
        self.sum = Exact(BETA * self.sum.0 + (1.0 - BETA) * loss);
        let decay = BETA.powi(self.count.min(100_000) as i32);
        let smoothed = self.sum.0 / (1.0 - decay);
        let variance = (1.0 - BETA) * (1.0 + decay) / ((1.0 + BETA) * (1.0 - decay));

        let lowest = *self.lowest.get_or_insert((Exact(smoothed), Exact(variance), step));
        let (Exact(low), Exact(low_variance), low_step) = lowest;
        if smoothed <= low {
            self.lowest = Some((Exact(smoothed), Exact(variance), step));
            self.told = false;
            return None;
        }
        let chance = DEVIATIONS * self.noise() * (variance + low_variance).sqrt();
        let limit = (RELATIVE * low).max(ABSOLUTE).max(chance);
        let rise = smoothed - low;
        if self.told {
            self.told = rise > limit / 2.0;
            return None;
        }
        self.told = self.count >= ENOUGH && rise > limit;
        self.told.then_some(Rise { smoothed, lowest: low, lowest_step: low_step })
    }

    fn noise(&self) -> f64 {
        let squares: f64 = self.differences.iter().map(|d| d.0 * d.0).sum();
        (squares / (2.0 * self.differences.len().max(1) as f64)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(losses: impl IntoIterator<Item = f64>) -> Vec<(u64, Rise)> {
        let mut trend = Trend::default();
        (1..).zip(losses).filter_map(|(step, loss)| Some((step, trend.push(step, loss)?))).collect()
    }

    /// By hand: the loss is 1 for 100 steps and then 2, so that after `j` steps of it
    /// `s = 1 + (1 - β^j) / (1 - β^(100 + j))`. The one difference of 1 is noise of σ = √(1 / 200), which moves
    /// `s` by less than the fifth of 1 that is the limit. It is passed between `j` = 9 and 10:
    /// (1 - 0.98^9) / (1 - 0.98^109) = 0.1871, (1 - 0.98^10) / (1 - 0.98^110) = 0.2052.
    #[test]
    fn a_step_upwards() {
        let rises = told((1..=200).map(|step| if step > 100 { 2.0 } else { 1.0 }));
        let [(110, rise)] = rises[..] else { panic!("{rises:?}") };
        assert!((rise.lowest - 1.0).abs() < 1e-12 && rise.lowest_step <= 100, "{rise:?}");
        assert!((rise.smoothed - 1.2052).abs() < 5e-5, "{rise:?}");
    }

    #[test]
    fn a_learning_rate_that_is_far_too_high_from_the_start() {
        let blown = [2.0, 5.0, 9.0, 11.0, 10.5, 10.8].into_iter().chain(std::iter::repeat(10.4));
        let rises = told(blown.take(60));
        assert_eq!(rises.len(), 1, "{rises:?}");
        assert!(rises[0].0 <= 30, "{rises:?}");
        assert_eq!(rises[0].1.lowest, 2.0);
    }

    #[test]
    fn it_is_told_again_after_a_recovery() {
        let phase = |level: f64, n: usize| std::iter::repeat_n(level, n);
        let losses =
            phase(1.0, 100).chain(phase(3.0, 50)).chain(phase(1.0, 400)).chain(phase(3.0, 50));
        let steps: Vec<u64> = told(losses).into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps.len(), 2, "{steps:?}");
        assert!(steps[0] > 100 && steps[0] < 150 && steps[1] > 550, "{steps:?}");
    }

    #[test]
    fn a_falling_loss_is_fine() {
        assert!(told((0..3000).map(|i| 0.5 + 8.0 * (-0.01 * f64::from(i)).exp())).is_empty());
    }
}
