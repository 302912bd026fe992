//! From numbers to places, and where to put ticks.

/// A tick: where, and what to write there.
pub(super) type Tick = (f64, String);

/// Numbers from `low` to `high` on a line from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) log: bool,
}

impl Scale {
    /// Around the values, with a margin as a share of their range; `None` without values that can be shown.
    pub(super) fn around(
        values: impl Iterator<Item = f64>,
        margin: f64,
        log: bool,
    ) -> Option<Self> {
        let shown = |value: &f64| value.is_finite() && (!log || *value > 0.0);
        let range = values.filter(shown).fold(None, |range, value| {
            let (low, high) = range.unwrap_or((value, value));
            Some((value.min(low), value.max(high)))
        });
        let (low, high) = range?;
        if log {
            // A constant is in the middle of half a decade.
            let ends = if high / low < 1.01 { (low / 1.8, high * 1.8) } else { (low, high) };
            let grow = (ends.1 / ends.0).powf(margin);
            return Some(Self { low: ends.0 / grow, high: ends.1 * grow, log });
        }
        let half = if high > low { 0.0 } else { low.abs().max(1e-3) * 0.5 };
        let room = margin * (high - low) + half;
        // Values that cannot be negative have no axis that is.
        let floor = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
        Some(Self { low: (low - room).max(floor), high: high + room, log })
    }

    /// From 0 at `low` to 1 at `high`.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// About `wanted` ticks at round numbers.
    pub(super) fn ticks(&self, wanted: u32) -> Vec<Tick> {
        if self.log && self.high / self.low > 10.0 {
            self.decades(wanted)
        } else {
            self.linear((self.high - self.low) / f64::from(wanted.max(1)))
        }
    }

    /// The same at whole numbers, for what is counted.
    pub(super) fn whole_ticks(&self, wanted: u32) -> Vec<Tick> {
        self.linear(((self.high - self.low) / f64::from(wanted.max(1))).max(1.0))
    }

    /// Multiples of the number that is nearest to `rough` among 1, 2 and 5 times the powers of ten.
    fn linear(&self, rough: f64) -> Vec<Tick> {
        let power = rough.log10().floor() as i32;
        let (digit, power) = match rough / 10f64.powi(power) {
            share if share < 1.5 => (1, power),
            share if share < 3.5 => (2, power),
            share if share < 7.5 => (5, power),
            _ => (1, power + 1),
        };
        let step = f64::from(digit) * 10f64.powi(power);
        // A hair of slack, so that an end that is a multiple has its tick.
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let (low, high) = (first * i64::from(digit), last * i64::from(digit));
        let label = Labels::new(low.abs().max(high.abs()), power);
        (first..=last).map(|n| (n as f64 * step, label.write(n * i64::from(digit)))).collect()
    }

    /// Powers of ten, or 1, 2 and 5 of each where there is room.
    fn decades(&self, wanted: u32) -> Vec<Tick> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let decades = self.high.log10() - self.low.log10();
        let digits: &[i64] =
            if decades * 3.0 <= f64::from(wanted) + 1.0 { &[1, 2, 5] } else { &[1] };
        let every = (decades / f64::from(wanted.max(1))).ceil().max(1.0) as usize;
        (first..=last)
            .step_by(every)
            .flat_map(|power| digits.iter().map(move |&digit| (digit, power)))
            .map(|(digit, power)| {
                let value = digit as f64 * 10f64.powi(power);
                (value, Labels::new(digit, power).write(digit))
            })
            .filter(|(value, _)| (self.low..=self.high).contains(value))
            .collect()
    }
}

/// How the multiples `n · 10^power` of one axis are written: all alike, and exactly.
#[derive(Debug, Clone, Copy)]
enum Labels {
    /// With so many places after the point, divided by a unit that is a power of ten.
    Fixed { power: i32, unit: (i32, &'static str) },
    /// `1.5e-5`
    Scientific { power: i32 },
}

impl Labels {
    /// For multiples up to `most`.
    fn new(most: i64, power: i32) -> Self {
        let largest = if most == 0 { power } else { most.ilog10() as i32 + power };
        let unit = match largest {
            -3..4 => (0, ""),
            4..6 => (3, "k"),
            6..9 => (6, "M"),
            9..12 => (9, "G"),
            12..15 => (12, "T"),
            _ => return Self::Scientific { power },
        };
        Self::Fixed { power, unit }
    }

    fn write(self, n: i64) -> String {
        match self {
            Self::Fixed { power, unit: (unit, name) } => {
                let power = power - unit;
                if n == 0 {
                    "0".into()
                } else if power >= 0 {
                    format!("{}{name}", n * 10i64.pow(power as u32))
                } else {
                    let places = -power as usize;
                    let text = format!("{:.places$}", n as f64 / 10f64.powi(-power));
                    format!("{text}{name}")
                }
            }
            Self::Scientific { power } => scientific(n, power),
        }
    }
}

fn scientific(n: i64, power: i32) -> String {
    if n == 0 {
        return "0".into();
    }
    let digits = n.unsigned_abs().to_string();
    let exponent = digits.len() as i32 - 1 + power;
    let (first, rest) = digits.split_at(1);
    let rest = rest.trim_end_matches('0');
    let (sign, point) = (if n < 0 { "-" } else { "" }, if rest.is_empty() { "" } else { "." });
    format!("{sign}{first}{point}{rest}e{exponent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, log: bool, wanted: u32) -> Vec<String> {
        let ticks = Scale { low, high, log }.ticks(wanted);
        ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn round_numbers_in_every_range() {
        assert_eq!(labels(0.0, 10.0, false, 5), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(1.93, 2.61, false, 5), ["2.0", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6"]);
        assert_eq!(labels(0.0, 2e-4, false, 4), ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]);
        assert_eq!(labels(0.0, 1450.0, false, 4), ["0", "500", "1000"]);
        assert_eq!(labels(0.0, 30_000.0, false, 3), ["0", "10k", "20k", "30k"]);
        assert_eq!(
            labels(10_000.0, 12_000.0, false, 4),
            ["10.0k", "10.5k", "11.0k", "11.5k", "12.0k"]
        );
        assert_eq!(labels(0.0, 2.5e6, false, 5), ["0", "0.5M", "1.0M", "1.5M", "2.0M", "2.5M"]);
        assert_eq!(labels(-1.5, 0.5, false, 4), ["-1.5", "-1.0", "-0.5", "0", "0.5"]);
        assert_eq!(labels(0.001, 0.005, false, 4), ["0.001", "0.002", "0.003", "0.004", "0.005"]);
    }

    #[test]
    fn what_is_counted_has_whole_ticks() {
        let ticks = Scale { low: 1.0, high: 3.0, log: false }.whole_ticks(7);
        assert_eq!(ticks.into_iter().map(|tick| tick.1).collect::<Vec<_>>(), ["1", "2", "3"]);
    }

    #[test]
    fn decades_and_parts_of_them() {
        assert_eq!(labels(0.5, 20.0, true, 6), ["0.5", "1", "2", "5", "10", "20"]);
        assert_eq!(labels(1e-6, 1e3, true, 5), ["1e-6", "1e-4", "0.01", "1", "100"]);
        assert_eq!(labels(2.0, 3.0, true, 4), ["2.0", "2.2", "2.4", "2.6", "2.8", "3.0"]);
    }

    #[test]
    fn ticks_lie_inside_and_their_labels_are_their_values() {
        for (low, high) in
            [(0.37, 11.2), (2.1e-7, 3.3e-5), (4.4e3, 9.9e7), (-3.0, 8.5), (0.1, 0.11)]
        {
            for wanted in [4, 5, 8] {
                let scale = Scale { low, high, log: false };
                let ticks = scale.ticks(wanted);
                assert!(
                    ticks.len() >= 3 && ticks.len() <= wanted as usize * 3 / 2 + 2,
                    "{ticks:?}"
                );
                for (value, label) in ticks {
                    assert!((-1e-6..=1.000_001).contains(&scale.place(value)), "{value}");
                    let number = label.trim_end_matches(['k', 'M', 'G']);
                    let unit = match &label[number.len()..] {
                        "k" => 1e3,
                        "M" => 1e6,
                        "G" => 1e9,
                        _ => 1.0,
                    };
                    let written = number.parse::<f64>().unwrap() * unit;
                    assert!((written - value).abs() <= 1e-9 * (high - low), "{label} {value}");
                }
            }
        }
    }

    #[test]
    fn ranges_have_an_extent() {
        let around = |values: &[f64], log| Scale::around(values.iter().copied(), 0.05, log);
        let constant = around(&[3.0, 3.0], false).unwrap();
        assert!(constant.low < 3.0 && constant.high > 3.0 && constant.place(3.0) == 0.5);
        let zero = around(&[0.0], false).unwrap();
        assert!(zero.low == 0.0 && zero.high > 0.0);
        let log = around(&[0.1, 0.0, -1.0, 10.0, f64::NAN], true).unwrap();
        assert!(log.low > 0.0 && (log.place(1.0) - 0.5).abs() < 1e-12);
        assert!(around(&[f64::NAN, f64::INFINITY], false).is_none());
        assert!(around(&[-1.0, 0.0], true).is_none());
    }
}
