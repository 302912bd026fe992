//! One safetensors file, written and read tensor by tensor: never all of it in memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value};

use crate::Error;

/// A tensor to be written or expected to be read.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

impl Entry {
    pub(super) fn new(name: String, dtype: Dtype, shape: &[usize]) -> Self {
        Self { name, dtype, shape: shape.to_vec() }
    }

    fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes the tensors, the widest first so that all are aligned, then by name. `bytes` gives the
/// elements of one, by its place in `entries`, in little endian.
pub(super) fn write(
    path: &Path,
    metadata: &[(&str, String)],
    entries: &[Entry],
    mut bytes: impl FnMut(usize) -> Vec<u8>,
) -> Result<(), Error> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(entries[i].dtype), &entries[i].name));
    let mut header = Map::new();
    let metadata = metadata.iter().map(|(key, value)| ((*key).into(), value.as_str().into()));
    header.insert("__metadata__".into(), Value::Object(metadata.collect()));
    let mut end = 0;
    for entry in order.iter().map(|&i| &entries[i]) {
        let start = end;
        end += entry.len();
        let info = TensorInfo {
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            data_offsets: (start, end),
        };
        header.insert(entry.name.clone(), serde_json::to_value(info).expect("JSON in memory"));
    }
    let mut header = serde_json::to_vec(&header).expect("JSON in memory");
    header.resize(header.len().next_multiple_of(8), b' ');

    let file = File::create(path).map_err(Error::io(path))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path));
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    for i in order {
        let bytes = bytes(i);
        assert_eq!(bytes.len(), entries[i].len(), "the bytes of `{}`", entries[i].name);
        put(&bytes)?;
    }
    let file = file.into_inner().map_err(|error| Error::io(path)(error.into_error()))?;
    file.sync_all().map_err(Error::io(path))
}

/// An open file.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    /// Where the bytes of the tensors begin.
    start: u64,
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
        let size = file.get_ref().metadata().map_err(Error::io(path))?.len();
        let broken = |reason: String| Error::Checkpoint { path: path.into(), reason };
        let mut length = [0; 8];
        if size < 8 {
            return Err(broken(format!("has {size} bytes, too few for a safetensors file")));
        }
        file.read_exact(&mut length).map_err(Error::io(path))?;
        let length = u64::from_le_bytes(length);
        if length > size - 8 {
            return Err(broken(format!("truncated: the header has {length} bytes of {size}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(Error::io(path))?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| broken(format!("not a safetensors file: {error}")))?;
        let (start, expected) = (8 + length, 8 + length + header.data_len() as u64);
        if expected != size {
            let reason = format!("the header describes {expected} bytes, the file has {size}");
            return Err(broken(reason));
        }
        let metadata = header.metadata().clone().unwrap_or_default();
        let tensors = header.tensors().into_iter();
        let tensors = tensors.map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { path: path.into(), file, start, metadata, tensors })
    }

    pub(super) fn error(&self, reason: String) -> Error {
        Error::Checkpoint { path: self.path.clone(), reason }
    }

    /// A value of the metadata.
    pub(super) fn note(&self, key: &str) -> Result<&str, Error> {
        let note = self.metadata.get(key).map(String::as_str);
        note.ok_or_else(|| self.error(format!("`{key}` is missing in the metadata")))
    }

    /// That the tensors are these and no others. All that differ are listed.
    pub(super) fn check(&self, expected: &[Entry]) -> Result<(), Error> {
        let mut reasons = Vec::new();
        for Entry { name, dtype, shape } in expected {
            match self.tensors.get(name) {
                None => reasons.push(format!("missing: {name}")),
                Some(found) if found.dtype != *dtype || found.shape != *shape => {
                    let TensorInfo { dtype: found_dtype, shape: found_shape, .. } = found;
                    reasons.push(format!(
                        "{name}: found {found_dtype} {found_shape:?}, expected {dtype} {shape:?}"
                    ));
                }
                Some(_) => {}
            }
        }
        let unexpected =
            self.tensors.keys().filter(|name| !expected.iter().any(|entry| entry.name == **name));
        reasons.extend(unexpected.map(|name| format!("unexpected: {name}")));
        if reasons.is_empty() {
            return Ok(());
        }
        let list = reasons.join("\n  ");
        Err(self.error(format!("the tensors are not those of this run\n  {list}")))
    }

    /// The bytes of a tensor that [`Reader::check`] has seen.
    pub(super) fn bytes(&mut self, name: &str) -> Result<Vec<u8>, Error> {
        let (start, end) = self.tensors[name].data_offsets;
        let mut bytes = vec![0; end - start];
        let read = self.file.seek(SeekFrom::Start(self.start + start as u64));
        read.and_then(|_| self.file.read_exact(&mut bytes)).map_err(Error::io(&self.path))?;
        Ok(bytes)
    }
}
