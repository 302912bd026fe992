//! Whether a merged checkpoint is still what its manifest says.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::{hashes, record};
use crate::manifest::{Contents, Found, Manifest, TensorRecord, VerifyReport};
use crate::{Checkpoint, Error, Tensor, manifest};

/// Hashes every tensor of the merged folder and of its inputs again and compares them, and the other files' sizes,
/// with the manifest. Of a folder that is broken, the tensors of files that cannot be read are gone.
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

/// What a checkpoint holds now. Of one that is broken, what can still be read: the tensors of the other files.
fn contents(path: &Path) -> Result<Contents, Error> {
    let mut found = BTreeMap::new();
    let mut hash = |checkpoint: &Checkpoint| {
        let one = |(name, tensor): (&String, &Tensor)| {
            let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
            (name.clone(), TensorRecord { dtype, shape, blake3: hashes::of(tensor.bytes()) })
        };
        found.par_extend(checkpoint.tensors().par_iter().map(one));
    };
    let files = record::files(path)?;
    match Checkpoint::open(path) {
        Ok(checkpoint) => hash(&checkpoint),
        Err(error) if path.is_file() => return Err(error),
        Err(_) => {
            let weights = files.keys().filter(|file| file.ends_with(".safetensors"));
            weights
                .filter_map(|file| Checkpoint::open(path.join(file)).ok())
                .for_each(|file| hash(&file));
        }
    }
    Ok(Contents::new(files, record::config_hash(path)?, found))
}
