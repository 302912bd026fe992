//! The header of a safetensors file: read through the safetensors crate, written by its rules.
//!
//! Written here because the crate can only write a file when it holds every tensor, and because its
//! metadata is a hash map, whose order is another one in each run.

use std::ops::Range;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde::{Deserialize, Deserializer};

use super::layout::TensorSpec;
use super::{Metadata, broken};
use crate::error::Error;

const LENGTH: usize = size_of::<u64>();
const METADATA: &str = "__metadata__";
const LFS: &[u8] = b"version https://git-lfs";

/// A tensor of a file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Counted from the start of the file.
    pub(super) range: Range<usize>,
}

/// What `__metadata__` and the tensors, in the order of their bytes, say.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<Entry>,
}

/// Whether the bytes are not the file itself but what git stores in its place.
pub(super) fn refuse_lfs_pointer(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if !bytes.starts_with(LFS) {
        return Ok(());
    }
    let reason = "is a git-lfs pointer, not the file itself; fetch it with `git lfs pull`";
    Err(broken(path, reason))
}

/// Read the header of a whole file.
pub(super) fn read(path: &Path, file: &[u8]) -> Result<Header, Error> {
    refuse_lfs_pointer(path, file)?;
    let (length, info) =
        SafeTensors::read_metadata(file).map_err(|error| broken(path, explain(file, &error)))?;
    let start = LENGTH + length;
    let Ordered { metadata } = serde_json::from_slice(&file[LENGTH..start])
        .map_err(|error| broken(path, format!("invalid JSON in header: {error}")))?;
    let mut tensors: Vec<Entry> = info
        .tensors()
        .into_iter()
        .map(|(name, info)| Entry {
            name,
            dtype: info.dtype,
            shape: info.shape.clone(),
            range: start + info.data_offsets.0..start + info.data_offsets.1,
        })
        .collect();
    // Tensors without elements share their offset with the next one.
    tensors.sort_by(|a, b| {
        (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name))
    });
    Ok(Header { metadata, tensors })
}

/// Say how much of the file is missing, which safetensors does not.
fn explain(file: &[u8], error: &SafeTensorError) -> String {
    let size = file.len();
    let header = file.first_chunk().map(|length| u64::from_le_bytes(*length));
    match (error, header) {
        (SafeTensorError::HeaderTooSmall, _) => {
            format!("has {size} bytes, too few for a safetensors file")
        }
        (SafeTensorError::InvalidHeaderLength, Some(length)) => {
            format!("truncated: the header has {length} bytes, the file {size}")
        }
        (SafeTensorError::HeaderTooLarge, Some(length)) => {
            format!("not a safetensors file: a header of {length} bytes")
        }
        (SafeTensorError::MetadataIncompleteBuffer, Some(length)) => {
            let header = &file[LENGTH..LENGTH + length as usize];
            let info: Result<safetensors::tensor::Metadata, _> = serde_json::from_slice(header);
            let expected = info.map_or(0, |info| LENGTH + header.len() + info.data_len());
            let what = if expected > size { "truncated" } else { "too long" };
            format!("{what}: the header describes {expected} bytes, the file has {size}")
        }
        _ => error.to_string(),
    }
}

/// Only the metadata of a header, in its order.
#[derive(Deserialize)]
struct Ordered {
    #[serde(rename = "__metadata__", default, deserialize_with = "ordered")]
    metadata: Metadata,
}

fn ordered<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Metadata, D::Error> {
    let map: Option<serde_json::Map<String, serde_json::Value>> =
        Option::deserialize(deserializer)?;
    let text = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(map.unwrap_or_default().into_iter().map(|(key, value)| (key, text(value))).collect())
}

/// Sort as safetensors does: the widest dtype first so that all are aligned, then by name.
pub(super) fn sort(tensors: &mut [&TensorSpec]) {
    tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
}

/// What goes before the bytes of the sorted tensors.
pub(super) fn write(metadata: &Metadata, tensors: &[&TensorSpec]) -> Result<Vec<u8>, Error> {
    let mut infos = Vec::with_capacity(tensors.len());
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.byte_len()?;
        let info = TensorInfo {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            data_offsets: (offset, end),
        };
        infos.push((tensor.name.as_str(), info));
        offset = end;
    }
    let mut json = serde_json::to_vec(&Written { metadata, infos: &infos })
        .map_err(|source| Error::Json { path: super::WEIGHTS.into(), source })?;
    json.resize(json.len().next_multiple_of(LENGTH), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

struct Written<'a> {
    metadata: &'a Metadata,
    infos: &'a [(&'a str, TensorInfo)],
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            let metadata: serde_json::Map<_, _> = self
                .metadata
                .iter()
                .map(|(key, value)| (key.clone(), value.as_str().into()))
                .collect();
            map.serialize_entry(METADATA, &metadata)?;
        }
        for (name, info) in self.infos {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.to_owned(), dtype, shape: shape.to_vec() }
    }

    #[test]
    fn equals_the_writer_of_safetensors() {
        let specs = [
            spec("z", Dtype::BF16, &[3, 5]),
            spec("b\"\u{e9}\n", Dtype::F32, &[7]),
            spec("a", Dtype::U8, &[3]),
            spec("scalar", Dtype::F16, &[]),
            spec("empty", Dtype::F32, &[0, 4]),
            spec("long", Dtype::I64, &[2]),
        ];
        let data: Vec<Vec<u8>> =
            specs.iter().map(|spec| vec![7; spec.byte_len().unwrap()]).collect();
        let views = specs.iter().zip(&data).map(|(spec, data)| {
            let view =
                safetensors::tensor::TensorView::new(spec.dtype, spec.shape.clone(), data).unwrap();
            (spec.name.clone(), view)
        });
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let theirs = safetensors::serialize(views, Some(metadata.into_iter().collect())).unwrap();
        let mut sorted: Vec<&TensorSpec> = specs.iter().collect();
        sort(&mut sorted);
        let mut ours = write(&vec![("format".into(), "pt".into())], &sorted).unwrap();
        ours.resize(ours.len() + data.iter().map(Vec::len).sum::<usize>(), 7);
        assert_eq!(ours, theirs);

        let header = read(Path::new("x"), &ours).unwrap();
        let names: Vec<&str> = header.tensors.iter().map(|entry| entry.name.as_str()).collect();
        let expected: Vec<&str> = sorted.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn metadata_keeps_its_order() {
        let metadata: Metadata = ["z", "a", "m", "b"].map(|key| (key.into(), key.into())).into();
        let bytes = write(&metadata, &[]).unwrap();
        assert_eq!(read(Path::new("x"), &bytes).unwrap().metadata, metadata);
    }

    #[test]
    fn broken_headers_say_what_is_wrong() {
        let tensors = [&spec("a", Dtype::F32, &[4])];
        let mut file = write(&Metadata::new(), &tensors).unwrap();
        let reason = |bytes: &[u8]| read(Path::new("w"), bytes).unwrap_err().to_string();
        let header = file.len();
        file.resize(header + 16, 0);
        assert!(read(Path::new("w"), &file).is_ok());
        let size = file.len();
        assert_eq!(
            reason(&file[..size - 1]),
            format!("w: truncated: the header describes {size} bytes, the file has {}", size - 1)
        );
        assert!(reason(&file[..20]).starts_with("w: truncated: the header has "));
        assert_eq!(reason(&file[..3]), "w: has 3 bytes, too few for a safetensors file");
        assert_eq!(reason(b""), "w: has 0 bytes, too few for a safetensors file");
        assert!(reason(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
        assert!(reason(b"<!DOCTYPE html>").contains("not a safetensors file"));
        let swapped = String::from_utf8_lossy(&file).replace("[0,16]", "[4,20]");
        assert!(reason(swapped.as_bytes()).contains("offset"), "{}", reason(swapped.as_bytes()));
        file.push(0);
        assert!(reason(&file).starts_with("w: too long"));
    }
}
