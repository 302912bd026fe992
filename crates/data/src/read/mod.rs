//! Files to rows.

mod array;
mod bad;
mod files;
mod lines;
mod open;
mod parquet;
mod report;
mod source;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use bad::BadRows;
pub use report::{FileReport, ReadReport};
use source::{Bad, Raw, Record, Source, Step};

use crate::error::{Error, Result};
use crate::format::{Columns, Format, Roles, SAMPLE, detect, read_row};
use crate::row::Row;

/// How rows are read. The names are those of configuration files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOptions {
    /// The form of the rows; `None` tells it by the columns of the first 100.
    pub format: Option<Format>,
    /// Columns under other names: the format's name to the files'. GSM8K's questions and answers are
    /// `{prompt: question, completion: answer}` as plain text, or `{instruction: question, output:
    /// answer}` as conversations.
    pub columns: BTreeMap<String, String>,
    /// Roles under other names: `{bot: assistant}`.
    pub roles: BTreeMap<String, String>,
    /// How many rows may be bad, over all files.
    pub max_bad_rows: u64,
    /// Where bad rows are kept, one object a line: `file`, `line`, `row`, `reason`, `raw`. Has to be set
    /// when any are allowed. The file is made anew.
    pub bad_rows: Option<PathBuf>,
    /// The longest row of a text file, in bytes.
    pub max_row_bytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            columns: BTreeMap::new(),
            roles: BTreeMap::new(),
            max_bad_rows: 0,
            bad_rows: None,
            max_row_bytes: 64 << 20,
        }
    }
}

/// The rows of one or more files, one after the other. Memory holds one row, or a page of each column
/// of a Parquet file, and the first 100 rows at the start.
///
/// ```
/// use posttrain_data::{Example, Format, ReadOptions, Rows};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("train.jsonl");
/// # std::fs::write(&path, r#"{"question": "6 times 7?", "answer": "42", "level": 1}"#)?;
/// let options = ReadOptions {
///     columns: [("prompt", "question"), ("completion", "answer")]
///         .map(|(name, column)| (name.into(), column.into()))
///         .into(),
///     ..ReadOptions::default()
/// };
/// let mut rows = Rows::open([&path], &options)?;
/// assert_eq!(rows.format(), Format::PromptCompletion);
/// for row in &mut rows {
///     let row = row?;
///     assert!(matches!(row.example, Example::PromptCompletion { .. }));
///     assert_eq!(row.metadata["level"], 1);
///     assert!(row.place.to_string().ends_with("train.jsonl:1"));
/// }
/// assert_eq!(
///     rows.report().to_string(),
///     "1 row from 1 file, format prompt and completion (detected), other columns: level"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Rows {
    files: VecDeque<PathBuf>,
    source: Option<Source>,
    /// What was read to tell the format.
    ahead: VecDeque<(usize, Step)>,
    format: Format,
    columns: Columns,
    /// Mapped columns that no row had so far.
    unseen: Vec<(String, String)>,
    roles: Roles,
    limit: u64,
    bad: BadRows,
    report: ReadReport,
    done: bool,
}

impl Rows {
    /// Opens files, folders of files, or patterns with `*` and `?` inside names, and tells the format.
    ///
    /// Files are told apart by their first bytes: JSON lines or one JSON list, plain, gzip or zstd, and
    /// Parquet. Folders and patterns give their files sorted by name.
    ///
    /// # Errors
    /// [`Error::Files`], [`Error::Io`], [`Error::Options`], [`Error::Unsupported`],
    /// [`Error::UnknownFormat`], [`Error::AmbiguousFormat`], and [`Error::NoRows`]; [`Error::BadRow`]
    /// and [`Error::Damaged`] when no good row comes before.
    pub fn open<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        options: &ReadOptions,
    ) -> Result<Self> {
        let paths: Vec<PathBuf> = paths.into_iter().map(|path| path.as_ref().to_owned()).collect();
        let files = files::expand(&paths)?;
        let columns = Columns::new(&options.columns)?;
        if let Some(format) = options.format {
            columns.check(format)?;
        }
        if options.max_row_bytes == 0 {
            return Err(Error::options("max_row_bytes", 0, "at least 1"));
        }
        let bad = BadRows::new(options.max_bad_rows, options.bad_rows.as_deref(), &files)?;
        let unseen = columns.mapped().map(|(name, column)| (name.into(), column.into())).collect();
        let report = ReadReport {
            format: options.format.unwrap_or(Format::Messages),
            detected: options.format.is_none(),
            files: Vec::new(),
            rows: 0,
            bad_rows: 0,
            first_bad_rows: Vec::new(),
            bad_rows_file: options.bad_rows.clone(),
            other_columns: Vec::new(),
        };
        let mut rows = Self {
            files: files.into(),
            source: None,
            ahead: VecDeque::new(),
            format: report.format,
            columns,
            unseen,
            roles: Roles::new(&options.roles)?,
            limit: options.max_row_bytes,
            bad,
            report,
            done: false,
        };
        rows.tell_format(options.format)?;
        Ok(rows)
    }

    fn tell_format(&mut self, asked: Option<Format>) -> Result<()> {
        let mut good = 0;
        while good < SAMPLE
            && let Some(step) = self.step()
        {
            good += usize::from(matches!(step, (_, Ok(Ok(_)))));
            let end = step.1.is_err();
            self.ahead.push_back(step);
            if end {
                break;
            }
        }
        let records = self.ahead.iter().filter_map(|(_, step)| match step {
            Ok(Ok(record)) => Some(record),
            _ => None,
        });
        let records: Vec<&Record> = records.collect();
        let Some(first) = records.first() else {
            while let Some((file, step)) = self.ahead.pop_front() {
                if let Err(bad) = step? {
                    self.count_bad(file, bad)?;
                }
            }
            let files: Vec<String> =
                self.report.files.iter().map(|file| file.path.display().to_string()).collect();
            return Err(Error::NoRows { files: files.join(", ") });
        };
        let objects: Vec<_> = records.iter().map(|record| &record.object).collect();
        self.format = detect(&objects, asked, &self.columns, &first.place.file)?;
        self.report.format = self.format;
        Ok(())
    }

    /// The form of the rows.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What was read so far.
    pub fn report(&self) -> &ReadReport {
        &self.report
    }

    /// The next row of the files, good or bad, and the index of its file.
    fn step(&mut self) -> Option<(usize, Step)> {
        loop {
            if let Some(source) = &mut self.source {
                let step = source.next();
                let file = self.report.files.len() - 1;
                self.report.files[file].blank_lines = source.blank_lines();
                match step {
                    Some(step) => return Some((file, step)),
                    None => self.source = None,
                }
            }
            let path = self.files.pop_front()?;
            let opened = Source::open(&path, self.limit);
            self.report.files.push(FileReport { path, rows: 0, bad_rows: 0, blank_lines: 0 });
            match opened {
                Ok(source) => self.source = Some(source),
                Err(error) => return Some((self.report.files.len() - 1, Err(error))),
            }
        }
    }

    fn count_bad(&mut self, file: usize, bad: Bad) -> Result<()> {
        let result = self.bad.add(bad);
        self.report.files[file].bad_rows += 1;
        self.report.bad_rows = self.bad.count;
        self.report.first_bad_rows.clone_from(&self.bad.told);
        result
    }

    #[expect(clippy::result_large_err, reason = "a row is larger")]
    fn read(&mut self, record: Record) -> Result<Row, Bad> {
        let Record { place, object, raw } = record;
        self.unseen.retain(|(_, column)| !object.contains_key(column));
        let raw = match raw {
            Raw::Object(_) => Raw::Object(object.clone()),
            text @ Raw::Text(_) => text,
        };
        match read_row(self.format, object, &self.columns, &self.roles) {
            Ok((example, context, metadata)) => {
                for column in metadata.keys() {
                    if !self.report.other_columns.contains(column) {
                        self.report.other_columns.push(column.clone());
                    }
                }
                Ok(Row { example, context, metadata, place })
            }
            Err(fault) => Err(Bad { place, fault, raw }),
        }
    }

    fn advance(&mut self) -> Result<Option<Row>> {
        loop {
            let next = self.ahead.pop_front();
            let Some((file, step)) = next.or_else(|| self.step()) else { break };
            let read = match step? {
                Ok(record) => self.read(record),
                Err(bad) => Err(bad),
            };
            match read {
                Ok(row) => {
                    self.report.rows += 1;
                    self.report.files[file].rows += 1;
                    return Ok(Some(row));
                }
                Err(bad) => self.count_bad(file, bad)?,
            }
        }
        match self.unseen.first() {
            None => Ok(None),
            Some((name, column)) => {
                let expected = "a column that some row has";
                Err(Error::options(format!("columns.{name}"), format!("`{column}`"), expected))
            }
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    /// The next row. After an error there is none.
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.advance().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("report", &self.report).finish_non_exhaustive()
    }
}
