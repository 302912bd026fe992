//! Both answers of pairs become less likely while their margin grows: likelihood displacement (Razin et al. 2024,
//! arXiv:2410.08847). The loss falls all the same, so nothing else shows it.
//!
//! Over the last `n` steps `x`, at most a hundred, with `y` the margin or a log-probability:
//!
//! ```text
//! b = Σ (x - x̄)(y - ȳ) / Σ (x - x̄)²             slope of the line a + b x through the points
//! c = b (x_n - x_1)                            how far it goes
//! e = (x_n - x_1) √(Σ (y - a - b x)² / ((n - 2) Σ (x - x̄)²))      the standard error of c
//! ```
//!
//! It goes up or down when `|c|` exceeds both `4 e`, which chance does not reach, and 2 % of `|ȳ|`. Displacement is a
//! margin that goes up and two log-probabilities that go down. It is told once until one of the three is below half
//! of that; then it is looked for anew from there on.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::exact::Exact;

/// Steps that are remembered.
const WINDOW: usize = 100;
/// Steps that have to be there.
const ENOUGH: usize = 30;
const ERRORS: f64 = 4.0;
const RELATIVE: f64 = 0.02;
/// Which way margin, chosen and rejected go.
const SIGNS: [f64; 3] = [1.0, -1.0, -1.0];

/// The last steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Displacement {
    /// The step; its margin, its log-probabilities of the chosen and of the rejected answers.
    steps: VecDeque<(u64, [Exact; 3])>,
    told: bool,
}

/// Where the lines through margins and log-probabilities begin and end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Displaced {
    pub(super) steps: u64,
    pub(super) margins: [f64; 2],
    pub(super) chosen: [f64; 2],
    pub(super) rejected: [f64; 2],
}

impl Displacement {
    /// Adds margin, chosen and rejected of a step. Values that are not finite change nothing.
    pub(super) fn push(&mut self, step: u64, values: [f64; 3]) -> Option<Displaced> {
        if !values.iter().all(|value| value.is_finite()) {
            return None;
        }
        if self.steps.len() == WINDOW {
            self.steps.pop_front();
        }
        self.steps.push_back((step, values.map(Exact)));
        if self.steps.len() < ENOUGH {
            return None;
        }
        let lines = [0, 1, 2].map(|which| self.line(which));
        let displaced = |share: f64| {
            lines.iter().zip(SIGNS).all(|(line, sign)| {
                let least = (ERRORS * line.error).max(RELATIVE * line.mean.abs());
                sign * line.change() > share * least
            })
        };
        if self.told {
            if !displaced(0.5) {
                (self.told, self.steps) = (false, VecDeque::new());
            }
            return None;
        }
        self.told = displaced(1.0);
        let first = self.steps.front()?.0;
        let [margins, chosen, rejected] = lines.map(|line| line.ends);
        self.told.then_some(Displaced { steps: step - first + 1, margins, chosen, rejected })
    }

    fn line(&self, which: usize) -> Line {
        let points = || self.steps.iter().map(|(x, y)| (*x as f64, y[which].0));
        let count = self.steps.len() as f64;
        let (sum_x, sum_y) = points().fold((0.0, 0.0), |(xs, ys), (x, y)| (xs + x, ys + y));
        let (mean_x, mean) = (sum_x / count, sum_y / count);
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            points().map(|(x, y)| of(x - mean_x, y - mean)).sum()
        };
        let squares = sum(&|x, _| x * x).max(f64::MIN_POSITIVE);
        let slope = sum(&|x, y| x * y) / squares;
        let rest = sum(&|x, y| (y - slope * x) * (y - slope * x));
        let at = |end: Option<&(u64, [Exact; 3])>| end.map_or(mean_x, |step| step.0 as f64);
        let (first, last) = (at(self.steps.front()), at(self.steps.back()));
        Line {
            ends: [first, last].map(|x| mean + slope * (x - mean_x)),
            mean,
            error: (last - first) * (rest / ((count - 2.0) * squares)).sqrt(),
        }
    }
}

/// A line through points.
#[derive(Debug)]
struct Line {
    ends: [f64; 2],
    mean: f64,
    /// The standard error of how far it goes.
    error: f64,
}

impl Line {
    fn change(&self) -> f64 {
        self.ends[1] - self.ends[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(values: impl IntoIterator<Item = [f64; 3]>) -> Vec<(u64, Displaced)> {
        let mut found = Displacement::default();
        let steps = (1..).zip(values);
        steps.filter_map(|(step, values)| Some((step, found.push(step, values)?))).collect()
    }

    /// By hand: without noise the lines go through the points, so with 30 steps, from 1 to 30, the margin goes from
    /// 0.01 to 0.3, the chosen from -200.5 to -215 and the rejected from -221 to -250, far more than 2 %.
    #[test]
    fn the_numbers_of_straight_lines() {
        let values = |x: u32| {
            let x = f64::from(x);
            [0.01 * x, -200.0 - 0.5 * x, -220.0 - x]
        };
        let found = told((1..=200).map(values));
        let [(30, Displaced { steps: 30, margins, chosen, rejected })] = found[..] else {
            panic!("{found:?}")
        };
        for (found, expected) in
            [(margins, [0.01, 0.3]), (chosen, [-200.5, -215.0]), (rejected, [-221.0, -250.0])]
        {
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9, "{found} {expected}");
            }
        }
    }

    /// By hand: over the points (1, 1), (2, 3), (3, 2) the slope is ((-1)(-1) + 1 · 0) / 2 = 1/2, the rests are
    /// -1/2, 1, -1/2, their squares 3/2; the error of the change 2 b = 1 is 2 √(3/2 / (1 · 2)) = √3.
    #[test]
    fn a_line_and_its_error() {
        let mut three = Displacement::default();
        for (step, y) in [(1, 1.0), (2, 3.0), (3, 2.0)] {
            three.push(step, [y, 0.0, 0.0]);
        }
        let line = three.line(0);
        assert!((line.ends[0] - 1.5).abs() < 1e-12 && (line.change() - 1.0).abs() < 1e-12);
        assert!((line.error - 3f64.sqrt()).abs() < 1e-12, "{line:?}");
    }

    #[test]
    fn one_that_rises_or_stands_is_no_displacement() {
        let with = |slopes: [f64; 3]| {
            let value = move |x: u32, i: usize| [0.0, -200.0, -210.0][i] + slopes[i] * f64::from(x);
            told((1..=200).map(move |x| [0, 1, 2].map(|i| value(x, i))))
        };
        assert_eq!(with([0.01, -0.5, -1.0]).len(), 1);
        for slopes in [[0.01, 0.5, -1.0], [-0.01, -0.5, -1.0], [0.01, 0.0, -1.0], [0.0; 3]] {
            assert!(with(slopes).is_empty(), "{slopes:?}");
        }
        // 0.6 nats of 200 in a hundred steps are not worth a word.
        assert!(with([0.01, -0.006, -1.0]).is_empty());
    }

    #[test]
    fn a_second_stretch_is_told_again() {
        let fall = |from: u32, to: u32| (from..to).map(|x| f64::from(x) * 0.5);
        let depth: Vec<f64> = fall(0, 150)
            .chain(std::iter::repeat_n(75.0, 200))
            .chain(fall(150, 300))
            .chain([f64::NAN])
            .collect();
        let found = told(depth.into_iter().map(|d| [0.1 * d, -200.0 - d, -210.0 - 2.0 * d]));
        let steps: Vec<u64> = found.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps.len(), 2, "{found:?}");
        assert!(steps[0] == 30 && (351..400).contains(&steps[1]), "{steps:?}");
    }
}
