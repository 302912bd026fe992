//! Log-probabilities of the reference, computed once and kept in a file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::checkpoint::write_file;
use crate::data::{Batches, fold};
use crate::error::Error;

/// Of each text the sum over its answer, and the part of it past the length of the shortest answer of
/// its row.
pub(super) type Sums = Vec<[f64; 2]>;

/// What the numbers were made of: names and checksums.
pub(super) type Origin = BTreeMap<String, String>;

/// Those of the training rows, then those of the validation rows.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) sets: [Sums; 2],
}

const NAMES: [&str; 2] = ["train", "validation"];
const FORMAT: &str = "posttrain ref_log_probs 1";

impl Stored {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a file that is broken or was made of something else.
    pub(super) fn read(path: &Path, origin: &Origin) -> Result<Option<Self>, Error> {
        if !path.exists() {
            return Ok(None);
        }
        let fail = |reason: String| Error::Checkpoint { path: path.to_owned(), reason };
        let bytes = fs::read(path).map_err(Error::io(path))?;
        let broken = |error: &dyn std::fmt::Display| fail(format!("not readable: {error}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| broken(&error))?;
        let found = header.metadata().clone().unwrap_or_default();
        if found.get("format").is_none_or(|format| format != FORMAT) {
            return Err(fail("no file of a reference's log-probabilities".into()));
        }
        for (name, now) in origin {
            let then = found.get(name).map_or("unknown", String::as_str);
            if then != now {
                return Err(fail(format!(
                    "the {name} has the checksum {now}, and the file was made of {then}: remove the \
                     file, or name another in `ref_log_probs`"
                )));
            }
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|error| broken(&error))?;
        let set = |name| -> Result<Sums, Error> {
            let view = file.tensor(name).map_err(|error| broken(&error))?;
            if view.dtype() != Dtype::F64 || view.shape().get(1) != Some(&2) {
                return Err(fail(format!("`{name}` is {:?} {:?}", view.dtype(), view.shape())));
            }
            let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().expect("8 bytes"));
            let rows = view.data().chunks_exact(16);
            Ok(rows.map(|row| [number(&row[..8]), number(&row[8..])]).collect())
        };
        Ok(Some(Self { sets: [set(NAMES[0])?, set(NAMES[1])?] }))
    }

    /// Writes the file, whole or not at all.
    pub(super) fn write(&self, path: &Path, origin: &Origin) -> Result<(), Error> {
        let bytes = self.sets.each_ref().map(|set| -> Vec<u8> {
            set.iter().flatten().flat_map(|number| number.to_le_bytes()).collect()
        });
        let views = NAMES.iter().zip(&self.sets).zip(&bytes).map(|((name, set), bytes)| {
            let view = TensorView::new(Dtype::F64, vec![set.len(), 2], bytes);
            (*name, view.expect("as many bytes as the shape says"))
        });
        let format = ("format".to_owned(), FORMAT.to_owned());
        let about = origin.clone().into_iter().chain([format]).collect();
        let content = safetensors::serialize(views, Some(about)).expect("tensors in memory");
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        write_file(path, &content)
    }
}

/// The rows of both sets, whose ids and masks also say what the tokenizer and the template did.
pub(super) fn rows(train: &Batches, validation: Option<&Batches>) -> Origin {
    let sets = [Some(train), validation];
    let print = |set: Option<&Batches>| {
        set.map_or("none".to_owned(), |rows| format!("{:016x}", rows.position().fingerprint()))
    };
    let names = ["training rows as tokens", "validation rows as tokens"];
    names.into_iter().zip(sets).map(|(name, set)| (name.to_owned(), print(set))).collect()
}

/// A checksum of the weights and settings in some folders.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn checksum(folders: &[&Path], settings: &str) -> Result<String, Error> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(folder).map_err(Error::io(*folder))? {
            let path = entry.map_err(Error::io(*folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".safetensors") || name.ends_with("config.json") {
                files.push(path);
            }
        }
    }
    files.sort();
    let each: Vec<u64> = files.par_iter().map(|path| of_file(path)).collect::<Result<_, _>>()?;
    let settings = settings.bytes().map(u64::from);
    Ok(format!("{:016x}", fold(files.len() as u64, each.into_iter().chain(settings))))
}

fn of_file(path: &Path) -> Result<u64, Error> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut buffer, mut hash) = (vec![0; 1 << 20], 0);
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]).map_err(Error::io(path))? {
                0 => break,
                more => filled += more,
            }
        }
        if filled == 0 {
            return Ok(hash);
        }
        let words = buffer[..filled]
            .chunks(8)
            .map(|bytes| bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)));
        hash = fold(hash ^ filled as u64, words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/ref.safetensors");
        let origin = |model: &str| Origin::from([("model".to_owned(), model.to_owned())]);
        let sets = [vec![[-1.5, -0.25], [-3.0, 0.0]], vec![]];
        assert!(Stored::read(&path, &origin("a")).unwrap().is_none());
        Stored { sets: sets.clone() }.write(&path, &origin("a")).unwrap();
        assert_eq!(Stored::read(&path, &origin("a")).unwrap().unwrap().sets, sets);
        let stale = Stored::read(&path, &origin("b")).unwrap_err().to_string();
        assert!(
            stale.contains("the model has the checksum b, and the file was made of a"),
            "{stale}"
        );
        fs::write(&path, "half").unwrap();
        assert!(
            Stored::read(&path, &origin("a")).unwrap_err().to_string().contains("not readable")
        );
    }

    #[test]
    fn every_byte_of_weights_and_settings_counts() {
        let folder = tempfile::tempdir().unwrap();
        let of = |settings| checksum(&[folder.path()], settings).unwrap();
        let write =
            |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
        write("model.safetensors", &vec![7; 2_000_000]);
        let first = of("f32");
        assert_eq!(first, of("f32"));
        assert_ne!(first, of("bf16"));
        write("README.md", b"x");
        assert_eq!(first, of("f32"));
        let mut changed = vec![7; 2_000_000];
        changed[1_999_999] = 8;
        write("model.safetensors", &changed);
        assert_ne!(first, of("f32"));
    }
}
