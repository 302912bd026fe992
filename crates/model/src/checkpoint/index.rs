//! `model.safetensors.index.json`: which tensor lies in which shard.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{broken, header, io_error, is_file_name};
use crate::error::Error;

/// The index; its keys are sorted as `json.dumps(sort_keys=True)` sorts them.
#[derive(Debug, Serialize)]
pub(super) struct Index<'a> {
    pub(super) metadata: IndexMetadata,
    pub(super) weight_map: BTreeMap<&'a str, &'a str>,
}

/// What transformers writes beside the map.
#[derive(Debug, Serialize)]
pub(super) struct IndexMetadata {
    pub(super) total_parameters: u64,
    pub(super) total_size: u64,
}

impl Index<'_> {
    /// The bytes that transformers writes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let mut ascii = String::with_capacity(text.len() + 1);
        for c in text.chars() {
            if c.is_ascii() {
                ascii.push(c);
                continue;
            }
            // Python escapes everything that is not ASCII.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
        ascii.push('\n');
        ascii.into_bytes()
    }
}

/// An index that was read.
#[derive(Debug)]
pub(super) struct ReadIndex {
    /// The file itself, to be written again unchanged.
    pub(super) bytes: Vec<u8>,
    pub(super) weight_map: BTreeMap<String, String>,
}

pub(super) fn read(path: &Path) -> Result<ReadIndex, Error> {
    #[derive(Deserialize)]
    struct Body {
        weight_map: BTreeMap<String, String>,
    }
    let bytes = std::fs::read(path).map_err(io_error(path))?;
    header::refuse_lfs_pointer(path, &bytes)?;
    let Body { weight_map } = serde_json::from_slice(&bytes)
        .map_err(|source| Error::Json { path: path.to_owned(), source })?;
    if weight_map.is_empty() {
        return Err(broken(path, "`weight_map` is empty"));
    }
    if let Some((name, file)) = weight_map.iter().find(|(_, file)| !is_file_name(file)) {
        let reason = format!("`weight_map` puts `{name}` into `{file}`, which is no file name");
        return Err(broken(path, reason));
    }
    Ok(ReadIndex { bytes, weight_map })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_python_writes() {
        let index = Index {
            metadata: IndexMetadata { total_parameters: 3, total_size: 12 },
            weight_map: BTreeMap::from([("b\u{e9}\u{1f600}", "x"), ("a\"\n\u{1}", "y")]),
        };
        // json.dumps({...}, indent=2, sort_keys=True) + "\n"
        let expected = "{\n  \"metadata\": {\n    \"total_parameters\": 3,\n    \"total_size\": 12\n  },\n  \
                        \"weight_map\": {\n    \"a\\\"\\n\\u0001\": \"y\",\n    \
                        \"b\\u00e9\\ud83d\\ude00\": \"x\"\n  }\n}\n";
        assert_eq!(String::from_utf8(index.to_bytes()).unwrap(), expected);
    }
}
