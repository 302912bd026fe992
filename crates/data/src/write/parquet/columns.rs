//! JSON rows as columns of values with their levels.
//!
//! For each entry of a column, the definition level says how many of the optional and repeated layers
//! above it are there, the repetition level which list goes on (0: a new row). In the schema that is
//! written, an object or value adds one optional layer, a list one optional and one repeated.

use std::io::Write;

use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
use parquet::errors::Result;
use parquet::file::writer::SerializedFileWriter;
use serde_json::{Map, Value as Json};

use super::schema::Kind;

/// A row group that is being filled.
pub(super) struct Columns<'s> {
    fields: &'s [(String, Kind)],
    leaves: Vec<Leaf>,
    pub(super) rows: usize,
}

#[derive(Default)]
struct Leaf {
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    values: Values,
}

#[derive(Default)]
enum Values {
    #[default]
    Null,
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Bytes(Vec<ByteArray>),
}

impl<'s> Columns<'s> {
    pub(super) fn new(schema: &'s Kind) -> Self {
        let fields: &[_] = if let Kind::Group(fields) = schema { fields } else { &[] };
        let mut columns = Self { fields, leaves: Vec::new(), rows: 0 };
        columns.clear();
        columns
    }

    fn clear(&mut self) {
        self.rows = 0;
        self.leaves.clear();
        self.fields.iter().for_each(|(_, kind)| empty(kind, &mut self.leaves));
    }

    pub(super) fn add(&mut self, row: &Map<String, Json>) {
        self.rows += 1;
        let mut leaves = self.leaves.as_mut_slice();
        for (name, kind) in self.fields {
            let (own, rest) = leaves.split_at_mut(kind.leaves());
            put(kind, row.get(name), Levels::default(), own);
            leaves = rest;
        }
    }

    /// Writes the row group and begins the next.
    pub(super) fn flush<W: Write + Send>(
        &mut self,
        writer: &mut SerializedFileWriter<W>,
    ) -> Result<()> {
        let mut group = writer.next_row_group()?;
        for leaf in &self.leaves {
            let Some(mut column) = group.next_column()? else { break };
            let definitions = Some(leaf.definitions.as_slice());
            let repetitions = Some(leaf.repetitions.as_slice());
            match &leaf.values {
                Values::Null => {
                    column.typed::<Int32Type>().write_batch(&[], definitions, repetitions)
                }
                Values::Bool(values) => {
                    column.typed::<BoolType>().write_batch(values, definitions, repetitions)
                }
                Values::Int(values) => {
                    column.typed::<Int64Type>().write_batch(values, definitions, repetitions)
                }
                Values::Float(values) => {
                    column.typed::<DoubleType>().write_batch(values, definitions, repetitions)
                }
                Values::Bytes(values) => {
                    column.typed::<ByteArrayType>().write_batch(values, definitions, repetitions)
                }
            }?;
            column.close()?;
        }
        group.close()?;
        self.clear();
        Ok(())
    }
}

/// Adds the empty columns of a kind.
fn empty(kind: &Kind, leaves: &mut Vec<Leaf>) {
    let values = match kind {
        Kind::List(item) => return empty(item, leaves),
        Kind::Group(fields) => {
            return fields.iter().for_each(|(_, kind)| empty(kind, leaves));
        }
        Kind::Null => Values::Null,
        Kind::Bool => Values::Bool(Vec::new()),
        Kind::Int { .. } => Values::Int(Vec::new()),
        Kind::Float => Values::Float(Vec::new()),
        Kind::Text | Kind::Json => Values::Bytes(Vec::new()),
    };
    leaves.push(Leaf { values, ..Leaf::default() });
}

/// The levels of what is put next, and how many lists are around it.
#[derive(Clone, Copy, Default)]
struct Levels {
    definition: i16,
    repetition: i16,
    lists: i16,
}

fn put(kind: &Kind, value: Option<&Json>, levels: Levels, mut leaves: &mut [Leaf]) {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return nothing(levels, leaves);
    };
    let levels = Levels { definition: levels.definition + 1, ..levels };
    match (kind, value) {
        (Kind::Group(fields), Json::Object(object)) => {
            for (name, kind) in fields {
                let (own, rest) = leaves.split_at_mut(kind.leaves());
                put(kind, object.get(name), levels, own);
                leaves = rest;
            }
        }
        (Kind::List(_), Json::Array(items)) if items.is_empty() => nothing(levels, leaves),
        (Kind::List(item), Json::Array(items)) => {
            let lists = levels.lists + 1;
            let mut levels = Levels { definition: levels.definition + 1, lists, ..levels };
            for value in items {
                put(item, Some(value), levels, leaves);
                levels.repetition = lists;
            }
        }
        (kind, value) => {
            nothing(levels, leaves);
            leaves[0].push(kind, value);
        }
    }
}

/// An entry without a value in each column.
fn nothing(levels: Levels, leaves: &mut [Leaf]) {
    for leaf in leaves {
        leaf.definitions.push(levels.definition);
        leaf.repetitions.push(levels.repetition);
    }
}

impl Leaf {
    /// The schema covers all rows, so each value is of its column's kind.
    fn push(&mut self, kind: &Kind, value: &Json) {
        match &mut self.values {
            Values::Null => {}
            Values::Bool(values) => values.extend(value.as_bool()),
            Values::Int(values) => values.extend(value.as_i64()),
            Values::Float(values) => values.extend(value.as_f64()),
            Values::Bytes(values) => {
                let text = match value {
                    Json::String(text) if *kind == Kind::Text => text.clone(),
                    other => other.to_string(),
                };
                values.push(text.into_bytes().into());
            }
        }
    }
}
