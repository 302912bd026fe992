//! New files beside the old ones until all are on disk, then a switch that a kill cannot halve.
//!
//! Readers take `model.safetensors`, otherwise the index. The order of the moves keeps one of these
//! pointing at a whole checkpoint. Only where new shards have the names of old ones this is
//! impossible: then the old index goes first, so that for the moment of the moves the folder has no
//! weights at all rather than a mixture, and [`recover`] can finish the moves.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use super::{INDEX, STAGE, WEIGHTS, broken, io_error};
use crate::error::Error;

/// Present once every staged file is on disk; lists the weight files of the new checkpoint.
const READY: &str = ".ready.json";

/// The files of a save that is going on.
#[derive(Debug)]
pub(super) struct Stage {
    folder: PathBuf,
    staged: PathBuf,
    /// From here on what is staged is worth more than what is in the folder.
    ready: bool,
}

impl Stage {
    /// Start a save; what an interrupted one has left is removed.
    pub(super) fn new(folder: &Path) -> Result<Self, Error> {
        let stage = folder.join(STAGE);
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        remove_tree(&stage)?;
        fs::create_dir(&stage).map_err(io_error(&stage))?;
        Ok(Self { folder: folder.to_owned(), staged: stage, ready: false })
    }

    /// A new file; the caller syncs it.
    pub(super) fn create(&mut self, name: &str) -> Result<(PathBuf, File), Error> {
        let path = self.staged.join(name);
        // A name that leaves the folder would also be moved out of it.
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || name == READY || !inside {
            return Err(broken(&path, "is not a name inside the folder"));
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io_error(parent))?;
        }
        let file = File::create_new(&path).map_err(io_error(&path))?;
        Ok((path, file))
    }

    /// A new file with this content, on disk.
    pub(super) fn write(&mut self, name: &str, content: &[u8]) -> Result<(), Error> {
        let (path, mut file) = self.create(name)?;
        file.write_all(content).and_then(|()| file.sync_all()).map_err(io_error(path))
    }

    /// Move everything to its place and remove what the new checkpoint does not have.
    pub(super) fn commit<'a>(
        mut self,
        weights: impl Iterator<Item = &'a str>,
    ) -> Result<(), Error> {
        let weights: Vec<&str> = weights.collect();
        let list = serde_json::Value::from(weights).to_string();
        let (unready, ready) = (self.staged.join(".unready.json"), self.staged.join(READY));
        let mut file = File::create(&unready).map_err(io_error(&unready))?;
        file.write_all(list.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&unready, &ready))
            .map_err(io_error(&ready))?;
        sync_folder(&self.staged)?;
        sync_folder(&self.folder)?;
        self.ready = true;
        finish(&self.folder).map(|_| ())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.ready {
            // Nothing better to do with an error here; the next save removes it or says why not.
            let _ = fs::remove_dir_all(&self.staged);
        }
    }
}

/// Finish a save that was killed while it moved its files; `false` if there was nothing to finish.
///
/// A save that was killed earlier leaves the former checkpoint, and the next save removes its rest.
///
/// # Errors
/// When a file cannot be moved.
pub fn recover(folder: impl AsRef<Path>) -> Result<bool, Error> {
    finish(folder.as_ref())
}

/// Whether a save was killed while it moved its files, so that the folder may hold parts of both.
pub(crate) fn interrupted(folder: &Path) -> bool {
    folder.join(STAGE).join(READY).exists()
}

fn finish(folder: &Path) -> Result<bool, Error> {
    let stage = folder.join(STAGE);
    let ready = stage.join(READY);
    let list = match fs::read(&ready) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error(ready)(error)),
    };
    let weights: Vec<String> = serde_json::from_slice(&list)
        .map_err(|source| Error::Json { path: ready.clone(), source })?;
    move_companions(&stage, folder, Path::new(""), &weights)?;
    let collides = |name: &String| stage.join(name).exists() && folder.join(name).exists();
    let mut shards = weights.iter().filter(|name| *name != WEIGHTS && *name != INDEX);
    if shards.any(collides) {
        remove_file(&folder.join(INDEX))?;
        sync_folder(folder)?;
    }
    // The index is the last of the list: from there on the new checkpoint is the one that loads.
    for name in &weights {
        if name == INDEX {
            sync_folder(folder)?;
        }
        move_file(&stage.join(name), &folder.join(name))?;
    }
    sync_folder(folder)?;
    remove_stale(folder, &weights)?;
    sync_folder(folder)?;
    remove_tree(&stage)?;
    Ok(true)
}

fn move_companions(from: &Path, to: &Path, inner: &Path, weights: &[String]) -> Result<(), Error> {
    let source = from.join(inner);
    for entry in fs::read_dir(&source).map_err(io_error(&source))? {
        let entry = entry.map_err(io_error(&source))?;
        let name = inner.join(entry.file_name());
        if name == Path::new(READY) || weights.iter().any(|weight| Path::new(weight) == name) {
            continue;
        }
        if entry.path().is_dir() {
            let folder = to.join(&name);
            fs::create_dir_all(&folder).map_err(io_error(&folder))?;
            move_companions(from, to, &name, weights)?;
            sync_folder(&folder)?;
        } else {
            move_file(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

/// Also fine when an interrupted commit has moved it already.
fn move_file(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && to.exists() => Ok(()),
        result => result.map_err(io_error(to)),
    }
}

/// What a reader could take for a part of the new checkpoint. The index goes before its shards.
/// Weights of another kind, such as an adapter's, leave a checkpoint beside them alone.
fn remove_stale(folder: &Path, weights: &[String]) -> Result<(), Error> {
    let ours = |name: &str| name == WEIGHTS || name == INDEX || is_shard(name);
    if !weights.iter().any(|weight| ours(weight)) {
        return Ok(());
    }
    let mut stale = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let name = entry.map_err(io_error(folder))?.file_name();
        let Some(name) = name.to_str() else { continue };
        if ours(name) && !weights.iter().any(|weight| weight == name) {
            stale.push(name.to_owned());
        }
    }
    stale.sort_by_key(|name| name != INDEX);
    stale.iter().try_for_each(|name| remove_file(&folder.join(name)))
}

/// `model-00001-of-00003.safetensors`
fn is_shard(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"))
        .and_then(|rest| rest.split_once("-of-"))
        .is_some_and(|(number, count)| digits(number) && digits(count))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(io_error(path)),
    }
}

fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(io_error(path)),
    }
}

/// Make renames durable; only Unix opens folders.
fn sync_folder(folder: &Path) -> Result<(), Error> {
    if cfg!(unix) {
        File::open(folder).and_then(|file| file.sync_all()).map_err(io_error(folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_names() {
        assert!(is_shard("model-00001-of-00003.safetensors"));
        assert!(!is_shard("model-a-of-00003.safetensors"));
        assert!(!is_shard("adapter_model.safetensors"));
        assert!(!is_shard("model-00001-of-00003.bin"));
    }

    #[test]
    fn names_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let mut stage = Stage::new(folder.path()).unwrap();
        for name in ["../x", "/x", "", "a/../../x", READY] {
            assert!(stage.create(name).is_err(), "{name}");
        }
        stage.write("chat_templates/a.jinja", b"x").unwrap();
    }

    #[test]
    fn an_interrupted_commit_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX]
        {
            fs::write(at(name), "old").unwrap();
        }
        assert!(!recover(folder.path()).unwrap());
        let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX];
        let mut stage = Stage::new(folder.path()).unwrap();
        for name in names.iter().chain(&["config.json"]) {
            stage.write(name, b"new").unwrap();
        }
        fs::write(at(STAGE).join(READY), serde_json::to_vec(&names).unwrap()).unwrap();
        std::mem::forget(stage);
        // As after a kill between two moves.
        fs::remove_file(at(INDEX)).unwrap();
        fs::rename(at(STAGE).join(names[0]), at(names[0])).unwrap();
        assert!(recover(folder.path()).unwrap());
        for name in names.iter().chain(&["config.json"]) {
            assert_eq!(fs::read(at(name)).unwrap(), b"new", "{name}");
        }
        assert!(!at(STAGE).exists());
    }
}
