//! The files of the output: their headers are known before any arithmetic, so that every tensor has its
//! place from the start and can be written in any order.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::checkpoint::INDEX;
use crate::plan::Output;
use crate::{Error, dtype};

/// Where a tensor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file, by its number.
    pub(crate) file: usize,
    /// Its first byte in the file.
    pub(crate) offset: u64,
}

/// A file of the output before it is written.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) name: String,
    /// Length of the header and the header.
    pub(crate) header: Vec<u8>,
    /// Of the whole file.
    pub(crate) length: u64,
}

/// The files for these tensors, of at most `shard_size` bytes each where no tensor alone is larger, and
/// the place of each tensor.
pub(crate) fn layout(outputs: &[Output], shard_size: u64) -> (Vec<Layout>, Vec<Place>) {
    let mut shards: Vec<Vec<usize>> = vec![Vec::new()];
    let mut size = 0;
    for (index, output) in outputs.iter().enumerate() {
        let current = shards.last_mut().expect("one shard is there");
        if !current.is_empty() && size + output.bytes() > shard_size {
            shards.push(vec![index]);
            size = 0;
        } else {
            current.push(index);
        }
        size += output.bytes();
    }
    let count = shards.len();
    let mut places = vec![Place { file: 0, offset: 0 }; outputs.len()];
    let layouts = shards.into_iter().enumerate().map(|(file, mut members)| {
        // Wider types first, so that each tensor is aligned to its type without gaps.
        members.sort_by_key(|index| std::cmp::Reverse(dtype::size_of(outputs[*index].dtype)));
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut offset = 0;
        for index in &members {
            let output = &outputs[*index];
            let end = offset + output.bytes();
            let entry = json!({
                "dtype": dtype::stored_name(output.dtype),
                "shape": output.shape,
                "data_offsets": [offset, end],
            });
            header.insert(output.name.clone(), entry);
            places[*index] = Place { file, offset };
            offset = end;
        }
        let mut text = Value::Object(header).to_string();
        text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.extend(text.into_bytes());
        for index in members {
            places[index].offset += header.len() as u64;
        }
        let length = header.len() as u64 + offset;
        let name = if count == 1 {
            "model.safetensors".to_owned()
        } else {
            format!("model-{:05}-of-{count:05}.safetensors", file + 1)
        };
        Layout { name, header, length }
    });
    (layouts.collect(), places)
}

/// The index of several files.
pub(crate) fn index(outputs: &[Output], layouts: &[Layout], places: &[Place]) -> Value {
    let map: BTreeMap<&str, &str> = outputs
        .iter()
        .zip(places)
        .map(|(output, place)| (output.name.as_str(), layouts[place.file].name.as_str()))
        .collect();
    let total: u64 = outputs.iter().map(Output::bytes).sum();
    json!({"metadata": {"total_size": total}, "weight_map": map})
}

/// Writes the index where there are several files.
pub(crate) fn write_index(
    folder: &Path,
    outputs: &[Output],
    layouts: &[Layout],
    places: &[Place],
) -> Result<(), Error> {
    if layouts.len() == 1 {
        return Ok(());
    }
    let path = folder.join(INDEX);
    let text = serde_json::to_string_pretty(&index(outputs, layouts, places)).expect("JSON");
    std::fs::write(&path, text + "\n").map_err(Error::io(&path))
}

/// A file of the output that is being written.
#[derive(Debug)]
pub(crate) struct ShardFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl ShardFile {
    /// Makes the file with its header and its full length; one that is there already is kept if it has
    /// both.
    pub(crate) fn open(folder: &Path, layout: &Layout) -> Result<Self, Error> {
        let path = folder.join(&layout.name);
        let fail = |source| Error::io(&path)(source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        let mut found = vec![0; layout.header.len()];
        let same = file.metadata().map_err(fail)?.len() == layout.length
            && file.read_exact_at(&mut found, 0).is_ok()
            && found == layout.header;
        if !same {
            file.set_len(0).map_err(fail)?;
            file.write_all(&layout.header).map_err(fail)?;
            reserve(&file, layout.length).map_err(fail)?;
        }
        Ok(Self { path, file })
    }
}

/// Gives the file its length and, where the file system can, its place on the disk: a full disk is found
/// before the work is done.
fn reserve(file: &File, length: u64) -> std::io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(length),
        Err(error) => Err(error.into()),
    }
}
