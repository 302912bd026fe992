//! Numbers as people read them.

/// Three significant digits.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    if !(1e-4..1e5).contains(&size) {
        return format!("{value:.1e}");
    }
    let places = (2 - size.log10().floor() as i32).max(0) as usize;
    format!("{value:.places$}")
}

/// `1 tensor`, `2 tensors`.
pub(super) fn several(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A cosine: two digits behind the point, more where it is close to 1.
pub(super) fn cosine(value: f64) -> String {
    let left = 1.0 - value.abs();
    let places = if (1e-12..0.005).contains(&left) { 5 } else { 2 };
    format!("{value:.places$}")
}

/// A share as percent.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.1 {
        "< 0.1 %".to_owned()
    } else if percent < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// A number of elements.
pub(super) fn count(n: u64) -> String {
    let (by, unit) = match n {
        0..10_000 => return n.to_string(),
        10_000..1_000_000 => (1e3, "thousand"),
        1_000_000..1_000_000_000 => (1e6, "million"),
        _ => (1e9, "billion"),
    };
    format!("{} {unit}", short(n as f64 / by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        assert_eq!(
            ["0.0123", "12.3", "123", "0", "1.0e-6"],
            [0.01234, 12.34, 123.4, 0.0, 1e-6].map(short)[..]
        );
        assert_eq!(
            ["0.51", "0.99999", "-0.20", "-1.00"],
            [0.512, 0.999_99, -0.2, -1.0].map(cosine)[..]
        );
        assert_eq!(
            ["0.0 %", "< 0.1 %", "3.2 %", "45 %"],
            [0.0, 1e-5, 0.032, 0.451].map(percent)[..]
        );
        assert_eq!(
            ["513", "20.0 thousand", "1.24 billion"],
            [513, 20_000, 1_235_814_400].map(count)[..]
        );
    }
}
