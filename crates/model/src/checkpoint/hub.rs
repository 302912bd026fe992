//! Models by name: the files of a snapshot that this crate reads, in the cache of Hugging Face.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::companions::is_companion;
use super::hub_options::{HubOptions, Settings};
use super::{INDEX, WEIGHTS, index, io_error};
use crate::error::Error;

const CONFIG: &str = "config.json";

/// The folder of a snapshot of `org/name` with its configuration, tokenizer, chat templates and
/// safetensors, downloaded where the cache does not hold them already.
///
/// The cache is that of `huggingface_hub` and shared with it. Without a connection a complete
/// snapshot in the cache is used. `progress` hears the file, the bytes it has and its size.
///
/// # Errors
/// When the repository is not found, not accessible, without safetensors, or offline not in the
/// cache.
pub fn download(
    repo: &str,
    options: &HubOptions,
    progress: &dyn Fn(&str, u64, u64),
) -> Result<PathBuf, Error> {
    let env = |name: &str| std::env::var(name).ok();
    let settings = Settings::new(options, env, std::env::home_dir())
        .ok_or_else(|| hub(repo, "no cache folder: set HF_HOME"))?;
    let session = Session { repo, settings, progress };
    if session.settings.offline {
        return session.cached().ok_or_else(|| {
            let cache = session.settings.cache.display();
            hub(repo, format!("offline, and {cache} does not hold all files of {}", session.what()))
        });
    }
    session.download()
}

fn hub(repo: &str, reason: impl Into<String>) -> Error {
    Error::Hub { repo: repo.to_owned(), reason: reason.into() }
}

struct Session<'a> {
    repo: &'a str,
    settings: Settings,
    progress: &'a dyn Fn(&str, u64, u64),
}

impl Session<'_> {
    fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repo.to_owned(), RepoType::Model, revision.to_owned())
    }

    fn cache(&self, revision: &str) -> CacheRepo {
        Cache::new(self.settings.cache.clone()).repo(self.at(revision))
    }

    fn what(&self) -> String {
        format!("revision `{}`", self.settings.revision)
    }

    fn folder(&self) -> PathBuf {
        self.settings.cache.join(self.at("main").folder_name())
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder().join("refs").join(revision)
    }

    /// The snapshot in the cache, if nothing of it is missing.
    fn cached(&self) -> Option<PathBuf> {
        let revision = &self.settings.revision;
        let commit = fs::read_to_string(self.reference(revision));
        let commit = commit.unwrap_or_else(|_| revision.clone());
        let snapshot = self.cache(revision).pointer_path(commit.trim());
        (snapshot.join(CONFIG).exists() && has_weights(&snapshot)).then_some(snapshot)
    }

    fn download(&self) -> Result<PathBuf, Error> {
        // Not `ApiBuilder::new`, which looks into the home folder and panics without one.
        let api = ApiBuilder::from_cache(Cache::new(self.settings.cache.clone()))
            .with_endpoint(self.settings.endpoint.clone())
            .with_token(self.settings.token.clone())
            .with_progress(false)
            .with_retries(3)
            .build()
            .map_err(|error| self.explain("", &error))?;
        let info = match api.repo(self.at(&self.settings.revision)).info() {
            Ok(info) => info,
            Err(error) => {
                // An answer, even a refusal, counts more than the cache; silence does not.
                let cached = status(&error).is_none().then(|| self.cached()).flatten();
                return cached.ok_or_else(|| self.explain("", &error));
            }
        };
        let remote: BTreeSet<&str> =
            info.siblings.iter().map(|sibling| sibling.rfilename.as_str()).collect();
        if !remote.contains(WEIGHTS) && !remote.contains(INDEX) {
            return Err(self.no_safetensors(&remote));
        }
        // One commit for all files, also if somebody pushes meanwhile.
        let files = Files {
            session: self,
            repo: api.repo(self.at(&info.sha)),
            cache: self.cache(&info.sha),
            snapshot: self.cache(&info.sha).pointer_path(&info.sha),
            api,
        };
        let small = remote.iter().filter(|name| **name == CONFIG || is_companion(name));
        small.copied().try_for_each(|name| files.fetch(name))?;
        if remote.contains(WEIGHTS) {
            files.fetch(WEIGHTS)?;
        } else {
            files.fetch(INDEX)?;
            let index = index::read(&files.snapshot.join(INDEX))?;
            let shards: BTreeSet<&String> = index.weight_map.values().collect();
            shards.into_iter().try_for_each(|name| files.fetch(name))?;
        }
        if self.settings.revision != info.sha {
            let reference = self.reference(&self.settings.revision);
            self.cache(&self.settings.revision)
                .create_ref(&info.sha)
                .map_err(io_error(reference))?;
            // hf-hub writes one per revision it was asked for, and a commit needs none.
            let _ = fs::remove_file(self.reference(&info.sha));
        }
        Ok(files.snapshot)
    }

    fn no_safetensors(&self, remote: &BTreeSet<&str>) -> Error {
        let kinds = [".bin", ".safetensors", ".gguf", ".pth", ".pt", ".onnx", ".msgpack", ".h5"];
        let weights: Vec<&str> = remote
            .iter()
            .copied()
            .filter(|name| kinds.iter().any(|kind| name.ends_with(kind)))
            .take(5)
            .collect();
        let found =
            if weights.is_empty() { "no weights at all".into() } else { weights.join(", ") };
        let what = self.what();
        hub(self.repo, format!("{what} has neither {WEIGHTS} nor {INDEX}; found: {found}"))
    }

    /// What to do about an error of the hub.
    fn explain(&self, file: &str, error: &ApiError) -> Error {
        let Settings { endpoint, token, .. } = &self.settings;
        let what = self.what();
        let reason = match (status(error), token) {
            (Some(401), None) => format!(
                "not found, or private or gated (401), asked without a token; check the name, or \
                 accept its terms at {endpoint}/{} and set HF_TOKEN",
                self.repo
            ),
            (Some(401), Some(_)) => "not found, or the token is not valid (401)".to_owned(),
            (Some(403), _) => format!(
                "access denied (403); accept its terms or ask for access at {endpoint}/{}",
                self.repo
            ),
            (Some(404), _) if file.is_empty() => format!("not found (404): repository or {what}"),
            (Some(404), _) => format!("not found (404) in {what}"),
            _ => format!("{endpoint}: {error}"),
        };
        let file = if file.is_empty() { String::new() } else { format!("{file}: ") };
        hub(self.repo, file + &reason)
    }
}

/// The status of an answer that is an error.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

fn has_weights(snapshot: &Path) -> bool {
    if snapshot.join(WEIGHTS).exists() {
        return true;
    }
    let path = snapshot.join(INDEX);
    path.exists()
        && index::read(&path)
            .is_ok_and(|index| index.weight_map.values().all(|name| snapshot.join(name).exists()))
}

/// The files of one commit.
struct Files<'a> {
    session: &'a Session<'a>,
    api: Api,
    repo: ApiRepo,
    cache: CacheRepo,
    snapshot: PathBuf,
}

impl Files<'_> {
    fn fetch(&self, name: &str) -> Result<(), Error> {
        let pointer = self.snapshot.join(name);
        if pointer.exists() {
            return Ok(());
        }
        let explain = |error: ApiError| self.session.explain(name, &error);
        let metadata = self.api.metadata(&self.repo.url(name)).map_err(explain)?;
        let size = metadata.size() as u64;
        let blob = self.cache.blob_path(metadata.etag());
        if length(&blob) == Some(size) && link(&blob, &pointer, name) {
            // Unchanged since another commit.
            (self.session.progress)(name, size, size);
            return Ok(());
        }
        let part = blob.with_extension("part");
        if length(&part).is_some_and(|length| length >= size) {
            // hf-hub would ask for the bytes after the last and be refused for ever.
            fs::remove_file(&part).map_err(io_error(part))?;
        }
        let state = RefCell::new((0, size));
        let listener = Listener { name, state: &state, progress: self.session.progress };
        self.repo.download_with_progress(name, listener).map_err(explain)?;
        let found = length(&pointer);
        if found == Some(size) {
            return Ok(());
        }
        // Never leave a file that the next call would take for whole.
        let _ = fs::remove_file(&pointer);
        let _ = fs::remove_file(&blob);
        let found = found.unwrap_or_default();
        Err(hub(self.session.repo, format!("{name}: got {found} bytes, expected {size}")))
    }
}

fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|file| file.len())
}

/// Point from the snapshot to a blob, relatively as `huggingface_hub` does.
#[cfg(unix)]
fn link(blob: &Path, pointer: &Path, name: &str) -> bool {
    let up = "../".repeat(2 + name.matches('/').count());
    let (Some(parent), Some(blob)) = (pointer.parent(), blob.file_name()) else { return false };
    let target = Path::new(&up).join("blobs").join(blob);
    let linked =
        fs::create_dir_all(parent).and_then(|()| std::os::unix::fs::symlink(target, pointer));
    linked.is_ok() && pointer.exists()
}

/// Links need rights there that users do not have, so the file is fetched again.
#[cfg(not(unix))]
fn link(_blob: &Path, _pointer: &Path, _name: &str) -> bool {
    false
}

/// Turns increments into sums.
struct Listener<'a> {
    name: &'a str,
    state: &'a RefCell<(u64, u64)>,
    progress: &'a dyn Fn(&str, u64, u64),
}

impl Progress for Listener<'_> {
    fn init(&mut self, size: usize, _name: &str) {
        *self.state.borrow_mut() = (0, size as u64);
    }

    fn update(&mut self, bytes: usize) {
        let (done, size) = {
            let mut state = self.state.borrow_mut();
            state.0 += bytes as u64;
            *state
        };
        (self.progress)(self.name, done, size);
    }

    fn finish(&mut self) {}
}
