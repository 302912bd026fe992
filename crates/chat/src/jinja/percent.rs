//! `"%s has %d" % (name, n)`: Python's printf-style formatting.

use std::fmt::Write as _;

use super::error::{Result, type_error, value_error};
use super::ops::{escape, undefined_error};
use super::python::float_repr;
use super::repr::write_repr;
use super::value::Value;

/// Formats; with `markup` the texts put in are escaped.
pub(crate) fn format(format: &str, args: &Value<'_>, markup: bool) -> Result<String> {
    let single = [*args];
    let (positional, mapping) = match args {
        Value::Tuple(items) => (&items[..], None),
        Value::Dict(dict) => (&single[..], Some(dict)),
        _ => (&single[..], None),
    };
    let mut used = 0;
    let mut by_name = false;
    let mut out = String::with_capacity(format.len() + 16);
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut key = None;
        if chars.next_if_eq(&'(').is_some() {
            let mut depth = 1;
            let mut name = String::new();
            for c in chars.by_ref() {
                depth += match c {
                    '(' => 1,
                    ')' => -1,
                    _ => 0,
                };
                if depth == 0 {
                    break;
                }
                name.push(c);
            }
            if depth != 0 {
                return Err(value_error("incomplete format key"));
            }
            key = Some(name);
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|c| "#0- +".contains(*c)) {
            match flag {
                '#' => spec.alternate = true,
                '0' => spec.zero = true,
                '-' => spec.left = true,
                ' ' => spec.space = true,
                _ => spec.plus = true,
            }
        }
        let mut next = |key: &Option<String>| -> Result<Value<'_>> {
            if let Some(key) = key {
                by_name = true;
                let dict = mapping.ok_or_else(|| type_error("format requires a mapping"))?;
                return dict.get_str(key).ok_or_else(|| value_error(format!("no key {key:?}")));
            }
            used += 1;
            positional
                .get(used - 1)
                .copied()
                .ok_or_else(|| type_error("not enough arguments for format string"))
        };
        if chars.next_if_eq(&'*').is_some() {
            let width = next(&None)?.as_int().ok_or_else(|| type_error("* wants int"))?;
            spec.left |= width < 0;
            spec.width = usize::try_from(width.abs()).unwrap_or(0);
        } else {
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                spec.width = spec.width * 10 + digit as usize - '0' as usize;
            }
        }
        if chars.next_if_eq(&'.').is_some() {
            let mut precision = 0;
            if chars.next_if_eq(&'*').is_some() {
                let found = next(&None)?.as_int().ok_or_else(|| type_error("* wants int"))?;
                precision = usize::try_from(found).unwrap_or(0);
            } else {
                while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                    precision = precision * 10 + digit as usize - '0' as usize;
                }
            }
            spec.precision = Some(precision);
        }
        if spec.width > 1 << 24 || spec.precision.is_some_and(|p| p > 1 << 16) {
            return Err(value_error("width or precision too big"));
        }
        while chars.next_if(|c| "hlL".contains(*c)).is_some() {}
        match chars.next() {
            None => return Err(value_error("incomplete format")),
            Some('%') if spec.width == 0 && spec.precision.is_none() => out.push('%'),
            Some(conversion) => {
                let value = next(&key)?;
                spec.write(conversion, &value, markup, &mut out)?;
            }
        }
    }
    let leftover = match args {
        Value::Tuple(items) => used < items.len(),
        // Whatever has items counts as a mapping, which may have more than the format uses.
        Value::Dict(_) | Value::List(_) | Value::Range(_) => false,
        value if value.is_undefined() => false,
        _ => used == 0 && !by_name,
    };
    if leftover {
        return Err(type_error("not all arguments converted during string formatting"));
    }
    Ok(out)
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the format")]
struct Spec {
    alternate: bool,
    zero: bool,
    left: bool,
    space: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

impl Spec {
    fn write(
        &self,
        conversion: char,
        value: &Value<'_>,
        markup: bool,
        out: &mut String,
    ) -> Result<()> {
        let text = |text: String| match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text,
        };
        let body = match conversion {
            's' => match value {
                Value::Markup(body) => text(body.to_string()),
                _ if markup => text(escape(&value.text())),
                _ => text(value.text().into_owned()),
            },
            'r' | 'a' => {
                let mut repr = String::new();
                write_repr(value, &mut repr);
                if conversion == 'a' {
                    repr = ascii(&repr);
                }
                text(if markup { escape(&repr) } else { repr })
            }
            'c' => match value {
                Value::Str(c) | Value::Markup(c) if c.chars().count() == 1 => c.to_string(),
                value => value
                    .as_int()
                    .and_then(|n| char::from_u32(u32::try_from(n).ok()?))
                    .ok_or_else(|| type_error("%c requires int or char"))?
                    .to_string(),
            },
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => return self.integer(conversion, value, out),
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => return self.float(conversion, value, out),
            _ => {
                return Err(value_error(format!("unsupported format character {conversion:?}")));
            }
        };
        self.pad("", &body, false, out);
        Ok(())
    }

    fn integer(&self, conversion: char, value: &Value<'_>, out: &mut String) -> Result<()> {
        let decimal = matches!(conversion, 'd' | 'i' | 'u');
        let n = match value {
            Value::Float(x) if decimal && x.is_finite() => x.trunc() as i128,
            value if value.is_undefined() => return Err(undefined_error(value)),
            value => value.as_int().ok_or_else(|| {
                let name = value.type_name().as_str();
                type_error(format!("%{conversion} format: a number is required, not {name}"))
            })?,
        };
        let magnitude = n.unsigned_abs();
        let (prefix, mut digits) = match conversion {
            'x' => ("0x", format!("{magnitude:x}")),
            'X' => ("0X", format!("{magnitude:X}")),
            'o' => ("0o", format!("{magnitude:o}")),
            _ => ("", magnitude.to_string()),
        };
        let missing = self.precision.unwrap_or(0).saturating_sub(digits.len());
        digits.insert_str(0, &"0".repeat(missing));
        let prefix = if self.alternate { prefix } else { "" };
        self.pad(&format!("{}{prefix}", self.sign(n < 0)), &digits, true, out);
        Ok(())
    }

    fn float(&self, conversion: char, value: &Value<'_>, out: &mut String) -> Result<()> {
        if value.is_undefined() {
            return Err(undefined_error(value));
        }
        let x = value.as_float().ok_or_else(|| {
            type_error(format!("must be real number, not {}", value.type_name().as_str()))
        })?;
        let body = float_text(x.abs(), conversion, self.precision, self.alternate);
        self.pad(self.sign(x.is_sign_negative() && !x.is_nan()), &body, x.is_finite(), out);
        Ok(())
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            _ => "",
        }
    }

    fn pad(&self, sign: &str, body: &str, numeric: bool, out: &mut String) {
        let fill = self.width.saturating_sub(sign.chars().count() + body.chars().count());
        let spaces = |n: usize, out: &mut String| (0..n).for_each(|_| out.push(' '));
        if self.left {
            out.push_str(sign);
            out.push_str(body);
            spaces(fill, out);
        } else if self.zero && numeric {
            out.push_str(sign);
            (0..fill).for_each(|_| out.push('0'));
            out.push_str(body);
        } else {
            spaces(fill, out);
            out.push_str(sign);
            out.push_str(body);
        }
    }
}

/// `repr` with every character outside ASCII escaped.
pub(crate) fn ascii(repr: &str) -> String {
    let mut out = String::new();
    for c in repr.chars() {
        let code = c as u32;
        let _ = match code {
            0..=0x7f => write!(out, "{c}"),
            0x80..=0xff => write!(out, "\\x{code:02x}"),
            0x100..=0xffff => write!(out, "\\u{code:04x}"),
            _ => write!(out, "\\U{code:08x}"),
        };
    }
    out
}

/// A non-negative float under the conversions `e`, `f`, `g` and their upper-case forms.
pub(crate) fn float_text(
    x: f64,
    conversion: char,
    precision: Option<usize>,
    alternate: bool,
) -> String {
    let precision = precision.unwrap_or(6);
    let text = if x.is_finite() {
        match conversion.to_ascii_lowercase() {
            'f' => format!("{x:.precision$}"),
            'e' => exponent(x, precision),
            _ => general(x, precision.max(1), alternate),
        }
    } else {
        float_repr(x)
    };
    if conversion.is_ascii_uppercase() { text.to_ascii_uppercase() } else { text }
}

/// `1.50e+07`
fn exponent(x: f64, precision: usize) -> String {
    let text = format!("{x:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn general(x: f64, precision: usize, alternate: bool) -> String {
    let scientific = exponent(x, precision - 1);
    let power: i32 =
        scientific.rsplit_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    let strip = |text: &str| {
        if alternate || !text.contains('.') {
            text.to_owned()
        } else {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    };
    if power < -4 || power >= precision as i32 {
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "+00"));
        return format!("{}e{exponent}", strip(mantissa));
    }
    let decimals = (precision as i32 - 1 - power).max(0) as usize;
    strip(&format!("{x:.decimals$}"))
}
