//! Every combination of some values of each number.

use super::space::{Domain, Point, Space};
use crate::Error;

/// The most points of a grid: each is a merge and an evaluation.
pub const MAX_POINTS: u128 = 100_000;

/// The cartesian product of the values of each number, the last number changing fastest.
///
/// A range has `levels` values with equal steps (of the value, or of the logarithm), its ends among
/// them; whole numbers at most so many, and choices all of theirs.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    levels: Vec<Vec<f64>>,
}

impl Grid {
    /// A grid of `levels` values per range, at least 2.
    ///
    /// # Errors
    /// [`Error::Value`] for fewer levels, and for more than [`MAX_POINTS`] points.
    pub fn new(space: &Space, levels: usize) -> Result<Self, Error> {
        if levels < 2 {
            return Err(Error::value("levels", levels, "at least 2, the ends of a range"));
        }
        let counts = space.numbers().iter().map(|number| count(number.domain(), levels));
        let points = counts.clone().try_fold(1u128, u128::checked_mul);
        if points.is_none_or(|points| points > MAX_POINTS) {
            let each = counts.map(|count| count.to_string()).collect::<Vec<_>>().join(" × ");
            let found = match points {
                Some(points) => format!("{each} = {points} points"),
                None => format!("{each} points, more than {}", u128::MAX),
            };
            return Err(Error::value("grid", found, format!("at most {MAX_POINTS} points")));
        }
        Ok(Self { levels: space.numbers().iter().map(|n| values(n.domain(), levels)).collect() })
    }

    /// How many points it has.
    pub fn len(&self) -> usize {
        self.levels.iter().map(Vec::len).product()
    }

    /// Never: each number has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All points, in order.
    pub fn points(&self) -> impl Iterator<Item = Point> + '_ {
        (0..self.len()).map(|index| {
            let mut rest = index;
            let mut point: Point = self
                .levels
                .iter()
                .rev()
                .map(|values| {
                    let value = values[rest % values.len()];
                    rest /= values.len();
                    value
                })
                .collect();
            point.reverse();
            point
        })
    }
}

fn count(domain: &Domain, levels: usize) -> u128 {
    match domain {
        Domain::Real(..) | Domain::Log(..) => levels as u128,
        Domain::Integer(low, high) => {
            (i128::from(*high) - i128::from(*low) + 1).unsigned_abs().min(levels as u128)
        }
        Domain::Choices(values) => values.len() as u128,
    }
}

fn values(domain: &Domain, levels: usize) -> Vec<f64> {
    let share = |i: usize, levels: usize| i as f64 / (levels - 1) as f64;
    match domain {
        // Weighted ends, so that they are reached with every bit.
        Domain::Real(low, high) => (0..levels)
            .map(|i| share(i, levels))
            .map(|t| ((1.0 - t) * low + t * high).clamp(*low, *high))
            .collect(),
        Domain::Log(low, high) => (0..levels)
            .map(|i| match i {
                0 => *low,
                i if i == levels - 1 => *high,
                i => (low.ln() + share(i, levels) * (high / low).ln()).exp().clamp(*low, *high),
            })
            .collect(),
        Domain::Integer(low, high) => {
            let count = count(domain, levels) as i128;
            let (low, width) = (i128::from(*low), i128::from(*high) - i128::from(*low));
            // Rounded to the nearest; they differ, as there are no more than whole numbers.
            (0..count)
                .map(|i| {
                    if count == 1 {
                        low
                    } else {
                        low + (2 * i * width + count - 1) / (2 * (count - 1))
                    }
                })
                .map(|value| value as f64)
                .collect()
        }
        Domain::Choices(values) => values.clone(),
    }
}
