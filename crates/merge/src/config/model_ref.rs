//! Which model: `path[@revision][+lora[@revision]]`.
//!
//! A path that exists is never cut: `runs/a+b` is one folder where that folder is, and otherwise the
//! model `runs/a` with the adapter `b`. (mergekit always cuts.) Where several cuts are possible, the
//! one that leads to existing paths is taken; where none does, it is an error.

use std::fmt;
use std::path::{Path, PathBuf};

/// A folder or file, and the revision that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lora {
    /// As written; relative to the current directory.
    pub path: PathBuf,
    /// Kept for the record.
    pub revision: Option<String>,
}

/// A model, perhaps with an adapter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelRef {
    /// As written: a folder, a file, a name like `organisation/model`, or the name of another document
    /// of the same file.
    pub path: PathBuf,
    /// A branch, tag or commit of the model. Only local folders are read, so it is kept for the record.
    pub revision: Option<String>,
    /// An adapter to be added before the merge.
    pub lora: Option<Lora>,
    /// The class that stands in for `architectures` of the model's `config.json`.
    pub override_architecture: Option<String>,
}

impl ModelRef {
    /// The model at a path that is not cut.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), revision: None, lora: None, override_architecture: None }
    }

    /// Reads `path[@revision][+lora[@revision]]`. Whether a path exists is asked of the current directory.
    ///
    /// # Errors
    /// What is wrong with the text: an empty part, or more `+` or `@` than existing paths explain.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_in(Path::new(""), text)
    }

    /// [`parse`](Self::parse) with relative paths below `base`.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse).
    pub fn parse_in(base: &Path, text: &str) -> Result<Self, String> {
        let whole = |(path, revision)| Self { revision, ..Self::new(path) };
        let exists =
            |text: &str| model_path(base, text).is_ok_and(|(path, _)| base.join(path).exists());
        if exists(text) || !text.contains('+') {
            return model_path(base, text).map(whole);
        }
        let cuts: Vec<(&str, &str)> =
            text.match_indices('+').map(|(at, _)| (&text[..at], &text[at + 1..])).collect();
        let both = cuts.iter().find(|(model, lora)| exists(model) && exists(lora));
        let either = cuts.iter().find(|(model, lora)| exists(model) || exists(lora));
        let only = if cuts.len() == 1 { cuts.first() } else { None };
        let Some((model, lora)) = both.or(either).or(only) else {
            return Err(format!("{} `+` and no existing path among its parts", cuts.len()));
        };
        let (path, revision) = model_path(base, lora)?;
        let lora = Some(Lora { path, revision });
        Ok(Self { lora, ..whole(model_path(base, model)?) })
    }

    /// Where the model is, with relative paths below `base`.
    pub fn resolve(&self, base: &Path) -> PathBuf {
        base.join(&self.path)
    }
}

/// `path[@revision]`.
pub(crate) fn model_path(base: &Path, text: &str) -> Result<(PathBuf, Option<String>), String> {
    if text.is_empty() {
        return Err("an empty path".into());
    }
    if base.join(text).exists() || !text.contains('@') {
        return Ok((text.into(), None));
    }
    let cuts: Vec<(&str, &str)> =
        text.match_indices('@').map(|(at, _)| (&text[..at], &text[at + 1..])).collect();
    let there = cuts.iter().rfind(|(path, _)| !path.is_empty() && base.join(path).exists());
    let only = if cuts.len() == 1 { cuts.first() } else { None };
    match there.or(only) {
        Some(("", _)) => Err("an empty path before `@`".into()),
        Some((_, "")) => Err("an empty revision after `@`".into()),
        Some((path, revision)) => Ok((path.into(), Some((*revision).into()))),
        None => Err(format!("{} `@` and no existing path before one of them", cuts.len())),
    }
}

impl Lora {
    /// Where the adapter is, with relative paths below `base`.
    pub fn resolve(&self, base: &Path) -> PathBuf {
        base.join(&self.path)
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        if let Some(lora) = &self.lora {
            write!(f, "+{}", lora.path.display())?;
            if let Some(revision) = &lora.revision {
                write!(f, "@{revision}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(base: &Path, text: &str) -> String {
        match ModelRef::parse_in(base, text) {
            Ok(model) => format!(
                "{}|{}|{}|{}",
                model.path.display(),
                model.revision.unwrap_or_default(),
                model.lora.as_ref().map_or(String::new(), |lora| lora.path.display().to_string()),
                model.lora.and_then(|lora| lora.revision).unwrap_or_default(),
            ),
            Err(reason) => reason,
        }
    }

    #[test]
    fn texts_are_cut_at_plus_and_at() {
        let none = Path::new("/nonexistent");
        for (text, wanted) in [
            ("org/model", "org/model|||"),
            ("org/model@main", "org/model|main||"),
            ("a+b", "a||b|"),
            ("a@1+b@2", "a|1|b|2"),
            ("a+b@2", "a||b|2"),
            ("", "an empty path"),
            ("+b", "an empty path"),
            ("a+", "an empty path"),
            ("@x", "an empty path before `@`"),
            ("a@", "an empty revision after `@`"),
            ("a@b@c", "2 `@` and no existing path before one of them"),
            ("a+b+c", "2 `+` and no existing path among its parts"),
        ] {
            assert_eq!(written(none, text), wanted, "{text}");
        }
    }

    #[test]
    fn an_existing_path_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let base = folder.path();
        for name in ["c++/model", "a+b", "a@1", "lora+x"] {
            std::fs::create_dir_all(base.join(name)).expect("a folder");
        }
        for (text, wanted) in [
            ("a+b", "a+b|||"),
            ("a+b@main", "a+b|main||"),
            ("a+b+lora+x", "a+b||lora+x|"),
            ("a@1", "a@1|||"),
            ("a@1@main", "a@1|main||"),
            ("a@1+lora+x@2", "a@1||lora+x|2"),
            ("c++/model", "c++/model|||"),
            ("c++/model+new", "c++/model||new|"),
            ("c++/other", "2 `+` and no existing path among its parts"),
        ] {
            assert_eq!(written(base, text), wanted, "{text}");
        }
        let absolute = base.join("a+b");
        assert_eq!(ModelRef::parse(&absolute.to_string_lossy()), Ok(ModelRef::new(absolute)));
    }
}
