//! A share with its interval (Wilson, *Probable Inference, the Law of Succession, and Statistical Inference*, 1927).
//!
//! Of `n` trials `k` succeeded, p = k / n, z = 1.96 for 95 %:
//!
//! ```text
//! (p + z²/2n ± z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n)
//! ```
//!
//! It stays between 0 and 1 and is of use for small `n`, where p ± z √(p (1 - p) / n) is not. Ties are half a success;
//! they vary less than wins and losses, so with ties the interval is rather too wide.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The place of 97.5 % in a normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A share from 0 to 1, and the ends of its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// What was found.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Share {
    /// Of so many successes, a tie counted as half of one; `None` without trials.
    ///
    /// ```
    /// use posttrain_train::reward::Share;
    /// let share = Share::wilson(8.0, 10).unwrap();
    /// assert_eq!(share.to_string(), "80.0 % (49.0 to 94.3)");
    /// ```
    pub fn wilson(successes: f64, trials: usize) -> Option<Self> {
        if trials == 0 {
            return None;
        }
        let n = trials as f64;
        let (p, z2) = (successes / n, Z * Z);
        let centre = p + z2 / (2.0 * n);
        let around = Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        let whole = 1.0 + z2 / n;
        let (low, high) = ((centre - around) / whole, (centre + around) / whole);
        Some(Self { value: p, low: low.clamp(0.0, p), high: high.clamp(p, 1.0) })
    }

    /// The share of the other outcome.
    #[must_use]
    pub fn inverse(self) -> Self {
        Self { value: 1.0 - self.value, low: 1.0 - self.high, high: 1.0 - self.low }
    }
}

/// `72.3 % (69.7 to 74.7)`
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, low, high } = self;
        write!(f, "{:.1} % ({:.1} to {:.1})", 100.0 * value, 100.0 * low, 100.0 * high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand for p = 1/2: the centre is 1/2, the half width z √(1/4n + z²/4n²) / (1 + z²/n) = z / (2 √(n + z²)).
    /// For k = 0 the lower end is 0 and the upper z² / (n + z²).
    #[test]
    fn half_and_none() {
        let half = Share::wilson(50.0, 100).unwrap();
        let width = Z / (2.0 * (100.0 + Z * Z).sqrt());
        assert!((half.low - (0.5 - width)).abs() < 1e-15, "{half:?}");
        assert!((half.high - (0.5 + width)).abs() < 1e-15, "{half:?}");
        let none = Share::wilson(0.0, 4).unwrap();
        assert!(none.low == 0.0 && (none.high - Z * Z / (4.0 + Z * Z)).abs() < 1e-15, "{none:?}");
        assert_eq!(none.inverse().low, 1.0 - none.high);
        assert_eq!(Share::wilson(4.0, 4).unwrap().high, 1.0);
        assert_eq!(Share::wilson(0.0, 0), None);
    }
}
