//! Checkpoints to merge: a folder of safetensors with its `config.json`, or a single file.

mod header;
mod map;
mod shard;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub(crate) use map::Mapped;
use shard::Shard;
pub use shard::Tensor;

use crate::Error;

/// The index of a checkpoint in several files.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// A checkpoint whose headers have been read; the tensors stay in their files until they are used.
///
/// ```no_run
/// let checkpoint = posttrain_merge::Checkpoint::open("path/to/model")?;
/// for (name, tensor) in checkpoint.tensors() {
///     println!("{name} {:?} {:?}", tensor.dtype(), tensor.shape());
/// }
/// # Ok::<(), posttrain_merge::Error>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: Map<String, Value>,
    tensors: BTreeMap<String, Tensor>,
    files: Vec<PathBuf>,
}

impl Checkpoint {
    /// Opens a folder (`config.json`, with `model.safetensors`, an index of shards, or one other
    /// safetensors file) or one safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Json`]; [`Error::Checkpoint`] for a folder without safetensors, a broken
    /// file, and an index that does not fit its shards.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let kind = std::fs::metadata(path).map_err(Error::io(path))?;
        let (config, files) = if kind.is_dir() {
            (read_config(path)?, weight_files(path)?)
        } else {
            (Map::new(), vec![path.to_owned()])
        };
        let mut tensors = BTreeMap::new();
        for file in &files {
            let shard = Shard::open(file)?;
            for (name, tensor) in shard.tensors {
                if let Some(twin) = tensors.insert(name.clone(), tensor) {
                    let reason = format!("tensor `{name}` is also in {}", twin.file.display());
                    return Err(Error::checkpoint(shard.path, reason));
                }
            }
        }
        let checkpoint = Self { path: path.to_owned(), config, tensors, files };
        checkpoint.check_index()?;
        Ok(checkpoint)
    }

    /// The folder or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content of `config.json`; empty for a single file.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// Every tensor by its name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The safetensors files.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Whether this is a bare file, without configuration and tokenizer.
    pub fn is_raw(&self) -> bool {
        self.files.len() == 1 && self.files[0] == self.path
    }

    /// The index and the shards name the same tensors in the same places.
    fn check_index(&self) -> Result<(), Error> {
        let path = self.path.join(INDEX);
        if self.is_raw() || self.files.len() == 1 && !path.exists() {
            return Ok(());
        }
        let map = weight_map(&path)?;
        let mut problems = Vec::new();
        for (name, file) in &map {
            let found = self.tensors.get(name).map(|tensor| tensor.file.as_path());
            if found != Some(&self.path.join(file)) {
                let place =
                    found.map_or("in no file".into(), |file| format!("in {}", file.display()));
                problems.push(format!("tensor `{name}` should be in {file} and is {place}"));
            }
        }
        for (name, tensor) in self.tensors.iter().filter(|(name, _)| !map.contains_key(*name)) {
            let file = tensor.file.display();
            problems.push(format!("tensor `{name}` in {file} is not in the index"));
        }
        if !problems.is_empty() {
            return Err(Error::checkpoint(
                path,
                header::listed("the index does not fit", &problems),
            ));
        }
        Ok(())
    }
}

fn read_config(folder: &Path) -> Result<Map<String, Value>, Error> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    serde_json::from_str(&text).map_err(Error::json(&path))
}

/// Tensor to file, as the index has it.
fn weight_map(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    #[derive(serde::Deserialize)]
    struct Index {
        #[serde(deserialize_with = "crate::manifest::unique")]
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let index: Index = serde_json::from_str(&text).map_err(Error::json(path))?;
    // A name that leads out of the folder is no shard of it.
    let outside = |file: &&String| Path::new(file.as_str()).components().count() != 1;
    if let Some(file) = index.weight_map.values().find(outside) {
        return Err(Error::checkpoint(path, format!("the file `{file}` is not in this folder")));
    }
    Ok(index.weight_map)
}

/// The files that hold the weights of a folder.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let index = folder.join(INDEX);
    if index.exists() {
        let files: BTreeSet<String> = weight_map(&index)?.into_values().collect();
        let missing: Vec<&str> =
            files.iter().filter(|file| !folder.join(file).exists()).map(String::as_str).collect();
        if files.is_empty() || !missing.is_empty() {
            let reason = match missing[..] {
                [] => "it names no files".to_owned(),
                ref missing => format!("it names {}, not found in the folder", missing.join(", ")),
            };
            return Err(Error::checkpoint(index, reason));
        }
        return Ok(files.into_iter().map(|file| folder.join(file)).collect());
    }
    let single = folder.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        names.push(entry.map_err(Error::io(folder))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let with =
        |ending: &str| names.iter().filter(|name| name.ends_with(ending)).collect::<Vec<_>>();
    let reason = match with(".safetensors")[..] {
        [one] => return Ok(vec![folder.join(one)]),
        [] if !with(".bin").is_empty() || !with(".pt").is_empty() || !with(".pth").is_empty() => {
            "the weights are pickles, expected safetensors (load and `save_pretrained` them with transformers)"
                .to_owned()
        }
        [] if !with(".gguf").is_empty() => "the weights are GGUF, expected safetensors".to_owned(),
        [] => format!("expected model.safetensors or {INDEX}, found neither"),
        ref several => format!(
            "{} safetensors files and no {INDEX} that says which belong to the model",
            several.len()
        ),
    };
    Err(Error::checkpoint(folder, reason))
}
