//! `str.format` and its format specifications.

use bumpalo::Bump;

use crate::jinja::access;
use crate::jinja::args::Args;
use crate::jinja::error::{Result, value_error};
use crate::jinja::ops::{escape, escaped};
use crate::jinja::percent::{ascii, float_text};
use crate::jinja::python::float_repr;
use crate::jinja::repr::write_repr;
use crate::jinja::value::Value;

/// `format.format(*args)`; with `markup` the texts put in are escaped.
pub(super) fn format<'a>(
    arena: &'a Bump,
    format: &str,
    args: Args<'a>,
    markup: bool,
) -> Result<String> {
    let mut formatter = Formatter { arena, args, markup, next: 0, manual: None };
    formatter.expand(format, 2)
}

struct Formatter<'a> {
    arena: &'a Bump,
    args: Args<'a>,
    markup: bool,
    /// The next automatic field number.
    next: usize,
    /// Whether fields are numbered by hand, once one is numbered at all.
    manual: Option<bool>,
}

impl<'a> Formatter<'a> {
    fn expand(&mut self, format: &str, depth: usize) -> Result<String> {
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(value_error("single '}' encountered in format string"));
            }
            let mut open = 1;
            let end = rest.find(|c| {
                open += i32::from(c == '{') - i32::from(c == '}');
                open == 0
            });
            let end = end.ok_or_else(|| value_error("expected '}' before end of string"))?;
            if depth == 0 {
                return Err(value_error("max string recursion exceeded"));
            }
            self.field(&rest[..end], depth - 1, &mut out)?;
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    /// `name!conversion:spec`
    fn field(&mut self, field: &str, depth: usize, out: &mut String) -> Result<()> {
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = match name.split_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (name, None),
        };
        let value = self.value(name)?;
        let value = match conversion {
            None => value,
            Some("s") => Value::Str(value.to_str(self.arena)),
            Some(conversion @ ("r" | "a")) => {
                let mut repr = String::new();
                write_repr(&value, &mut repr);
                Value::string(self.arena, if conversion == "a" { ascii(&repr) } else { repr })
            }
            Some(other) => {
                return Err(value_error(format!("unknown conversion specifier {other:?}")));
            }
        };
        let spec = self.expand(spec, depth)?;
        let text = match &value {
            Value::Markup(_) if spec.is_empty() => escaped(self.arena, &value).to_owned(),
            value => {
                let text = format_value(value, &spec)?;
                if self.markup { escape(&text) } else { text }
            }
        };
        out.push_str(&text);
        Ok(())
    }

    /// `0.attribute[key]`
    fn value(&mut self, name: &str) -> Result<Value<'a>> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let index = if first.is_empty() {
            self.next += 1;
            Some(self.next - 1)
        } else {
            first.parse().ok()
        };
        if index.is_some() {
            let manual = !first.is_empty();
            if *self.manual.get_or_insert(manual) != manual {
                return Err(value_error("cannot mix automatic and manual field numbering"));
            }
        }
        let found = match index {
            Some(index) => self.args.positional.get(index),
            None => self.args.keyword.iter().find(|(key, _)| *key == first).map(|(_, v)| v),
        };
        let mut value = found
            .copied()
            .ok_or_else(|| value_error(format!("no argument {first:?} for the format string")))?;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                value = access::attribute(self.arena, &value, self.arena.alloc_str(&after[..end]))?;
                rest = &after[end..];
            } else {
                let after = &rest[1..];
                let end =
                    after.find(']').ok_or_else(|| value_error("missing ']' in format string"))?;
                let key = match after[..end].parse() {
                    Ok(index) => Value::int(index),
                    Err(_) => Value::string(self.arena, &after[..end]),
                };
                value = access::item(self.arena, &value, &key)?;
                rest = &after[end + 1..];
            }
        }
        Ok(value)
    }
}

/// `format(value, spec)`
pub(crate) fn format_value(value: &Value<'_>, spec: &str) -> Result<String> {
    if spec.is_empty() {
        return Ok(value.text().into_owned());
    }
    let mut chars: Vec<char> = spec.chars().collect();
    let mut fill = ' ';
    let mut align = None;
    if chars.len() > 1 && "<>=^".contains(chars[1]) {
        fill = chars[0];
        align = Some(chars[1]);
        chars.drain(..2);
    } else if "<>=^".contains(chars[0]) {
        align = Some(chars[0]);
        chars.drain(..1);
    }
    let mut chars = chars.into_iter().peekable();
    let sign = chars.next_if(|c| "+- ".contains(*c)).unwrap_or('-');
    let alternate = chars.next_if_eq(&'#').is_some();
    if chars.next_if_eq(&'0').is_some() {
        if align.is_none() {
            fill = '0';
        }
        align = align.or(Some('='));
    }
    let mut width = 0usize;
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        width = width.saturating_mul(10) + digit as usize - '0' as usize;
    }
    let grouping = chars.next_if(|c| ",_".contains(*c));
    let mut precision = None;
    if chars.next_if_eq(&'.').is_some() {
        let mut value = 0usize;
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            value = value.saturating_mul(10) + digit as usize - '0' as usize;
        }
        precision = Some(value);
    }
    if width > 1 << 24 || precision.is_some_and(|p| p > 1 << 16) {
        return Err(value_error("width or precision too big"));
    }
    let kind = chars.next();
    let invalid = || value_error(format!("invalid format specifier {spec:?}"));
    if chars.next().is_some() {
        return Err(invalid());
    }
    let number = match (value, kind) {
        (Value::Str(_) | Value::Markup(_), None | Some('s')) => {
            let text = value.text();
            let text: String = match precision {
                Some(precision) => text.chars().take(precision).collect(),
                None => text.into_owned(),
            };
            if align == Some('=') && !spec.contains('0') {
                return Err(invalid());
            }
            let align = align.filter(|&align| align != '=').unwrap_or('<');
            return Ok(justify("", &text, fill, align, width));
        }
        (Value::Bool(b), None) if width == 0 => return Ok(if *b { "True" } else { "False" }.into()),
        (Value::Int(_) | Value::Bool(_), None | Some('d' | 'x' | 'X' | 'b' | 'o' | 'c' | 'n')) => {
            let n = value.as_int().unwrap_or(0);
            let magnitude = n.unsigned_abs();
            let (prefix, digits) = match kind {
                Some('x') => ("0x", format!("{magnitude:x}")),
                Some('X') => ("0X", format!("{magnitude:X}")),
                Some('b') => ("0b", format!("{magnitude:b}")),
                Some('o') => ("0o", format!("{magnitude:o}")),
                Some('c') => {
                    let c = char::from_u32(u32::try_from(n).map_err(|_| invalid())?);
                    ("", c.ok_or_else(invalid)?.to_string())
                }
                _ => ("", magnitude.to_string()),
            };
            (n < 0, if alternate { prefix } else { "" }, digits)
        }
        (Value::Int(_) | Value::Bool(_) | Value::Float(_), _) => {
            let x = value.as_float().unwrap_or(0.0);
            let magnitude = x.abs();
            let digits = match (kind, precision) {
                (None, None) => float_repr(magnitude),
                (None, precision) => {
                    let text = float_text(magnitude, 'g', precision, alternate);
                    if text.contains(['.', 'e', 'n']) { text } else { format!("{text}.0") }
                }
                (Some('%'), precision) => {
                    format!("{}%", float_text(magnitude * 100.0, 'f', precision, alternate))
                }
                (Some(kind @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G')), precision) => {
                    float_text(magnitude, kind, precision, alternate)
                }
                (Some('n'), precision) => float_text(magnitude, 'g', precision, alternate),
                _ => return Err(invalid()),
            };
            (x.is_sign_negative() && !x.is_nan(), "", digits)
        }
        _ => {
            return Err(crate::jinja::error::type_error(format!(
                "unsupported format string passed to {}.__format__",
                value.type_name().as_str()
            )));
        }
    };
    let (negative, prefix, mut digits) = number;
    if let Some(separator) = grouping {
        digits = group(&digits, separator);
    }
    let sign = match (negative, sign) {
        (true, _) => "-",
        (false, '+') => "+",
        (false, ' ') => " ",
        _ => "",
    };
    let align = align.unwrap_or('>');
    Ok(justify(&format!("{sign}{prefix}"), &digits, fill, align, width))
}

fn group(digits: &str, separator: char) -> String {
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    let mut out = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(separator);
        }
        out.push(c);
    }
    out + rest
}

fn justify(prefix: &str, body: &str, fill: char, align: char, width: usize) -> String {
    let missing = width.saturating_sub(prefix.chars().count() + body.chars().count());
    let pad = |n: usize| fill.to_string().repeat(n);
    match align {
        '<' => format!("{prefix}{body}{}", pad(missing)),
        '^' => format!("{}{prefix}{body}{}", pad(missing / 2), pad(missing - missing / 2)),
        '=' => format!("{prefix}{}{body}", pad(missing)),
        _ => format!("{}{prefix}{body}", pad(missing)),
    }
}
