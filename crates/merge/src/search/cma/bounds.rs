//! A box without penalties: the search runs over all real numbers, and this map takes each into
//! the bounds. Only ranks of scores count, so nothing depends on their scale, as it would with a
//! penalty.
//!
//! The map is pycma's `BoundTransform` (linear and quadratic, periodic): with margins
//! `a_l = min((u - l)/2, max(1, |l|)/20)` and `a_u` likewise,
//!
//! ```text
//! y = x                                 l + a_l <= x <= u - a_u
//! y = l + (x - (l - a_l))² / (4 a_l)    l - a_l <= x <= l + a_l
//! y = u - (x - (u + a_u))² / (4 a_u)    u - a_u <= x <= u + a_u
//! ```
//!
//! and beyond `[l - a_l, u + a_u]` mirrored at the ends, with period `2 (u - l + a_l + a_u)`. It has a
//! continuous slope, is the identity over 90 % of a unit range, and reaches the bounds themselves.

use serde::{Deserialize, Serialize};

/// The lowest and the highest value of one number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Bounds {
    fn margins(self) -> (f64, f64) {
        let half = (self.high - self.low) / 2.0;
        (half.min(self.low.abs().max(1.0) / 20.0), half.min(self.high.abs().max(1.0) / 20.0))
    }

    /// The value in the bounds that `x` stands for.
    pub(crate) fn inside(self, x: f64) -> f64 {
        let Self { low, high } = self;
        let (a_l, a_u) = self.margins();
        let (first, last) = (low - a_l, high + a_u);
        let mut x = x;
        if x < first || x > last {
            let way = (x - first).rem_euclid(2.0 * (last - first));
            x = first + way.min(2.0 * (last - first) - way);
        }
        let y = if x < low + a_l {
            low + (x - first).powi(2) / (4.0 * a_l)
        } else if x > high - a_u {
            high - (x - last).powi(2) / (4.0 * a_u)
        } else {
            x
        };
        y.clamp(low, high)
    }

    /// The x in `[l - a_l, u + a_u]` that stands for `y`, a value in the bounds.
    pub(crate) fn outside(self, y: f64) -> f64 {
        let Self { low, high } = self;
        let (a_l, a_u) = self.margins();
        if y < low + a_l {
            low - a_l + 2.0 * (a_l * (y - low)).sqrt()
        } else if y > high - a_u {
            high + a_u - 2.0 * (a_u * (high - y)).sqrt()
        } else {
            y
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand_and_back() {
        let unit = Bounds { low: 0.0, high: 1.0 };
        for (x, y) in [(-0.05, 0.0), (0.0, 0.0125), (0.05, 0.05), (0.5, 0.5), (1.05, 1.0)] {
            assert!((unit.inside(x) - y).abs() < 1e-15, "{x}");
            assert!((unit.outside(y) - x).abs() < 1e-8, "{y}");
        }
        // Mirrored at -0.05 and at 1.05; one period is 2.2.
        for (x, same) in [(-0.6, 0.5), (1.6, 0.5), (2.7, 0.5), (-1.7, 0.5), (-0.15, 0.05)] {
            assert!((unit.inside(x) - unit.inside(same)).abs() < 1e-12, "{x}");
        }
    }
}
