//! A checkpoint folder: headers are read when it is opened, tensors when they are asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::header::{self, Entry, Header};
use super::index::{self, ReadIndex};
use super::layout::Layout;
use super::map::SharedBytes;
use super::{INDEX, Metadata, STAGE, WEIGHTS, broken, io_error};
use crate::error::Error;

/// An open checkpoint folder: `model.safetensors`, or shards and their index.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    files: Vec<CheckpointFile>,
    /// Name to file and place in it.
    tensors: BTreeMap<String, (usize, usize)>,
    index: Option<Vec<u8>>,
}

/// One weight file of a [`Checkpoint`].
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    name: String,
    header: Header,
    bytes: SharedBytes,
}

/// A tensor in mapped memory.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape, the slowest dimension first.
    pub shape: &'a [usize],
    /// Its elements in little endian; aligned to nothing in files of old writers.
    pub bytes: &'a [u8],
    /// The file, for errors.
    pub(super) path: &'a Path,
}

impl CheckpointFile {
    pub(crate) fn open(folder: &Path, name: &str) -> Result<Self, Error> {
        let path = folder.join(name);
        let bytes = SharedBytes::open(&path).map_err(io_error(&path))?;
        let header = header::read(&path, &bytes)?;
        Ok(Self { path, name: name.to_owned(), header, bytes })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name in the folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its `__metadata__` in the order of the file, `format: pt` where transformers wrote it.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// Its tensors in the order of their bytes.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.header.tensors.iter().map(|entry| self.view(entry))
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> TensorView<'a> {
        TensorView {
            name: &entry.name,
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes: &self.bytes[entry.range.clone()],
            path: &self.path,
        }
    }
}

impl Checkpoint {
    /// Open the folder and check that its files agree with each other.
    ///
    /// As in transformers, `model.safetensors` is taken where both it and an index exist.
    ///
    /// # Errors
    /// When there are no weights or a file is missing, truncated or contradicts the index; the
    /// message names the file.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref().to_owned();
        let kind = std::fs::metadata(&folder).map_err(io_error(&folder))?;
        if !kind.is_dir() {
            return Err(broken(&folder, "is a file, expected a checkpoint folder"));
        }
        if folder.join(WEIGHTS).exists() {
            let files = vec![CheckpointFile::open(&folder, WEIGHTS)?];
            let tensors = places(&files)?;
            return Ok(Self { folder, files, tensors, index: None });
        }
        let index_path = folder.join(INDEX);
        if !index_path.exists() {
            return Err(no_weights(&folder));
        }
        let index = index::read(&index_path)?;
        let files = shards(&folder, &index_path, &index)?;
        let tensors = places(&files)?;
        agree(&index_path, &index, &files, &tensors)?;
        Ok(Self { folder, files, tensors, index: Some(index.bytes) })
    }

    /// The folder that was opened.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor by name, without copying it.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let (file, entry) = self.entry(name)?;
        Some(file.view(entry))
    }

    /// The bytes of a tensor, kept alive by the handle alone.
    pub fn shared(&self, name: &str) -> Option<SharedBytes> {
        let (file, entry) = self.entry(name)?;
        Some(file.bytes.slice(entry.range.clone()))
    }

    /// Lets the system take back the memory in which a tensor was read, where no other lies beside it.
    /// It is read from the file again when it is asked for.
    pub(crate) fn forget(&self, name: &str) {
        if let Some(bytes) = self.shared(name) {
            bytes.forget();
        }
    }

    /// The weight files, by name.
    pub fn files(&self) -> &[CheckpointFile] {
        &self.files
    }

    /// The `__metadata__` of the first file; each file has its own.
    pub fn metadata(&self) -> &Metadata {
        self.files[0].metadata()
    }

    /// The type of most elements; `None` without elements.
    pub fn dtype(&self) -> Option<Dtype> {
        let mut counts: BTreeMap<Dtype, usize> = BTreeMap::new();
        for tensor in self.files.iter().flat_map(CheckpointFile::tensors) {
            *counts.entry(tensor.dtype).or_default() += tensor.shape.iter().product::<usize>();
        }
        let most = counts.into_iter().max_by_key(|&(dtype, count)| (count, dtype));
        most.filter(|&(_, count)| count > 0).map(|(dtype, _)| dtype)
    }

    /// How the tensors are spread over files, to save them alike.
    pub fn layout(&self) -> Layout {
        Layout::of(&self.files, self.index.clone())
    }

    fn entry(&self, name: &str) -> Option<(&CheckpointFile, &Entry)> {
        let &(file, entry) = self.tensors.get(name)?;
        let file = &self.files[file];
        Some((file, &file.header.tensors[entry]))
    }
}

fn no_weights(folder: &Path) -> Error {
    let mut others: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let kind = Path::new(name).extension().and_then(|kind| kind.to_str());
            matches!(kind, Some("bin" | "pt" | "pth" | "safetensors" | "gguf" | "msgpack" | "h5"))
        })
        .collect();
    others.sort();
    let mut reason = vec![format!("no weights: neither {WEIGHTS} nor {INDEX}")];
    if !others.is_empty() {
        reason.push(format!("found only {}", others.join(", ")));
    }
    if others.iter().any(|name| name.starts_with("pytorch_model")) {
        let how = "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)";
        reason.push(format!("convert them with transformers: {how}"));
    }
    if folder.join(STAGE).exists() {
        reason.push(format!("{STAGE} is left of an interrupted save, `recover` may finish it"));
    }
    broken(folder, reason.join("; "))
}

fn shards(
    folder: &Path,
    index_path: &Path,
    index: &ReadIndex,
) -> Result<Vec<CheckpointFile>, Error> {
    let mut names: Vec<&str> = index.weight_map.values().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let missing: Vec<&str> =
        names.iter().copied().filter(|name| !folder.join(name).exists()).collect();
    if !missing.is_empty() {
        return Err(broken(index_path, format!("missing shards: {}", missing.join(", "))));
    }
    names.into_iter().map(|name| CheckpointFile::open(folder, name)).collect()
}

fn places(files: &[CheckpointFile]) -> Result<BTreeMap<String, (usize, usize)>, Error> {
    let mut tensors = BTreeMap::new();
    for (i, file) in files.iter().enumerate() {
        for (j, entry) in file.header.tensors.iter().enumerate() {
            if let Some((first, _)) = tensors.insert(entry.name.clone(), (i, j)) {
                let first = &files[first].name;
                let reason = format!("tensor `{}` is also in {first}", entry.name);
                return Err(broken(&file.path, reason));
            }
        }
    }
    Ok(tensors)
}

/// That every tensor lies where the index says, and no other.
fn agree(
    index_path: &Path,
    index: &ReadIndex,
    files: &[CheckpointFile],
    tensors: &BTreeMap<String, (usize, usize)>,
) -> Result<(), Error> {
    let found = |name: &str| tensors.get(name).map(|&(file, _)| files[file].name.as_str());
    let mut reasons = Vec::new();
    for (name, file) in &index.weight_map {
        match found(name) {
            None => reasons.push(format!("`{name}` is not in {file}")),
            Some(other) if other != file => {
                reasons.push(format!("`{name}` is not in {file} but in {other}"));
            }
            Some(_) => {}
        }
    }
    let unlisted = tensors.keys().filter(|name| !index.weight_map.contains_key(*name));
    for name in unlisted {
        let file = found(name).unwrap_or_default();
        reasons.push(format!("`{name}` is in {file} and not in the index"));
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(broken(index_path, format!("shards and index disagree\n  {}", reasons.join("\n  "))))
}
