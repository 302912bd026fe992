//! Whether an interrupted merge is the beginning of this one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Plan;
use super::input::Input;
use super::output::Origin;
use crate::dtype;

impl Plan {
    /// A hash of all that the bytes of the output depend on; of the inputs, which files, how long and how
    /// old.
    pub(crate) fn fingerprint(&self, shard_size: u64) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut line = |text: String| {
            hasher.update(text.as_bytes());
            hasher.update(b"\n");
        };
        line(format!("{} {} {shard_size}", env!("CARGO_PKG_VERSION"), self.seed()));
        line(self.config.to_value().to_string());
        for input in &self.inputs {
            for file in files(input) {
                let found = std::fs::metadata(&file).ok();
                let length = found.as_ref().map(std::fs::Metadata::len);
                let modified = found.and_then(|found| found.modified().ok());
                line(format!("{} {length:?} {modified:?}", file.display()));
            }
        }
        for output in &self.outputs {
            line(format!("{} {:?} {}", output.name, output.shape, dtype::name(output.dtype)));
            match &output.origin {
                Origin::Copy { .. } => line("copy".into()),
                Origin::Merge { method, parameters, arithmetic, .. } => {
                    line(format!("{method:?} {parameters:?} {arithmetic:?}"));
                }
            }
            for (input, tensor) in output.stored() {
                line(format!("{input} {:?}", tensor.bytes.range()));
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// What the tensors of an input are read from and by: weights, settings (of layers, scales, adapters) and
/// vocabularies.
fn files(input: &Input) -> BTreeSet<PathBuf> {
    let stored = input.stored().iter().map(|(_, tensor)| tensor.file().to_owned());
    let mut files: BTreeSet<PathBuf> = stored.collect();
    for folder in [Some(&input.path), input.lora.as_ref()].into_iter().flatten() {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.extend(entries.map(|entry| entry.path()).filter(|path| {
            path.extension().is_some_and(|ending| ending == "json" || ending == "model")
        }));
    }
    files
}
