//! Whether an interrupted merge is the beginning of this one.

use super::Plan;
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
        for input in &self.inputs {
            let mut files: Vec<_> =
                input.stored().iter().map(|(_, tensor)| tensor.file()).collect();
            files.dedup();
            for file in files {
                let found = std::fs::metadata(file).ok();
                let length = found.as_ref().map(std::fs::Metadata::len);
                let modified = found.and_then(|found| found.modified().ok());
                line(format!("{} {length:?} {modified:?}", file.display()));
            }
        }
        for output in &self.outputs {
            line(format!("{} {:?} {}", output.name, output.shape, dtype::name(output.dtype)));
            match &output.origin {
                Origin::Copy { .. } => line("copy".into()),
                Origin::Merge { method, arithmetic, .. } => {
                    line(format!("{method:?} {arithmetic:?}"));
                }
            }
            for (input, tensor) in output.stored() {
                line(format!("{input} {:?}", tensor.bytes.range()));
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}
