//! The schema of a Parquet file as a tree of groups, lists, maps and leaves.
//!
//! Lists are written in two or three layers; the rules that tell them apart are those of the format's
//! `LogicalTypes.md`, "Backward-compatibility rules".

use std::ops::Range;

use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::schema::types::{SchemaDescriptor, Type};

use super::value::Kind;

/// A part of a row.
pub(super) enum Node {
    /// A column.
    Leaf { column: usize, defined: i16 },
    /// An object.
    Group { fields: Vec<(String, Node)>, leaves: Range<usize>, defined: i16 },
    /// A list; `repeated` is its repetition level.
    List { item: Box<Node>, leaves: Range<usize>, defined: i16, repeated: i16 },
    /// An object with any keys.
    Map { key: Box<Node>, value: Box<Node>, leaves: Range<usize>, defined: i16, repeated: i16 },
}

impl Node {
    /// Its columns.
    pub(super) fn leaves(&self) -> Range<usize> {
        match self {
            Self::Leaf { column, .. } => *column..*column + 1,
            Self::Group { leaves, .. } | Self::List { leaves, .. } | Self::Map { leaves, .. } => {
                leaves.clone()
            }
        }
    }

    /// The definition level from which on it is not null. A list that is there and has items is one
    /// level deeper.
    pub(super) fn defined(&self) -> i16 {
        match self {
            Self::Leaf { defined, .. }
            | Self::Group { defined, .. }
            | Self::List { defined, .. }
            | Self::Map { defined, .. } => *defined,
        }
    }

    /// The repetition level at which it goes on; 0 for what does not.
    pub(super) fn repeated(&self) -> i16 {
        match self {
            Self::Leaf { .. } | Self::Group { .. } => 0,
            Self::List { repeated, .. } | Self::Map { repeated, .. } => *repeated,
        }
    }
}

/// What is not supported, what it is, and what is.
pub(super) type Unsupported = (String, String, &'static str);

/// The fields of the rows.
pub(super) fn tree(schema: &SchemaDescriptor) -> Result<Vec<(String, Node)>, Unsupported> {
    let mut builder = Builder { schema, column: 0 };
    let root = schema.root_schema();
    let fields = builder.fields(root, 0, 0)?;
    if fields.is_empty() {
        return Err(("the schema".into(), "empty".into(), "one column or more"));
    }
    Ok(fields)
}

struct Builder<'s> {
    schema: &'s SchemaDescriptor,
    /// The next leaf.
    column: usize,
}

impl Builder<'_> {
    fn fields(
        &mut self,
        group: &Type,
        defined: i16,
        repeated: i16,
    ) -> Result<Vec<(String, Node)>, Unsupported> {
        let mut fields: Vec<(String, Node)> = Vec::new();
        for field in group.get_fields() {
            let name = field.name();
            if fields.iter().any(|(other, _)| other == name) {
                let what = format!("the column `{name}`");
                return Err((what, "there twice".into(), "columns with different names"));
            }
            fields.push((name.to_owned(), self.node(field, defined, repeated)?));
        }
        Ok(fields)
    }

    fn node(&mut self, field: &Type, defined: i16, repeated: i16) -> Result<Node, Unsupported> {
        match field.get_basic_info().repetition() {
            Repetition::REQUIRED => self.content(field, defined, repeated),
            Repetition::OPTIONAL => self.content(field, defined + 1, repeated),
            // A repeated field without a list around it.
            Repetition::REPEATED => {
                let start = self.column;
                let item = Box::new(self.content(field, defined + 1, repeated + 1)?);
                Ok(Node::List { item, leaves: start..self.column, defined, repeated: repeated + 1 })
            }
        }
    }

    /// A field apart from how often it is there.
    fn content(&mut self, field: &Type, defined: i16, repeated: i16) -> Result<Node, Unsupported> {
        let start = self.column;
        if field.is_primitive() {
            let descr = self.schema.column(start);
            if let Err(found) = Kind::of(&descr) {
                let what = format!("the type of column `{}`", descr.path().string());
                let expected =
                    "text, JSON, booleans, integers, floats, dates or times; leave the column out";
                return Err((what, found, expected));
            }
            self.column += 1;
            return Ok(Node::Leaf { column: start, defined });
        }
        let info = field.get_basic_info();
        let is = |logical, converted: &[ConvertedType]| {
            info.logical_type_ref() == Some(&logical) || converted.contains(&info.converted_type())
        };
        let repeats = |field: &Type| field.get_basic_info().repetition() == Repetition::REPEATED;
        let layer = match field.get_fields() {
            [layer] if repeats(layer) => Some(layer),
            _ => None,
        };
        let maps = [ConvertedType::MAP, ConvertedType::MAP_KEY_VALUE];
        if let Some(layer) = layer
            && is(LogicalType::List, &[ConvertedType::LIST])
        {
            let item = if is_item(layer, field.name()) {
                self.content(layer, defined + 1, repeated + 1)?
            } else {
                self.node(&layer.get_fields()[0], defined + 1, repeated + 1)?
            };
            let (item, leaves) = (Box::new(item), start..self.column);
            return Ok(Node::List { item, leaves, defined, repeated: repeated + 1 });
        }
        if let Some(layer) = layer
            && is(LogicalType::Map, &maps)
            && !layer.is_primitive()
            && let [key, value] = layer.get_fields()
            && key.is_primitive()
            && key.get_basic_info().converted_type() == ConvertedType::UTF8
        {
            let key = Box::new(self.node(key, defined + 1, repeated + 1)?);
            let value = Box::new(self.node(value, defined + 1, repeated + 1)?);
            let leaves = start..self.column;
            return Ok(Node::Map { key, value, leaves, defined, repeated: repeated + 1 });
        }
        let fields = self.fields(field, defined, repeated)?;
        if fields.is_empty() {
            let what = format!("the group `{}`", field.name());
            return Err((what, "empty".into(), "a group with columns"));
        }
        Ok(Node::Group { fields, leaves: start..self.column, defined })
    }
}

/// Whether the repeated field of a list is its item, and not a layer around it.
fn is_item(repeated: &Type, list: &str) -> bool {
    if repeated.is_primitive() {
        return true;
    }
    let [field] = repeated.get_fields() else { return true };
    let inner = field.get_basic_info();
    inner.repetition() == Repetition::REPEATED
        || repeated.name() == "array"
        || repeated.name() == format!("{list}_tuple")
}
