//! What was read.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::Format;

/// What was read so far.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReadReport {
    /// The format of the rows.
    pub format: Format,
    /// Whether it was told by the columns, and not set.
    pub detected: bool,
    /// The files that were opened, in their order.
    pub files: Vec<FileReport>,
    /// Rows that were handed out.
    pub rows: u64,
    /// Rows that were not.
    pub bad_rows: u64,
    /// The first of them, with place and reason.
    pub first_bad_rows: Vec<String>,
    /// The file that keeps them all.
    pub bad_rows_file: Option<PathBuf>,
    /// Columns that the format does not use. They are in each row's metadata.
    pub other_columns: Vec<String>,
}

/// What was read of one file so far.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Rows that were handed out.
    pub rows: u64,
    /// Rows that were not.
    pub bad_rows: u64,
    /// Lines of nothing but white space.
    pub blank_lines: u64,
}

impl fmt::Display for ReadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: usize, one: &str| match n {
            1 => format!("1 {one}"),
            n => format!("{n} {one}s"),
        };
        let how = if self.detected { "detected" } else { "as asked" };
        let files = count(self.files.len(), "file");
        write!(f, "{} from {files}", count(self.rows as usize, "row"))?;
        write!(f, ", format {} ({how})", self.format)?;
        if !self.other_columns.is_empty() {
            write!(f, ", other columns: {}", self.other_columns.join(", "))?;
        }
        let blank: u64 = self.files.iter().map(|file| file.blank_lines).sum();
        if blank > 0 {
            write!(f, ", {}", count(blank as usize, "blank line"))?;
        }
        if self.bad_rows > 0 {
            write!(f, ", {}", count(self.bad_rows as usize, "bad row"))?;
            if let Some(path) = &self.bad_rows_file {
                write!(f, " kept in {}", path.display())?;
            }
        }
        Ok(())
    }
}
