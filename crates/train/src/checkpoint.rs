//! Checkpoints of a run: folders that are whole or not there.
//!
//! ```text
//! output_dir/checkpoint-500/   the weights (or the adapter), optimizer.safetensors, trainer_state.json
//! ```
//!
//! A checkpoint is written under another name, brought to disk and renamed; one that is removed is
//! renamed first. A run that is killed at any moment leaves only whole checkpoints under their names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// What a run needs beside weights and optimizer to go on.
const STATE: &str = "trainer_state.json";
const NAME: &str = "checkpoint-";
/// Names of folders that are being written or removed.
const WRITING: &str = ".writing-";
const REMOVING: &str = ".removing-";

/// The checkpoints in a folder.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// Those of a run's folder, which is made if it is not there. What a killed run left half-written
    /// or half-removed is removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        for (name, path) in entries(&folder)? {
            if name.starts_with(WRITING) || name.starts_with(REMOVING) {
                fs::remove_dir_all(&path).map_err(Error::io(&path))?;
            }
        }
        Ok(Self { folder })
    }

    /// Steps and folders, oldest first.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>, Error> {
        let mut found = Vec::new();
        for (name, path) in entries(&self.folder)? {
            let step = name.strip_prefix(NAME).and_then(|step| step.parse().ok());
            if let Some(step) = step.filter(|_| path.is_dir()) {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Where the checkpoint of a step stands.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{NAME}{step}"))
    }

    /// Writes the checkpoint of a step: `fill` writes its files into the folder that it is given,
    /// `state` is what [`read_state`] gives back. One of the same step is replaced.
    ///
    /// # Errors
    /// [`Error::Io`], and those of `fill`; what stood before stands then still.
    pub fn write(
        &self,
        step: u64,
        state: &impl Serialize,
        fill: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let (stage, target) = (self.folder.join(format!("{WRITING}{step}")), self.path(step));
        if stage.exists() {
            fs::remove_dir_all(&stage).map_err(Error::io(&stage))?;
        }
        fs::create_dir(&stage).map_err(Error::io(&stage))?;
        fill(&stage)?;
        let path = stage.join(STATE);
        let text = serde_json::to_vec_pretty(state).expect("a state is JSON");
        fs::write(&path, text).map_err(Error::io(&path))?;
        sync(&stage)?;
        if target.exists() {
            self.remove(step)?;
        }
        fs::rename(&stage, &target).map_err(Error::io(&target))?;
        File::open(&self.folder).and_then(|f| f.sync_all()).map_err(Error::io(&self.folder))?;
        Ok(target)
    }

    /// Removes all but the newest `keep` and those of the steps in `spare`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn prune(&self, keep: usize, spare: &[u64]) -> Result<(), Error> {
        let all = self.list()?;
        let old = all.len().saturating_sub(keep);
        for (step, _) in all.into_iter().take(old).filter(|(step, _)| !spare.contains(step)) {
            self.remove(step)?;
        }
        Ok(())
    }

    /// Renames those after a step, and one of the same step that stands elsewhere than `used`, to
    /// `abandoned-checkpoint-N`: a run that goes on with an older checkpoint makes these steps anew.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_aside_after(&self, step: u64, used: &Path) -> Result<(), Error> {
        let used = used.canonicalize().map_err(Error::io(used))?;
        for (found, path) in self.list()? {
            let other = || Ok::<_, Error>(path.canonicalize().map_err(Error::io(&path))? != used);
            if found > step || (found == step && other()?) {
                let name = format!("abandoned-{NAME}{found}");
                let plain = self.folder.join(&name);
                let free = if plain.exists() { numbered(&plain) } else { plain };
                fs::rename(&path, free).map_err(Error::io(&path))?;
            }
        }
        Ok(())
    }

    fn remove(&self, step: u64) -> Result<(), Error> {
        let (path, gone) = (self.path(step), self.folder.join(format!("{REMOVING}{step}")));
        fs::rename(&path, &gone).map_err(Error::io(&path))?;
        fs::remove_dir_all(&gone).map_err(Error::io(&gone))
    }
}

/// The state of a checkpoint.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] for a state of another form.
pub fn read_state<T: DeserializeOwned>(checkpoint: &Path) -> Result<T, Error> {
    read_json(&checkpoint.join(STATE))
}

/// A JSON file of a checkpoint.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = fs::read(path).map_err(Error::io(path))?;
    let broken = |error: serde_json::Error| Error::Checkpoint {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    serde_json::from_slice(&text).map_err(broken)
}

/// Writes a file so that it is whole or as it was: under another name, brought to disk, renamed.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stage = path.with_file_name(format!(".{name}.tmp"));
    fs::write(&stage, content).map_err(Error::io(&stage))?;
    File::open(&stage).and_then(|file| file.sync_all()).map_err(Error::io(&stage))?;
    fs::rename(&stage, path).map_err(Error::io(path))
}

/// The first free name with a number behind that of `path`.
pub(crate) fn numbered(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut names = (1..u32::MAX).map(|number| path.with_file_name(format!("{name}.{number}")));
    names.find(|path| !path.exists()).expect("some number is free")
}

/// Brings a folder and everything in it to disk.
fn sync(folder: &Path) -> Result<(), Error> {
    for (_, path) in entries(folder)? {
        if path.is_dir() {
            sync(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))?;
        }
    }
    File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io(folder))
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(checkpoints: &Checkpoints) -> Vec<u64> {
        checkpoints.list().unwrap().into_iter().map(|(step, _)| step).collect()
    }

    fn write(checkpoints: &Checkpoints, step: u64) -> PathBuf {
        let fill = |folder: &Path| {
            fs::write(folder.join("weights"), step.to_string()).unwrap();
            Ok(())
        };
        checkpoints.write(step, &step, fill).unwrap()
    }

    #[test]
    fn the_newest_and_the_spared_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path().join("run")).unwrap();
        for step in [2, 4, 10, 6] {
            let path = write(&checkpoints, step);
            assert_eq!(read_state::<u64>(&path).unwrap(), step);
        }
        assert_eq!(steps(&checkpoints), [2, 4, 6, 10]);
        checkpoints.prune(2, &[2]).unwrap();
        assert_eq!(steps(&checkpoints), [2, 6, 10]);
        write(&checkpoints, 10);
        assert_eq!(steps(&checkpoints), [2, 6, 10]);
    }

    #[test]
    fn what_comes_after_the_one_that_is_used_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        let [_, used, _] = [2, 4, 6].map(|step| write(&checkpoints, step));
        checkpoints.set_aside_after(4, &used).unwrap();
        assert_eq!(steps(&checkpoints), [2, 4]);
        write(&checkpoints, 6);
        checkpoints.set_aside_after(4, &used).unwrap();
        let names = ["abandoned-checkpoint-6", "abandoned-checkpoint-6.1"];
        assert!(names.iter().all(|name| folder.path().join(name).join("weights").exists()));
    }

    #[test]
    fn a_failed_or_killed_write_leaves_the_former_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        write(&checkpoints, 3);
        let broken = |path: &Path| {
            fs::write(path.join("weights"), "half").unwrap();
            Err(Error::config("x", "y", "z"))
        };
        checkpoints.write(3, &0, broken).unwrap_err();
        assert_eq!(fs::read_to_string(checkpoints.path(3).join("weights")).unwrap(), "3");
        // As after a kill while removing.
        fs::rename(checkpoints.path(3), folder.path().join(".removing-3")).unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        assert!(steps(&checkpoints).is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_broken_state_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        let path = write(&checkpoints, 1);
        fs::write(path.join(STATE), "{").unwrap();
        let error = read_state::<u64>(&path).unwrap_err().to_string();
        assert!(error.contains("trainer_state.json"), "{error}");
    }
}
