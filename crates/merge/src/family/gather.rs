//! From folders to the tree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use super::describe::{Described, describe};
use super::{Note, Tree, link};
use crate::Error;

/// Gathers the models of `folders` and of all folders in them, hidden ones left out, and of the folders that their
/// models came from, wherever those are.
///
/// Of a model folder it reads `merge.json`, `mergekit_config.yml`, the card `README.md` and `adapter_config.json`,
/// no tensor. A parent is recognised by its content hash first, where a manifest has it, then by its folder, then by its
/// name. Relative paths are looked up from the folders above the child, the nearest first, as far as the one of
/// `folders` that it is in, and then from the current folder. A name without a folder matches one whose path ends with
/// it, or else one whose last part is its last part.
///
/// What could not be read or decided is in [`Tree::notes`].
///
/// # Errors
/// For one of `folders` that cannot be read, and for models that came from each other in a circle.
pub fn gather(folders: &[impl AsRef<Path>]) -> Result<Tree, Error> {
    let mut notes = Vec::new();
    let mut found: BTreeMap<PathBuf, Described> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for root in folders {
        let root = root.as_ref();
        fs::read_dir(root).map_err(Error::io(root))?;
        let root = fs::canonicalize(root).map_err(Error::io(root))?;
        let mut waiting = VecDeque::from([root.clone()]);
        while let Some(folder) = waiting.pop_front() {
            if !seen.insert(folder.clone()) {
                continue;
            }
            if let Some(model) = describe(&folder, &|name| locate(name, &folder, &root), &mut notes)
            {
                found.insert(folder.clone(), model);
            }
            match folders_in(&folder) {
                Ok(inside) => waiting.extend(inside),
                Err(error) => notes.push(Note::Unreadable(error)),
            }
        }
    }
    // Parents elsewhere, and theirs.
    let mut waiting: VecDeque<PathBuf> = found.values().flat_map(parent_folders).collect();
    while let Some(folder) = waiting.pop_front() {
        if !folder.is_dir() || !seen.insert(folder.clone()) {
            continue;
        }
        if let Some(model) = describe(&folder, &|name| locate(name, &folder, &folder), &mut notes) {
            waiting.extend(parent_folders(&model));
            found.insert(folder, model);
        }
    }
    link::link(found.into_values().collect(), notes)
}

fn parent_folders(model: &Described) -> Vec<PathBuf> {
    let references = model.parents.iter().flat_map(|p| std::iter::once(&p.model).chain(&p.lora));
    references.filter_map(|reference| reference.path.clone()).collect()
}

/// The folders in one, links followed, sorted.
fn folders_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut inside = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // A link that leads nowhere is no folder.
        if !hidden && path.is_dir() {
            inside.push(fs::canonicalize(&path).map_err(Error::io(&path))?);
        }
    }
    inside.sort();
    Ok(inside)
}

/// The folder that a name in `folder`'s configuration means.
fn locate(name: &str, folder: &Path, root: &Path) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    let name = Path::new(name);
    if name.is_absolute() {
        // One that is gone is still the same for all who name it.
        return Some(fs::canonicalize(name).unwrap_or_else(|_| name.to_owned()));
    }
    let above = folder.ancestors().take_while(|above| above.starts_with(root));
    let here = std::env::current_dir().ok();
    above
        .chain(here.as_deref())
        .filter_map(|base| fs::canonicalize(base.join(name)).ok())
        // A model is not its own parent: another of the same name is meant.
        .find(|path| path.is_dir() && path != folder)
}
