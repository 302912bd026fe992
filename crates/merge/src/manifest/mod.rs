//! `merge.json`: what a merged folder was made of, and what it holds.
//!
//! The **content hash** of a checkpoint is the BLAKE3 of one line for each tensor, sorted by name,
//!
//! ```text
//! name \t dtype \t shape \t blake3(bytes of the tensor) \n
//! ```
//!
//! with the shape as `4096,32` and hashes in hexadecimal. Files, shards, headers and paths have no part in it,
//! so that a checkpoint is recognised after it was moved, renamed or sharded in another way.

mod hex;
mod verify;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use blake3::Hash;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use hex::unique;
pub use verify::{Difference, Found, VerifyReport, Whose, verify};

use crate::Error;

/// The name of the manifest's file in a merged folder.
pub const FILE: &str = "merge.json";

/// The version of the manifest's format that this crate writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The provenance of one merged checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format.
    pub format: u32,
    /// The version of posttrain-merge that merged.
    pub version: String,
    /// When, as RFC 3339.
    pub created: String,
    /// The seed of the methods that draw.
    pub seed: u64,
    /// The name of the method.
    pub method: String,
    /// The resolved configuration, in the form of mergekit's YAML.
    pub config: Value,
    /// What the command line added to the configuration.
    pub options: Options,
    /// Every model that was read, in the order of the configuration.
    pub inputs: Vec<InputRecord>,
    /// What was written.
    pub output: OutputRecord,
    /// What became of the inputs' tensors.
    pub coverage: Coverage,
}

/// How it was computed and written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The type in which the methods computed: `float32`, or `input` for that of the inputs.
    pub arithmetic: String,
    /// The most bytes of tensors in one file.
    pub shard_size: u64,
    /// The type to which inputs were cast, where the configuration has one.
    pub dtype: Option<Dtype>,
    /// The type to which outputs were cast, where the configuration has one.
    pub out_dtype: Option<Dtype>,
}

/// What a model is in a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The `base_model`, whether or not it is one of the models too.
    Base,
    /// One of the models.
    Input,
}

/// A model that was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRecord {
    /// The name as the configuration has it, in the form `path@revision+lora`.
    pub name: String,
    /// The folder that was read.
    pub path: PathBuf,
    /// The adapter's folder, for a model with a LoRA.
    pub lora: Option<PathBuf>,
    /// What it is in the merge.
    pub role: Role,
    /// What the folder at `path` held, without the adapter.
    pub contents: Contents,
    /// What the adapter's folder held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Contents>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputRecord {
    /// What the folder holds; its files are those that a reader of the model needs, without the manifest.
    pub contents: Contents,
    /// For each tensor the inputs that it was made of, as places in [`Manifest::inputs`], increasing.
    #[serde(deserialize_with = "hex::unique")]
    pub from: BTreeMap<String, Vec<usize>>,
}

/// The contents of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// Bytes of each file, by name.
    #[serde(deserialize_with = "hex::unique")]
    pub files: BTreeMap<String, u64>,
    /// BLAKE3 of `config.json`, where there is one.
    #[serde(with = "hex::option")]
    pub config: Option<Hash>,
    /// Every tensor, by name.
    #[serde(deserialize_with = "hex::unique")]
    pub tensors: BTreeMap<String, TensorRecord>,
    /// The content hash, of the tensors alone.
    #[serde(with = "hex")]
    pub content: Hash,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRecord {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    /// BLAKE3 of its bytes.
    #[serde(with = "hex")]
    pub blake3: Hash,
}

/// What became of the inputs' tensors: each is merged, copied, or unused for a reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// How many tensors of the output a method computed.
    pub merged: u64,
    /// How many tensors of the output are an input's, as it is.
    pub copied: u64,
    /// The tensors of inputs that have no part in the output.
    pub unused: Vec<Unused>,
}

/// A tensor of an input that has no part in the output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unused {
    /// The place of the model in [`Manifest::inputs`].
    pub input: usize,
    /// The tensor's name there.
    pub tensor: String,
    /// Why.
    pub reason: String,
}

/// The content hash of a checkpoint (see the [module](self)), in whatever order its tensors come.
///
/// In names, a backslash, tab and line feed stand as `\\`, `\t` and `\n`.
pub fn content_hash<'a>(
    tensors: impl IntoIterator<Item = (&'a str, Dtype, &'a [usize], Hash)>,
) -> Hash {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_unstable_by_key(|(name, ..)| *name);
    let mut hasher = blake3::Hasher::new();
    for (name, dtype, shape, hash) in tensors {
        let name = name.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n");
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        let line = format!("{name}\t{dtype}\t{}\t{}\n", shape.join(","), hash.to_hex());
        hasher.update(line.as_bytes());
    }
    hasher.finalize()
}

impl Contents {
    /// The contents with their content hash.
    pub fn new(
        files: BTreeMap<String, u64>,
        config: Option<Hash>,
        tensors: BTreeMap<String, TensorRecord>,
    ) -> Self {
        let content = Self::hash(&tensors);
        Self { files, config, tensors, content }
    }

    fn hash(tensors: &BTreeMap<String, TensorRecord>) -> Hash {
        content_hash(tensors.iter().map(|(n, t)| (n.as_str(), t.dtype, &t.shape[..], t.blake3)))
    }
}

impl Manifest {
    /// Reads the manifest at `path`, a file, or in the folder `path`.
    ///
    /// # Errors
    /// For a file that cannot be read, is no JSON, has missing, unknown or doubled keys, is of a newer format, or
    /// contradicts itself.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let mut path = path.as_ref().to_owned();
        if path.is_dir() {
            path.push(FILE);
        }
        let text = fs::read(&path).map_err(Error::io(&path))?;
        Self::parse(&text, &path)
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self, Error> {
        /// The one key that every format has.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = serde_json::from_slice(text).map_err(Error::json(path))?;
        if version.format != FORMAT {
            let reason = format!("`format` is {}, this version reads {FORMAT}", version.format);
            return Err(Error::Manifest { path: path.to_owned(), reason });
        }
        let manifest: Self = serde_json::from_slice(text).map_err(Error::json(path))?;
        manifest.check().map_err(|reason| Error::Manifest { path: path.to_owned(), reason })?;
        Ok(manifest)
    }

    /// Writes `merge.json` into `folder`: under another name first, so that it is there whole or not at all.
    ///
    /// # Errors
    /// For a manifest that contradicts itself, and for what the system refuses.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<(), Error> {
        let path = folder.as_ref().join(FILE);
        self.check().map_err(|reason| Error::Manifest { path: path.clone(), reason })?;
        let mut text = serde_json::to_vec_pretty(self).map_err(Error::json(&path))?;
        text.push(b'\n');
        let temporary = folder.as_ref().join(format!(".{FILE}.{}.tmp", std::process::id()));
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|source| {
            // Nothing can be done about a failure, and nobody takes the file for the manifest.
            let _ = fs::remove_file(&temporary);
            Error::Io { path, source }
        })
    }

    /// The first contradiction, in words.
    fn check(&self) -> Result<(), String> {
        if let Err(error) = self.created.parse::<jiff::Timestamp>() {
            return Err(format!("`created` is `{}`, expected RFC 3339: {error}", self.created));
        }
        let whole = |key: &str, contents: &Contents| {
            let content = Contents::hash(&contents.tensors);
            if content == contents.content {
                return Ok(());
            }
            let found = contents.content;
            Err(format!("`{key}.contents.content` is {found}, but its tensors give {content}"))
        };
        for (place, input) in self.inputs.iter().enumerate() {
            whole(&format!("inputs[{place}]"), &input.contents)?;
        }
        whole("output", &self.output.contents)?;
        let inputs = self.inputs.len();
        for (tensor, from) in &self.output.from {
            if !self.output.contents.tensors.contains_key(tensor) {
                return Err(format!(
                    "`output.from` has `{tensor}`, which is no tensor of the output"
                ));
            }
            if !from.is_sorted_by(|a, b| a < b) || from.last().is_some_and(|last| *last >= inputs) {
                return Err(format!(
                    "`output.from` of `{tensor}` is {from:?}, expected increasing places of {inputs} inputs"
                ));
            }
        }
        let missing =
            self.output.contents.tensors.keys().find(|t| !self.output.from.contains_key(*t));
        if let Some(tensor) = missing {
            return Err(format!(
                "`output.from` has no `{tensor}`, which is a tensor of the output"
            ));
        }
        for (place, unused) in self.coverage.unused.iter().enumerate() {
            if !self
                .inputs
                .get(unused.input)
                .is_some_and(|i| i.contents.tensors.contains_key(&unused.tensor))
            {
                return Err(format!(
                    "`coverage.unused[{place}]` is `{}` of input {}, which has no such tensor",
                    unused.tensor, unused.input
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
