//! Hugging Face checkpoint folders: read lazily from mapped memory, checked against what a model
//! expects, written so that a killed save leaves the former checkpoint, fetched from the hub.

mod companions;
mod convert;
mod expect;
mod folder;
mod header;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod hub_options;
mod index;
mod layout;
mod map;
mod reader;
mod stage;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

pub use companions::{copy_companions, read_companions};
pub use expect::{Expected, is_derived_buffer};
pub use folder::resolve;
#[cfg(feature = "hub")]
pub use hub::download;
#[cfg(feature = "hub")]
pub use hub_options::HubOptions;
pub use layout::{Layout, TensorSpec};
pub use map::SharedBytes;
pub use reader::{Checkpoint, CheckpointFile, TensorView};
pub use safetensors::Dtype;
pub(crate) use stage::interrupted;
pub use stage::recover;
pub(crate) use writer::save_file;
pub use writer::{SaveOptions, Saved, save};

use crate::error::Error;

/// The only weight file of a checkpoint that is not sharded.
const WEIGHTS: &str = "model.safetensors";
/// What says in which shard a tensor lies.
const INDEX: &str = "model.safetensors.index.json";
/// Where a save writes until everything is on disk.
const STAGE: &str = ".posttrain-saving";

/// The `__metadata__` of a file in the order of the file.
pub type Metadata = Vec<(String, String)>;

fn io_error(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { path, source }
}

fn broken(path: &Path, reason: impl Into<String>) -> Error {
    Error::BrokenCheckpoint { path: path.to_owned(), reason: reason.into() }
}

/// Whether the name stays inside its folder, whoever wrote it.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && Path::new(name).file_name().is_some_and(|last| last == name)
}
