//! What a user calls a model: a folder or a name on the hub.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// The folder of a model: `model` itself where it is an existing folder, otherwise the snapshot of
/// the repository `org/name`, downloaded with the defaults of the environment (feature `hub`).
///
/// # Errors
/// When it is neither, or the download fails.
pub fn resolve(model: &str) -> Result<PathBuf, Error> {
    let folder = Path::new(model);
    if folder.is_dir() {
        return Ok(folder.to_owned());
    }
    if folder.exists() {
        return Err(super::broken(folder, "is a file, expected a checkpoint folder"));
    }
    if !is_repository(model) {
        return Err(super::broken(folder, "the folder does not exist"));
    }
    from_hub(model)
}

#[cfg(feature = "hub")]
fn from_hub(model: &str) -> Result<PathBuf, Error> {
    super::hub::download(model, &super::HubOptions::default(), &|_, _, _| {})
}

#[cfg(not(feature = "hub"))]
fn from_hub(model: &str) -> Result<PathBuf, Error> {
    Err(Error::Hub {
        repo: model.to_owned(),
        reason: "there is no such folder, and this build cannot download models by name; the \
                 feature `hub` can"
            .to_owned(),
    })
}

/// Whether this has the form `org/name` that the hub allows.
fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("..")
            && !part.contains("--")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    name.split_once('/').is_some_and(|(org, name)| part(org) && part(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories() {
        for name in ["HuggingFaceTB/SmolLM2-135M", "a/b.c_d-e"] {
            assert!(is_repository(name), "{name}");
        }
        for name in ["gpt2", "/a/b", "a/b/c", "./a", "../a", "a/", "a/..", "a b/c", "a/b--c"] {
            assert!(!is_repository(name), "{name}");
        }
    }

    #[test]
    fn folders_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        assert_eq!(resolve(name).unwrap(), folder.path());
        let error = resolve("./no/such/folder").unwrap_err().to_string();
        assert_eq!(error, "./no/such/folder: the folder does not exist");
        let error = resolve(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap_err();
        assert!(error.to_string().contains("is a file"), "{error}");
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn a_name_without_the_feature_names_the_feature() {
        let error = resolve("no-such-org/no-such-model").unwrap_err().to_string();
        assert!(error.contains("feature `hub`"), "{error}");
    }
}
