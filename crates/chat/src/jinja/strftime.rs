//! `datetime.strftime` for a naive date and time in the C locale, with glibc's flags.

use jiff::civil::{DateTime, Weekday};

use super::error::{Result, value_error};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn day_name(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}

pub(crate) fn strftime(now: DateTime, format: &str) -> Result<String> {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let flag = chars.next_if(|c| "-_0^#".contains(*c));
        let mut width = 0;
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            width = (width * 10 + digit as usize - '0' as usize).min(100);
        }
        let Some(directive) = chars.next() else {
            return Err(value_error("a date format ends in '%'"));
        };
        out.push_str(&field(now, directive, flag, width)?);
    }
    Ok(out)
}

fn field(now: DateTime, directive: char, flag: Option<char>, width: usize) -> Result<String> {
    let weekday = i64::from(now.weekday().to_sunday_zero_offset());
    let monday = i64::from(now.weekday().to_monday_zero_offset());
    let day_of_year = i64::from(now.day_of_year());
    let year = i64::from(now.year());
    let hour12 = (i64::from(now.hour()) + 11) % 12 + 1;
    let iso = now.date().iso_week_date();
    let number = |value: i64, default: usize, pad: char| {
        let digits = if width > 0 { width } else { default };
        match flag {
            Some('-') => value.to_string(),
            Some('_') => format!("{value:>digits$}"),
            Some('0') => format!("{value:0>digits$}"),
            _ if pad == ' ' => format!("{value:>digits$}"),
            _ => format!("{value:0>digits$}"),
        }
    };
    let text = |name: &str| {
        let name = match flag {
            Some('^' | '#') => name.to_uppercase(),
            _ => name.to_owned(),
        };
        format!("{name:>width$}")
    };
    let month = MONTHS[(now.month() - 1) as usize];
    let day = day_name(now.weekday());
    let nested = |format: &str| strftime(now, format);
    Ok(match directive {
        'Y' => number(year, 1, '0'),
        'C' => number(year / 100, 2, '0'),
        'y' => number(year % 100, 2, '0'),
        'm' => number(i64::from(now.month()), 2, '0'),
        'd' => number(i64::from(now.day()), 2, '0'),
        'e' => number(i64::from(now.day()), 2, ' '),
        'H' => number(i64::from(now.hour()), 2, '0'),
        'k' => number(i64::from(now.hour()), 2, ' '),
        'I' => number(hour12, 2, '0'),
        'l' => number(hour12, 2, ' '),
        'M' => number(i64::from(now.minute()), 2, '0'),
        'S' => number(i64::from(now.second()), 2, '0'),
        'f' => format!("{:06}", now.subsec_nanosecond() / 1000),
        'j' => number(day_of_year, 3, '0'),
        'u' => number(monday + 1, 1, '0'),
        'w' => number(weekday, 1, '0'),
        'U' => number((day_of_year + 6 - weekday) / 7, 2, '0'),
        'W' => number((day_of_year + 6 - monday) / 7, 2, '0'),
        'V' => number(i64::from(iso.week()), 2, '0'),
        'G' => number(i64::from(iso.year()), 1, '0'),
        'g' => number(i64::from(iso.year()) % 100, 2, '0'),
        'B' => text(month),
        'b' | 'h' => text(&month[..3]),
        'A' => text(day),
        'a' => text(&day[..3]),
        'p' if flag == Some('#') => if now.hour() < 12 { "am" } else { "pm" }.into(),
        'p' => text(if now.hour() < 12 { "AM" } else { "PM" }),
        'P' => if now.hour() < 12 { "am" } else { "pm" }.into(),
        'c' => nested("%a %b %e %H:%M:%S %Y")?,
        'D' | 'x' => nested("%m/%d/%y")?,
        'T' | 'X' => nested("%H:%M:%S")?,
        'R' => nested("%H:%M")?,
        'r' => nested("%I:%M:%S %p")?,
        'F' => nested("%Y-%m-%d")?,
        'n' => "\n".into(),
        't' => "\t".into(),
        '%' => "%".into(),
        // A naive time has no zone.
        'z' | 'Z' => String::new(),
        // glibc keeps what it does not know.
        other => format!("%{}{other}", flag.map(String::from).unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_read_as_in_python() {
        let now = jiff::civil::date(2024, 7, 6).at(13, 5, 9, 0);
        for (format, text) in [
            ("%d %b %Y", "06 Jul 2024"),
            ("%B %-d, %Y", "July 6, 2024"),
            ("%A %e|%I:%M %p|%j|%U|%W|%V|%u|%w", "Saturday  6|01:05 PM|188|26|27|27|6|6"),
            ("%c", "Sat Jul  6 13:05:09 2024"),
            ("%y/%m %Z%%", "24/07 %"),
        ] {
            assert_eq!(strftime(now, format).unwrap(), text, "{format}");
        }
    }
}
