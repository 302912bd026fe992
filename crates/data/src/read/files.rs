//! Paths, folders and patterns to the files that are read, in sorted order.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// What files of rows end with, before `.gz` or `.zst`.
const ENDINGS: [&str; 4] = ["jsonl", "ndjson", "json", "parquet"];

/// How the parts of a data set are called when they stand side by side.
const SPLITS: [&str; 7] = ["train", "test", "validation", "valid", "val", "dev", "eval"];

/// The files that the paths mean: a file is itself, a folder its files of rows, a pattern with `*` and
/// `?` the files that match it; the last two sorted by name.
///
/// # Errors
/// [`Error::Files`] when a path leads to nothing, a folder holds several splits or kinds of files, or a
/// file is named twice.
pub(crate) fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        let found = if path.is_dir() {
            folder(path)?
        } else if path.exists() || !is_pattern(path) {
            vec![path.clone()]
        } else {
            pattern(path)?
        };
        for file in found {
            if files.contains(&file) {
                let reason = "is named twice; its rows would be read twice".into();
                return Err(Error::Files { path: file, reason });
            }
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::options("paths", "empty", "files, folders or patterns"));
    }
    Ok(files)
}

/// The name without `.gz` or `.zst`, and its ending.
fn ending(path: &Path) -> Option<(&str, &str)> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    name.rsplit_once('.')
}

fn folder(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        let file = entry.map_err(Error::io(path))?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let rows = ending(&file).is_some_and(|(_, ending)| ENDINGS.contains(&ending));
        if rows && !hidden && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    let refuse = |reason| Err(Error::Files { path: path.to_owned(), reason });
    if files.is_empty() {
        return refuse(format!("is a folder without files of rows ({})", ENDINGS.join(", ")));
    }
    let kinds: BTreeSet<&str> = files.iter().filter_map(|file| Some(ending(file)?.1)).collect();
    if kinds.len() > 1 {
        let kinds: Vec<&str> = kinds.into_iter().collect();
        let kinds = kinds.join(" and ");
        return refuse(format!("holds files of several kinds, {kinds}; name one, as in *.jsonl"));
    }
    let split = |file: &PathBuf| {
        let (stem, _) = ending(file)?;
        let word = stem.split(['-', '_', '.']).next()?;
        SPLITS.iter().copied().find(|split| *split == word)
    };
    let splits: BTreeSet<&str> = files.iter().filter_map(split).collect();
    if splits.len() > 1 {
        let splits: Vec<&str> = splits.into_iter().collect();
        return refuse(format!(
            "holds several splits, {}; name one, as in {}*",
            splits.join(" and "),
            splits[splits.len() - 1]
        ));
    }
    Ok(files)
}

fn is_pattern(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().iter().any(|byte| matches!(byte, b'*' | b'?'))
}

/// The files that match, sorted. Each `*` and `?` stands inside one name.
fn pattern(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        };
        match name.filter(|name| name.contains(['*', '?'])) {
            None => found.iter_mut().for_each(|path| path.push(component)),
            Some(pattern) => {
                let mut next = Vec::new();
                for folder in &found {
                    next.extend(matches_in(folder, pattern)?);
                }
                found = next;
            }
        }
    }
    found.retain(|path| path.is_file());
    found.sort();
    if found.is_empty() {
        return Err(Error::Files { path: path.to_owned(), reason: "matches no file".into() });
    }
    Ok(found)
}

fn matches_in(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !listed.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(listed).map_err(Error::io(listed))? {
        let name = entry.map_err(Error::io(listed))?.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".") && !pattern.starts_with('.');
        let fits = |name: &str| {
            let (pattern, name): (Vec<char>, Vec<char>) =
                (pattern.chars().collect(), name.chars().collect());
            matches(&pattern, &name)
        };
        if !hidden && name.to_str().is_some_and(fits) {
            found.push(folder.join(name));
        }
    }
    Ok(found)
}

/// Whether a name matches a pattern. After a mismatch only the last `*` has to be tried again, one
/// character longer.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star = None;
    while seen < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(&char) if char == '?' || char == name[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                None => return false,
                Some((last, from)) => {
                    star = Some((last, from + 1));
                    at = last + 1;
                    seen = from + 1;
                }
            },
        }
    }
    pattern[at..].iter().all(|&char| char == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names() {
        let check = |pattern: &str, name: &str| {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            matches(&chars(pattern), &chars(name))
        };
        for (pattern, name) in [
            ("*", ""),
            ("*.jsonl", "a.jsonl"),
            ("train-*-of-?????.parquet", "train-00000-of-00002.parquet"),
            ("*a*b", "xaxbxb"),
            ("é?", "éü"),
        ] {
            assert!(check(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("?", ""), ("*.jsonl", "a.jsonl.gz"), ("a*b", "ab c"), ("a", "ab")]
        {
            assert!(!check(pattern, name), "{pattern} {name}");
        }
    }
}
