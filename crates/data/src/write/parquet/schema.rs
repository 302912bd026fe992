//! The schema that a set of JSON rows has.

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::Type;
use serde_json::{Map, Value as Json};

/// Columns and keys whose objects have any form, and whose order of keys matters to templates. They are
/// JSON even where one file's rows happen to agree, so that shards have one schema.
const FREE: [&str; 4] = ["tools", "documents", "chat_template_kwargs", "arguments"];

/// What the values of a column are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// No value but null so far.
    Null,
    Bool,
    /// Integers; `exact` when a float holds each of them.
    Int {
        exact: bool,
    },
    Float,
    Text,
    List(Box<Kind>),
    /// Objects with these keys, in the order in which they were met.
    Group(Vec<(String, Kind)>),
    /// Values of several kinds, or of any form.
    Json,
}

impl Kind {
    /// Widens a root group by the columns of a row.
    pub(super) fn widen_row(&mut self, row: &Map<String, Json>) {
        if let Self::Group(fields) = self {
            widen_fields(fields, row);
        }
    }

    /// Widens so that it covers a value, under a key of this name.
    fn widen(&mut self, name: &str, value: &Json) {
        match (&mut *self, value) {
            (_, Json::Null)
            | (Self::Json, _)
            | (Self::Bool, Json::Bool(_))
            | (Self::Text, Json::String(_)) => {}
            (Self::Null, Json::Array(_) | Json::Object(_)) if FREE.contains(&name) => {
                *self = Self::Json;
            }
            (Self::Null, Json::Bool(_)) => *self = Self::Bool,
            (Self::Null, Json::String(_)) => *self = Self::Text,
            (Self::Null, Json::Number(number)) => *self = number_kind(number),
            (Self::Null, Json::Array(_)) => {
                *self = Self::List(Box::new(Self::Null));
                self.widen(name, value);
            }
            (Self::Null, Json::Object(_)) => {
                *self = Self::Group(Vec::new());
                self.widen(name, value);
            }
            (Self::Int { .. } | Self::Float, Json::Number(number)) => {
                *self = match (&*self, number_kind(number)) {
                    (Self::Int { exact: a }, Self::Int { exact: b }) => {
                        Self::Int { exact: *a && b }
                    }
                    (Self::Float, Self::Float | Self::Int { exact: true })
                    | (Self::Int { exact: true }, Self::Float) => Self::Float,
                    _ => Self::Json,
                };
            }
            (Self::List(item), Json::Array(items)) => {
                for value in items {
                    item.widen("", value);
                }
            }
            (Self::Group(fields), Json::Object(object)) => widen_fields(fields, object),
            _ => *self = Self::Json,
        }
    }

    /// Parquet has no group without a field: such objects become JSON. `None` when no column is left.
    pub(super) fn settle(self) -> Option<Self> {
        match self.settled() {
            Self::Json => None,
            schema => Some(schema),
        }
    }

    fn settled(self) -> Self {
        match self {
            Self::Group(fields) if fields.is_empty() => Self::Json,
            Self::Group(fields) => {
                Self::Group(fields.into_iter().map(|(name, kind)| (name, kind.settled())).collect())
            }
            Self::List(item) => Self::List(Box::new(item.settled())),
            other => other,
        }
    }

    /// How many columns it has.
    pub(super) fn leaves(&self) -> usize {
        match self {
            Self::List(item) => item.leaves(),
            Self::Group(fields) => fields.iter().map(|(_, kind)| kind.leaves()).sum(),
            _ => 1,
        }
    }

    /// The root of a schema, in the form in which Arrow writes it: all is optional, lists have three
    /// layers.
    pub(super) fn parquet(&self) -> Result<Type, ParquetError> {
        let Self::Group(fields) = self else {
            return Err(ParquetError::General("rows are objects".into()));
        };
        let fields = fields.iter().map(|(name, kind)| Ok(kind.field(name)?.into()));
        Type::group_type_builder("schema")
            .with_fields(fields.collect::<Result<_, ParquetError>>()?)
            .build()
    }

    fn field(&self, name: &str) -> Result<Type, ParquetError> {
        let leaf = |physical, logical| {
            Type::primitive_type_builder(name, physical)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type(logical)
                .build()
        };
        match self {
            Self::Null => leaf(Physical::INT32, Some(LogicalType::Unknown)),
            Self::Bool => leaf(Physical::BOOLEAN, None),
            Self::Int { .. } => leaf(Physical::INT64, None),
            Self::Float => leaf(Physical::DOUBLE, None),
            Self::Text => leaf(Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Self::Json => leaf(Physical::BYTE_ARRAY, Some(LogicalType::Json)),
            Self::List(item) => {
                let layer = Type::group_type_builder("list")
                    .with_repetition(Repetition::REPEATED)
                    .with_fields(vec![item.field("element")?.into()])
                    .build()?;
                Type::group_type_builder(name)
                    .with_repetition(Repetition::OPTIONAL)
                    .with_logical_type(Some(LogicalType::List))
                    .with_fields(vec![layer.into()])
                    .build()
            }
            Self::Group(fields) => {
                let fields = fields.iter().map(|(name, kind)| Ok(kind.field(name)?.into()));
                Type::group_type_builder(name)
                    .with_repetition(Repetition::OPTIONAL)
                    .with_fields(fields.collect::<Result<_, ParquetError>>()?)
                    .build()
            }
        }
    }
}

fn widen_fields(fields: &mut Vec<(String, Kind)>, object: &Map<String, Json>) {
    for (key, value) in object {
        let at = fields.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            fields.push((key.clone(), Kind::Null));
            fields.len() - 1
        });
        fields[at].1.widen(key, value);
    }
}

fn number_kind(number: &serde_json::Number) -> Kind {
    match number.as_i64() {
        Some(integer) => Kind::Int { exact: integer.unsigned_abs() <= 1 << 53 },
        None if number.is_u64() => Kind::Json,
        None => Kind::Float,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(rows: &[&str]) -> Kind {
        let mut schema = Kind::Group(Vec::new());
        for row in rows {
            schema.widen_row(serde_json::from_str::<Json>(row).unwrap().as_object().unwrap());
        }
        schema.settle().unwrap()
    }

    fn kind(rows: &[&str]) -> Kind {
        match schema(rows) {
            Kind::Group(fields) => fields[0].1.clone(),
            other => other,
        }
    }

    #[test]
    fn kinds_widen_to_cover_all_rows() {
        for (rows, expected) in [
            (&[r#"{"a":null}"#, "{}"][..], Kind::Null),
            (&[r#"{"a":null}"#, r#"{"a":true}"#], Kind::Bool),
            (&[r#"{"a":1}"#, r#"{"a":-2}"#], Kind::Int { exact: true }),
            (&[r#"{"a":1}"#, r#"{"a":0.5}"#], Kind::Float),
            (&[r#"{"a":0.5}"#, r#"{"a":9007199254740993}"#], Kind::Json),
            (&[r#"{"a":18446744073709551615}"#], Kind::Json),
            (&[r#"{"a":"x"}"#, r#"{"a":["x"]}"#], Kind::Json),
            (&[r#"{"a":[]}"#, r#"{"a":[null,"x"]}"#], Kind::List(Box::new(Kind::Text))),
            (&[r#"{"a":{}}"#], Kind::Json),
            (&[r#"{"tools":[{"name":"f"}]}"#], Kind::Json),
            (&[r#"{"tools":"[]"}"#], Kind::Text),
            (
                &[r#"{"a":{"x":1}}"#, r#"{"a":{"y":{"arguments":{"z":1}}}}"#],
                Kind::Group(vec![
                    ("x".into(), Kind::Int { exact: true }),
                    ("y".into(), Kind::Group(vec![("arguments".into(), Kind::Json)])),
                ]),
            ),
        ] {
            assert_eq!(kind(rows), expected, "{rows:?}");
        }
    }
}
