//! One safetensors file: its header, and where its tensors lie.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

use super::header;
use super::map::Mapped;
use crate::{Error, dtype};

/// The longest header that safetensors reads.
const MAX_HEADER: u64 = 100_000_000;

/// A mapped safetensors file with a checked header.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) path: PathBuf,
    pub(super) tensors: Vec<(String, Tensor)>,
}

/// A tensor as a file has it.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Mapped,
    pub(crate) file: PathBuf,
}

impl Tensor {
    /// Its name in its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its bytes, little-endian, row-major.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file that holds it.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Shard {
    /// # Errors
    /// [`Error::Io`], and [`Error::Checkpoint`] for a file that is cut off or whose header is broken.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let fail = |reason: String| Error::checkpoint(path, reason);
        let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
        if length < 8 {
            return Err(fail(format!(
                "{length} bytes, expected a safetensors file (at least 8 bytes)"
            )));
        }
        let file = Mapped::open(path).map_err(Error::io(path))?;
        let header = u64::from_le_bytes(file[..8].try_into().expect("eight bytes"));
        if header > MAX_HEADER || header + 8 > length {
            let reason = format!(
                "the header should have {header} bytes, the file has {length}: cut off, or no safetensors file"
            );
            return Err(fail(reason));
        }
        let text = &file[8..8 + header as usize];
        let problems = header::problems(text, length - 8 - header);
        if !problems.is_empty() {
            return Err(fail(header::listed("broken safetensors header", &problems)));
        }
        let (size, metadata) = SafeTensors::read_metadata(&file)
            .map_err(|error| fail(format!("broken safetensors header: {error}")))?;
        let start = 8 + size;
        let mut tensors = Vec::new();
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            if dtype::size_of(info.dtype) * 8 != info.dtype.bitsize() {
                let reason = format!("tensor `{name}` is {:?}, expected whole bytes", info.dtype);
                return Err(fail(reason));
            }
            tensors.push((
                name.clone(),
                Tensor {
                    name,
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    bytes: file.slice(start + from..start + to),
                    file: path.to_owned(),
                },
            ));
        }
        tensors.sort_by_key(|(_, tensor)| tensor.bytes.range().start);
        Ok(Self { path: path.to_owned(), tensors })
    }
}
