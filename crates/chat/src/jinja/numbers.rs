//! `int(...)`, `float(...)` and `round(...)` of Python.

use super::python::{digit_value, is_space};

/// `int(text, base)`; `None` where Python raises.
pub(crate) fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim_matches(is_space);
    let (negative, text) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let lower = text.to_ascii_lowercase();
    let (digits, base) = match (base, lower.get(..2)) {
        (16 | 0, Some("0x")) => (&text[2..], 16),
        (8 | 0, Some("0o")) => (&text[2..], 8),
        (2 | 0, Some("0b")) => (&text[2..], 2),
        (0, _) => (text, 10),
        _ => (text, base),
    };
    let digits =
        if digits.len() < text.len() { digits.strip_prefix('_').unwrap_or(digits) } else { digits };
    let mut value: i128 = 0;
    let mut previous_underscore = true;
    for c in digits.chars() {
        if c == '_' {
            if previous_underscore {
                return None;
            }
            previous_underscore = true;
            continue;
        }
        let digit = c.to_digit(36).or_else(|| digit_value(c)).filter(|&d| d < base)?;
        value = value.checked_mul(i128::from(base))?.checked_add(i128::from(digit))?;
        previous_underscore = false;
    }
    if previous_underscore {
        return None;
    }
    Some(if negative { -value } else { value })
}

/// `float(text)`; `None` where Python raises.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    let lower = text.to_ascii_lowercase();
    match lower.trim_start_matches(['+', '-']) {
        "inf" | "infinity" | "nan" => return lower.parse().ok(),
        _ => {}
    }
    let bytes = text.as_bytes();
    let mut plain = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        match c {
            '_' => {
                let digit = |at: Option<usize>| {
                    at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit)
                };
                if !(digit(at.checked_sub(1)) && digit(Some(at + 1))) {
                    return None;
                }
            }
            '0'..='9' | '.' | 'e' | 'E' | '+' | '-' => plain.push(c),
            c => plain.push(char::from_digit(digit_value(c)?, 10)?),
        }
    }
    plain.parse().ok()
}

/// `round(x, digits)`: to the nearest, and of the exact decimal value of `x`.
pub(crate) fn round(x: f64, digits: i128) -> f64 {
    if !x.is_finite() || digits > 300 {
        return x;
    }
    if digits >= 0 {
        // Formatting rounds the exact value, ties to even, as Python's round does.
        return format!("{x:.*}", digits as usize).parse().unwrap_or(x);
    }
    let unit = 10f64.powi(-(digits.max(-400) as i32));
    if unit.is_infinite() { 0.0 } else { (x / unit).round_ties_even() * unit }
}
