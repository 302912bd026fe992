//! Which tensors of an unfinished merge are written, so that it can go on.
//!
//! A line for each tensor with the hash of its bytes. What the file then holds is compared with the hash
//! before it is believed: after a power failure a line may have survived and the bytes not.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use blake3::Hash;
use serde::{Deserialize, Serialize};

use crate::Error;

pub(super) const NAME: &str = "merge.journal";

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    plan: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    tensor: String,
    blake3: String,
}

impl Line {
    fn parse(text: &str) -> Option<(String, Hash)> {
        let line: Self = serde_json::from_str(text).ok()?;
        Some((line.tensor, Hash::from_hex(line.blake3).ok()?))
    }
}

/// The record of an unfinished merge.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    /// Tensors that an earlier run has written, with their hashes.
    pub(crate) done: HashMap<String, Hash>,
}

impl Journal {
    /// Opens the record in `folder` or begins it; `plan` is the fingerprint of the plan.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Unfinished`] when the folder holds the beginning of another merge.
    pub(crate) fn open(folder: &Path, plan: &str) -> Result<Self, Error> {
        let path = folder.join(NAME);
        let mut done = HashMap::new();
        if path.exists() {
            // The last line may be cut off, in the middle of a letter even.
            let text = std::fs::read(&path).map_err(Error::io(&path))?;
            let text = String::from_utf8_lossy(&text);
            let mut lines = text.lines();
            let head: Option<Head> = lines.next().and_then(|line| serde_json::from_str(line).ok());
            match head {
                Some(head) if head.plan == plan => {}
                _ => return Err(Error::Unfinished { path: folder.to_owned() }),
            }
            done.extend(lines.map_while(Line::parse));
        }
        // Written anew, so that no cut-off line stands before the next one.
        let mut text = serde_json::to_string(&Head { plan: plan.into() }).expect("JSON") + "\n";
        for (tensor, blake3) in &done {
            text += &line(tensor, *blake3);
        }
        let fresh = folder.join(format!("{NAME}.new"));
        std::fs::write(&fresh, text).map_err(Error::io(&fresh))?;
        std::fs::rename(&fresh, &path).map_err(Error::io(&path))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Self { path, file: Mutex::new(file), done })
    }

    /// Records a tensor whose bytes are in their place.
    pub(crate) fn add(&self, tensor: &str, blake3: Hash) -> Result<(), Error> {
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(line(tensor, blake3).as_bytes()).map_err(Error::io(&self.path))
    }

    /// Removes the record of a finished merge.
    pub(crate) fn remove(self) -> Result<(), Error> {
        std::fs::remove_file(&self.path).map_err(Error::io(&self.path))
    }
}

fn line(tensor: &str, blake3: Hash) -> String {
    let line = Line { tensor: tensor.into(), blake3: blake3.to_hex().to_string() };
    serde_json::to_string(&line).expect("JSON") + "\n"
}
