//! Whether a merged checkpoint is still what its manifest says.

use std::path::Path;

use rayon::prelude::*;

use super::{hashes, record};
use crate::manifest::{Contents, Found, Manifest, TensorRecord, VerifyReport};
use crate::{Checkpoint, Error, manifest};

/// Hashes every tensor of the merged folder and of its inputs again and compares them, and the other files' sizes,
/// with the manifest.
///
/// ```no_run
/// let report = posttrain_merge::verify("merged".as_ref())?;
/// assert!(report.is_ok(), "{report}");
/// # Ok::<(), posttrain_merge::Error>(())
/// ```
///
/// # Errors
/// For a manifest or a checkpoint that cannot be read; what differs is in the report.
pub fn verify(folder: &Path) -> Result<VerifyReport, Error> {
    let found = Manifest::read(folder)?;
    let output = contents(folder)?;
    manifest::verify(&found, &output, |input| {
        if !input.path.exists() {
            return Ok(None);
        }
        Ok(Some(Found { path: input.path.clone(), contents: contents(&input.path)? }))
    })
}

/// What a checkpoint holds now.
fn contents(path: &Path) -> Result<Contents, Error> {
    let checkpoint = Checkpoint::open(path).or_else(|error| {
        // What was merged of bare files has no configuration.
        let bare = path.join("model.safetensors");
        if path.join("config.json").exists() || !bare.exists() {
            return Err(error);
        }
        Checkpoint::open(bare)
    })?;
    let tensors = checkpoint
        .tensors()
        .par_iter()
        .map(|(name, tensor)| {
            let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
            (name.clone(), TensorRecord { dtype, shape, blake3: hashes::of(tensor.bytes()) })
        })
        .collect();
    Ok(Contents::new(record::files(path)?, record::config_hash(path)?, tensors))
}
