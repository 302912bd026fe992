//! Numbers as people read them.

/// Four significant digits: `2.314`, `12.31k`, `7.242M`.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "NaN".into() } else { "∞".into() };
    }
    let size = value.abs();
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let fits = |(unit, _): &(f64, &str)| size >= *unit && size >= 1e4;
    let (unit, name) = units.into_iter().find(fits).unwrap_or((1.0, ""));
    if size < 1e-3 && size > 0.0 {
        return format!("{value:.2e}");
    }
    let scaled = value / unit;
    let before = if scaled.abs() >= 1.0 { scaled.abs().log10() as usize + 1 } else { 1 };
    let text = format!("{scaled:.*}", 4usize.saturating_sub(before));
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{name}")
}

/// `12.4 %`
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// `3.2 GiB`
pub(crate) fn bytes(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// `4.2 s`, `3 min 12 s`, `1 h 2 min`, `2 d 3 h`
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3_600 % 24),
    }
}

/// `2026-11-27 16:05 UTC`, of seconds since 1970.
pub(crate) fn time(seconds: u64) -> String {
    let (year, month, day) = date((seconds / 86_400) as i64);
    let (hour, minute) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// The Gregorian date of a day, counted from 1970-01-01. Years begin in March, so that the day which some have
/// is the last.
fn date(days: i64) -> (i64, i64, i64) {
    let since = days + 719_468; // from 0000-03-01
    let (era, day) = (since.div_euclid(146_097), since.rem_euclid(146_097)); // of 400 years
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + 400 * era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let cases = [
            (0.0, "0"),
            (2.3141, "2.314"),
            (0.5, "0.5"),
            (973.26, "973.3"),
            (7_473.0, "7473"),
            (12_310.0, "12.31k"),
            (7_241_732.0, "7.242M"),
            (2e-5, "2.00e-5"),
            (-1.25, "-1.25"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "∞"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(percent(0.4061), "40.6 %");
        assert_eq!((bytes(512), bytes(3 << 30)), ("512 B".into(), "3.0 GiB".into()));
    }

    #[test]
    fn times() {
        assert_eq!(duration(4.21), "4.2 s");
        assert_eq!(duration(192.0), "3 min 12 s");
        assert_eq!(duration(3_725.0), "1 h 2 min");
        assert_eq!(duration(183_600.0), "2 d 3 h");
        assert_eq!(time(0), "1970-01-01 00:00 UTC");
        // `date -u -d @951782399` and the second after it: 2000 is a leap year.
        assert_eq!(time(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(time(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(time(1_795_795_500), "2026-11-27 16:05 UTC");
        assert_eq!(time(4_107_542_400), "2100-03-01 00:00 UTC");
    }
}
