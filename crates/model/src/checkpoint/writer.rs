//! Saving in the layout of Hugging Face, tensor by tensor.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::layout::{Layout, Plan, PlannedFile, TensorSpec};
use super::reader::Checkpoint;
use super::stage::Stage;
use super::{INDEX, Metadata, header, io_error};
use crate::error::Error;

/// How to save; the default is that of `save_pretrained` of transformers 5.23.
#[derive(Debug, Clone)]
pub struct SaveOptions {
    /// The size in bytes from which on there are several files; 50 GB by default.
    pub max_shard_size: u64,
    /// The `__metadata__` of each file; `format: pt` by default.
    pub metadata: Metadata,
    /// `total_parameters` of the index where it is not the number of elements that are saved.
    pub total_parameters: Option<u64>,
    /// The files of a former checkpoint, kept if names, dtypes and shapes of all tensors are the
    /// same; otherwise the tensors are spread anew by `max_shard_size`.
    pub layout: Option<Layout>,
    /// Files that belong to the weights and appear with them: `config.json`, the tokenizer. The
    /// name may have folders in it, separated by `/`.
    pub companions: Vec<(String, Vec<u8>)>,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            max_shard_size: 50_000_000_000,
            metadata: vec![("format".to_owned(), "pt".to_owned())],
            total_parameters: None,
            layout: None,
            companions: Vec::new(),
        }
    }
}

impl SaveOptions {
    /// Save as this checkpoint is saved: the same files with the same metadata.
    #[must_use]
    pub fn like(checkpoint: &Checkpoint) -> Self {
        let layout = checkpoint.layout();
        let metadata = layout.metadata().clone();
        Self { metadata, layout: Some(layout), ..Self::default() }
    }
}

/// What a save has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The weight files and the index, if there is one.
    pub files: Vec<PathBuf>,
    /// The bytes of all tensors.
    pub total_size: u64,
}

/// Save the tensors, in the order of the model's state dict, to the folder.
///
/// `bytes` gives the elements of a tensor in little endian when it is its turn; the order is that
/// of the files. Only one tensor is in memory at a time.
///
/// Everything is written to a folder inside `folder` first and moved when it is complete and on
/// disk. If `bytes` fails or the process dies before, the former checkpoint stays as it was.
///
/// # Errors
/// When a file cannot be written, a name is given twice, or `bytes` fails or gives the wrong
/// number of bytes.
pub fn save<'a>(
    folder: impl AsRef<Path>,
    tensors: &[TensorSpec],
    mut bytes: impl FnMut(&str) -> Result<Cow<'a, [u8]>, Error>,
    options: &SaveOptions,
) -> Result<Saved, Error> {
    let folder = folder.as_ref();
    let plan = Plan::new(tensors, options)?;
    let mut stage = Stage::new(folder)?;
    let mut total_size = 0;
    for file in &plan.files {
        total_size += write_file(&mut stage, file, &mut bytes)?;
    }
    if let Some(index) = &plan.index {
        stage.write(INDEX, index)?;
    }
    for (name, content) in &options.companions {
        stage.write(name, content)?;
    }
    stage.commit(plan.names())?;
    Ok(Saved { files: plan.names().map(|name| folder.join(name)).collect(), total_size })
}

/// Save tensors to one file of this name with `format: pt`, and other files with it, as [`save`]
/// does.
pub(crate) fn save_file<'a>(
    folder: &Path,
    name: &str,
    tensors: &[TensorSpec],
    mut bytes: impl FnMut(&str) -> Result<Cow<'a, [u8]>, Error>,
    companions: &[(String, Vec<u8>)],
) -> Result<(), Error> {
    let mut stage = Stage::new(folder)?;
    let metadata = SaveOptions::default().metadata;
    let file = PlannedFile { name: name.to_owned(), metadata, tensors: tensors.iter().collect() };
    write_file(&mut stage, &file, &mut bytes)?;
    for (name, content) in companions {
        stage.write(name, content)?;
    }
    stage.commit(std::iter::once(name))
}

fn write_file<'a>(
    stage: &mut Stage,
    file: &PlannedFile<'_>,
    bytes: &mut impl FnMut(&str) -> Result<Cow<'a, [u8]>, Error>,
) -> Result<u64, Error> {
    let mut tensors = file.tensors.clone();
    header::sort(&mut tensors);
    let head = header::write(&file.metadata, &tensors)?;
    let (path, output) = stage.create(&file.name)?;
    let mut output = BufWriter::with_capacity(1 << 20, output);
    output.write_all(&head).map_err(io_error(&path))?;
    let mut size = 0;
    for tensor in tensors {
        let content = bytes(&tensor.name)?;
        let expected = tensor.byte_len()?;
        if content.len() != expected {
            return Err(Error::Input {
                what: format!("the number of bytes of tensor `{}`", tensor.name),
                found: content.len().to_string(),
                expected: format!("{expected} for {} of shape {:?}", tensor.dtype, tensor.shape),
            });
        }
        output.write_all(&content).map_err(io_error(&path))?;
        size += content.len() as u64;
    }
    let output: File = output.into_inner().map_err(|error| io_error(&path)(error.into_error()))?;
    output.sync_all().map_err(io_error(&path))?;
    Ok(size)
}
