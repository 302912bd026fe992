//! Values of Parquet's types as JSON.

use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical};
use parquet::schema::types::ColumnDescriptor;
use serde_json::Value as Json;

use crate::fault::Fault;
use crate::json;

/// What a column means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A boolean, integer or float as it is stored.
    Plain,
    /// An integer without a sign, of 32 bits or 64.
    Unsigned {
        wide: bool,
    },
    Text,
    Json,
    /// Days since 1970.
    Date,
    /// Parts of a second since midnight.
    Time {
        per_second: i64,
    },
    /// Parts of a second since 1970, in UTC or in a zone that is not told.
    Timestamp {
        per_second: i64,
        utc: bool,
    },
}

const fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::MILLIS => 1_000,
        TimeUnit::MICROS => 1_000_000,
        TimeUnit::NANOS => 1_000_000_000,
    }
}

impl Kind {
    /// # Errors
    /// The name of a type that is not supported.
    pub(super) fn of(descr: &ColumnDescriptor) -> Result<Self, String> {
        let physical = descr.physical_type();
        let kind = match descr.logical_type_ref() {
            Some(LogicalType::String | LogicalType::Enum) => Some(Self::Text),
            Some(LogicalType::Json) => Some(Self::Json),
            Some(LogicalType::Date) => Some(Self::Date),
            Some(LogicalType::Time(time)) => Some(Self::Time { per_second: per_second(time.unit) }),
            Some(LogicalType::Timestamp(time)) => Some(Self::Timestamp {
                per_second: per_second(time.unit),
                utc: time.is_adjusted_to_u_t_c,
            }),
            Some(LogicalType::Integer(int)) if !int.is_signed => {
                Some(Self::Unsigned { wide: physical == Physical::INT64 })
            }
            Some(LogicalType::Integer(_) | LogicalType::Unknown) => Some(Self::Plain),
            Some(other) => return Err(format!("{other:?}")),
            None => match descr.converted_type() {
                ConvertedType::NONE
                | ConvertedType::INT_8
                | ConvertedType::INT_16
                | ConvertedType::INT_32
                | ConvertedType::INT_64 => match physical {
                    Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY => None,
                    Physical::BYTE_ARRAY => Some(Self::Text),
                    _ => Some(Self::Plain),
                },
                ConvertedType::UTF8 | ConvertedType::ENUM => Some(Self::Text),
                ConvertedType::JSON => Some(Self::Json),
                ConvertedType::DATE => Some(Self::Date),
                ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 => {
                    Some(Self::Unsigned { wide: false })
                }
                ConvertedType::UINT_64 => Some(Self::Unsigned { wide: true }),
                ConvertedType::TIME_MILLIS => Some(Self::Time { per_second: 1_000 }),
                ConvertedType::TIME_MICROS => Some(Self::Time { per_second: 1_000_000 }),
                ConvertedType::TIMESTAMP_MILLIS => {
                    Some(Self::Timestamp { per_second: 1_000, utc: true })
                }
                ConvertedType::TIMESTAMP_MICROS => {
                    Some(Self::Timestamp { per_second: 1_000_000, utc: true })
                }
                other => return Err(other.to_string()),
            },
        };
        let integer = matches!(physical, Physical::INT32 | Physical::INT64);
        let fits = match kind {
            None => false,
            Some(Self::Text | Self::Json) => physical == Physical::BYTE_ARRAY,
            Some(Self::Plain) => true,
            Some(_) => integer,
        };
        kind.filter(|_| fits).ok_or_else(|| physical.to_string())
    }

    pub(super) fn integer(self, value: i64) -> Json {
        match self {
            Self::Unsigned { wide: true } => Json::from(value as u64),
            Self::Unsigned { wide: false } => Json::from(value as u32),
            Self::Date => Json::String(date(value)),
            Self::Time { per_second } => Json::String(clock(
                value.div_euclid(per_second),
                value.rem_euclid(per_second),
                per_second,
            )),
            Self::Timestamp { per_second, utc } => {
                let (seconds, rest) = (value.div_euclid(per_second), value.rem_euclid(per_second));
                let day = date(seconds.div_euclid(86_400));
                let clock = clock(seconds.rem_euclid(86_400), rest, per_second);
                Json::String(format!("{day}T{clock}{}", if utc { "Z" } else { "" }))
            }
            Self::Plain | Self::Text | Self::Json => Json::from(value),
        }
    }

    /// JSON has no number for what is not finite; its name keeps it from being taken for a null.
    pub(super) fn float(value: f64) -> Json {
        match serde_json::Number::from_f64(value) {
            Some(number) => Json::Number(number),
            None if value.is_nan() => "NaN".into(),
            None if value > 0.0 => "Infinity".into(),
            None => "-Infinity".into(),
        }
    }

    pub(super) fn bytes(self, bytes: &[u8], descr: &ColumnDescriptor) -> Result<Json, Fault> {
        let wrong = |found: String, expected: &str| {
            let field = descr.path().string();
            Err(Fault::Value { field, found, expected: expected.into() })
        };
        if self == Self::Json {
            return json::parse(bytes).or_else(|fault| wrong(format!("no JSON ({fault})"), "JSON"));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Json::String(text.to_owned())),
            Err(error) => {
                let at = error.valid_up_to() + 1;
                wrong(format!("{} bytes that are no UTF-8 at byte {at}", bytes.len()), "text")
            }
        }
    }
}

/// Year, month and day of the days since 1970, by the Gregorian calendar. Years begin in March, so that
/// the leap day is the last (Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: i64) -> String {
    let days = i128::from(days) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn clock(seconds: i64, rest: i64, per_second: i64) -> String {
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    let digits = per_second.ilog10() as usize;
    let rest = if rest == 0 { String::new() } else { format!(".{rest:0digits$}") };
    format!("{hours:02}:{minutes:02}:{:02}{rest}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        // 2000 was a leap year, 1900 was not.
        for (days, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (-25_509, "1900-02-28"),
            (-25_508, "1900-03-01"),
            (20_454, "2026-01-01"),
            (-719_468, "0000-03-01"),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn times_keep_their_fractions() {
        let stamp = Kind::Timestamp { per_second: 1_000, utc: true };
        assert_eq!(stamp.integer(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(stamp.integer(86_400_000), "1970-01-02T00:00:00Z");
        let local = Kind::Timestamp { per_second: 1_000_000_000, utc: false };
        assert_eq!(local.integer(1_500_000_001), "1970-01-01T00:00:01.500000001");
        assert_eq!(Kind::Time { per_second: 1_000_000 }.integer(3_661_000_001), "01:01:01.000001");
        for extreme in [i64::MIN, i64::MAX] {
            assert!(stamp.integer(extreme).is_string());
            assert!(Kind::Date.integer(extreme).is_string());
        }
    }

    #[test]
    fn numbers_keep_their_values() {
        assert_eq!(Kind::Unsigned { wide: true }.integer(-1), u64::MAX);
        assert_eq!(Kind::Unsigned { wide: false }.integer(-1), u32::MAX);
        assert_eq!(Kind::Plain.integer(i64::MIN), i64::MIN);
        assert_eq!(Kind::float(f64::NAN), "NaN");
        assert_eq!(Kind::float(f64::NEG_INFINITY), "-Infinity");
    }
}
