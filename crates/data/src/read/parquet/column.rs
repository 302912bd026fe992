//! One column of a row group, read a few rows at a time.

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::{ParquetError, Result};
use parquet::schema::types::ColumnDescPtr;
use serde_json::Value as Json;

use super::value::Kind;
use crate::fault::Fault;

/// How many rows are decoded at once: few, since rows may be long.
const BATCH: usize = 64;

/// The levels of one entry.
#[derive(Clone, Copy)]
pub(super) struct Levels {
    pub(super) definition: i16,
    pub(super) repetition: i16,
}

pub(super) struct Column {
    reader: ColumnReader,
    kind: Kind,
    descr: ColumnDescPtr,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    values: std::vec::IntoIter<Result<Json, Fault>>,
    at: usize,
    count: usize,
}

impl Column {
    pub(super) fn new(reader: ColumnReader, descr: &ColumnDescPtr) -> Result<Self> {
        Ok(Self {
            reader,
            kind: Kind::of(descr).map_err(ParquetError::General)?,
            descr: descr.clone(),
            definitions: Vec::new(),
            repetitions: Vec::new(),
            values: Vec::new().into_iter(),
            at: 0,
            count: 0,
        })
    }

    /// The levels of the next entry.
    pub(super) fn levels(&mut self) -> Result<Levels> {
        if !self.fill()? {
            let reason = format!("column `{}` breaks off", self.descr.path().string());
            return Err(ParquetError::General(reason));
        }
        let definition = self.definitions.get(self.at).copied();
        let repetition = self.repetitions.get(self.at).copied().unwrap_or(0);
        Ok(Levels { definition: definition.unwrap_or(self.descr.max_def_level()), repetition })
    }

    /// The repetition level of the next entry; `None` at the end of the row group.
    pub(super) fn next_repetition(&mut self) -> Result<Option<i16>> {
        Ok(if self.fill()? { Some(self.levels()?.repetition) } else { None })
    }

    /// Goes past an entry without a value.
    pub(super) fn skip(&mut self) -> Result<()> {
        if self.levels()?.definition == self.descr.max_def_level() {
            let reason = format!("column `{}` has a value too many", self.descr.path().string());
            return Err(ParquetError::General(reason));
        }
        self.at += 1;
        Ok(())
    }

    /// The value of the next entry, which has one.
    pub(super) fn value(&mut self) -> Result<Result<Json, Fault>> {
        self.levels()?;
        self.at += 1;
        let missing = || format!("column `{}` has a value too few", self.descr.path().string());
        self.values.next().ok_or_else(|| ParquetError::General(missing()))
    }

    /// Decodes more when all is used up; false at the end.
    fn fill(&mut self) -> Result<bool> {
        if self.at < self.count {
            return Ok(true);
        }
        self.definitions.clear();
        self.repetitions.clear();
        let (kind, descr) = (self.kind, &self.descr);
        let levels = (&mut self.definitions, &mut self.repetitions);
        let (count, values) = match &mut self.reader {
            ColumnReader::BoolColumnReader(reader) => {
                batch(reader, levels, |value| Ok(Json::Bool(*value)))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                batch(reader, levels, |value| Ok(kind.integer(i64::from(*value))))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                batch(reader, levels, |value| Ok(kind.integer(*value)))
            }
            ColumnReader::FloatColumnReader(reader) => {
                batch(reader, levels, |value| Ok(Kind::float(f64::from(*value))))
            }
            ColumnReader::DoubleColumnReader(reader) => {
                batch(reader, levels, |value| Ok(Kind::float(*value)))
            }
            ColumnReader::ByteArrayColumnReader(reader) => {
                batch(reader, levels, |value| kind.bytes(value.data(), descr))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                batch(reader, levels, |value| kind.bytes(value.data(), descr))
            }
            ColumnReader::Int96ColumnReader(_) => {
                Err(ParquetError::General("INT96 is not supported".into()))
            }
        }?;
        (self.at, self.count, self.values) = (0, count, values.into_iter());
        Ok(count > 0)
    }
}

/// Decodes the entries of some rows: how many there are, and their values.
fn batch<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    (definitions, repetitions): (&mut Vec<i16>, &mut Vec<i16>),
    json: impl Fn(&T::T) -> Result<Json, Fault>,
) -> Result<(usize, Vec<Result<Json, Fault>>)> {
    let mut values = Vec::new();
    let (_, _, count) =
        reader.read_records(BATCH, Some(definitions), Some(repetitions), &mut values)?;
    Ok((count, values.iter().map(json).collect()))
}
