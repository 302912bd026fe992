//! A file that has its name only when it is complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Tells the temporary files of one process apart.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Where a file is written until it is complete: beside its place, under a name that begins with a dot.
/// Dropped before, it is removed.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    temporary: PathBuf,
    done: bool,
}

impl Staged {
    pub(super) fn create(path: &Path) -> Result<(Self, File)> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_file_name(format!(".{name}.{}-{count}.tmp", std::process::id()));
        if path.is_dir() {
            let source = io::Error::from(io::ErrorKind::IsADirectory);
            return Err(Error::Io { path: path.to_owned(), source });
        }
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true);
        let file = options.open(&temporary).map_err(Error::io(path))?;
        Ok((Self { path: path.to_owned(), temporary, done: false }, file))
    }

    /// The place that the file will have.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, in place of one that had it.
    pub(super) fn commit(mut self, file: &File) -> Result<()> {
        file.sync_all().map_err(Error::io(&self.path))?;
        fs::rename(&self.temporary, &self.path).map_err(Error::io(&self.path))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.done {
            // Nothing can be done about a failure, and nobody takes the file for the complete one.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
