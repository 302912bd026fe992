//! Which rows are trained on, and how they become tokens.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::data::BadRows;

/// The settings of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataArguments {
    /// JSONL (plain, gz, zst), JSON or Parquet: files, folders, patterns.
    pub data: Paths,
    /// Validation rows of their own.
    pub eval_data: Paths,
    /// Without `eval_data`: the share of the rows (below 1) or their number that is held out.
    pub val_set_size: f64,
    /// The form of the rows, where it shall not be detected.
    pub data_format: Option<String>,
    /// Names of columns: ours to the file's, such as `{prompt: question, completion: answer}`.
    pub columns: BTreeMap<String, String>,
    /// Names of roles: the file's to ours, such as `{bot: assistant}`.
    pub roles: BTreeMap<String, String>,
    /// Bad rows that are put aside, in `bad_rows.jsonl`, before the run stops.
    pub max_bad_rows: u64,
    /// The most tokens of a row, and the length of a packed one.
    pub max_length: usize,
    /// What of a longer row is kept.
    pub truncation_mode: posttrain_chat::Truncation,
    /// What happens to a row that cannot be trained on, such as one without a trained token.
    pub untrained_rows: BadRows,
}

impl Default for DataArguments {
    fn default() -> Self {
        Self {
            data: Paths::default(),
            eval_data: Paths::default(),
            val_set_size: 0.01,
            data_format: None,
            columns: BTreeMap::new(),
            roles: BTreeMap::new(),
            max_bad_rows: 0,
            max_length: 1024,
            truncation_mode: posttrain_chat::Truncation::KeepStart,
            untrained_rows: BadRows::Error,
        }
    }
}

/// One path or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Paths {
    /// One.
    One(PathBuf),
    /// Several, read in this order.
    Several(Vec<PathBuf>),
}

impl Default for Paths {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Paths {
    /// All of them.
    pub fn as_slice(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }
}

impl DataArguments {
    /// `val_set_size` as a share of this many rows.
    pub fn validation_share(&self, rows: usize) -> f64 {
        let size = self.val_set_size;
        if size < 1.0 { size } else { (size / rows.max(1) as f64).min(1.0) }
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        if self.data.as_slice().is_empty() {
            let expected = "a JSONL or Parquet file, a folder, or a list of them";
            return Err(Error::config("data", "missing", expected));
        }
        if self.max_length < 2 {
            return Err(Error::config("max_length", self.max_length, "at least 2"));
        }
        let size = self.val_set_size;
        if !(size >= 0.0 && (size < 1.0 || size.fract() == 0.0)) {
            return Err(Error::config(
                "val_set_size",
                size,
                "a share below 1, or a number of rows",
            ));
        }
        Ok(())
    }
}
