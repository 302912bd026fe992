//! Downloads from a hub that this test serves on the loopback interface.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use posttrain_model::checkpoint::{Checkpoint, HubOptions, download, resolve};

const REPO: &str = "test-org/tiny-llama";

/// One commit of a repository.
#[derive(Default, Clone)]
struct Commit {
    sha: String,
    files: BTreeMap<String, Vec<u8>>,
}

#[derive(Default)]
struct State {
    commit: Commit,
    /// Path and range of every request.
    log: Vec<String>,
    /// Answer everything with this status.
    refuse: Option<u16>,
    /// Break off after so many bytes of a body, once.
    cut: Option<usize>,
    token: Option<String>,
}

/// A hub on a thread; it ends with the process.
struct Hub {
    endpoint: String,
    state: Arc<Mutex<State>>,
    cache: tempfile::TempDir,
}

impl Hub {
    fn serve(commit: Commit) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { commit, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(&stream.unwrap(), &shared));
            }
        });
        Self { endpoint, state, cache: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> HubOptions {
        HubOptions {
            endpoint: Some(self.endpoint.clone()),
            cache_dir: Some(self.cache.path().to_owned()),
            token: Some(String::new()),
            offline: Some(false),
            ..HubOptions::default()
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn error(&self) -> String {
        download(REPO, &self.options(), &|_, _, _| {}).unwrap_err().to_string()
    }

    fn repo(&self) -> std::path::PathBuf {
        self.cache.path().join("models--test-org--tiny-llama")
    }
}

fn respond(mut stream: &TcpStream, status: u16, headers: &str, body: &[u8], cut: Option<usize>) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body[..cut.unwrap_or(length).min(length)]);
}

/// Answer as the hub does: small files itself, weights by a redirect to another host's path.
fn answer(stream: &TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap_or_default);
    let request = lines.next().unwrap_or_default();
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let range = headers.get("range").cloned();
    let mut state = state.lock().unwrap();
    state.log.push(format!("{path} {}", range.as_deref().unwrap_or("-")));
    state.token = headers.get("authorization").cloned().or(state.token.take());
    if let Some(status) = state.refuse {
        return respond(stream, status, "", b"{}", None);
    }
    let commit = state.commit.clone();
    let info = |revision: &str| format!("/api/models/{REPO}/revision/{revision}");
    if path == info("main") || path == info(&commit.sha) {
        let siblings: Vec<_> =
            commit.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "sha": commit.sha, "siblings": siblings }).to_string();
        return respond(stream, 200, "", body.as_bytes(), None);
    }
    let resolved = format!("/{REPO}/resolve/{}/", commit.sha);
    let (name, stored) = match (path.strip_prefix(&resolved), path.strip_prefix("/storage/")) {
        (Some(name), _) => (name, false),
        (_, Some(name)) => (name, true),
        _ => return respond(stream, 404, "", b"", None),
    };
    let Some(content) = commit.files.get(name) else {
        return respond(stream, 404, "", b"", None);
    };
    let sum = content.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
    let mut headers = format!("X-Repo-Commit: {}\r\n", commit.sha);
    if name.ends_with(".safetensors") && !stored {
        let host = stream.local_addr().unwrap();
        let _ = write!(
            headers,
            "X-Linked-Etag: \"{sum:x}\"\r\nX-Linked-Size: {}\r\nLocation: http://{host}/storage/{name}\r\n",
            content.len()
        );
        return respond(stream, 302, &headers, b"", None);
    }
    let _ = write!(headers, "ETag: \"{sum:x}\"\r\n");
    let Some(range) = range.as_deref().and_then(|range| range.strip_prefix("bytes=")) else {
        return respond(stream, 200, &headers, content, None);
    };
    let (start, end) = range.split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let end = end.parse().map_or(content.len(), |end: usize| end + 1).min(content.len());
    if start >= content.len() {
        return respond(stream, 416, &headers, b"", None);
    }
    let _ = write!(headers, "Content-Range: bytes {start}-{}/{}\r\n", end - 1, content.len());
    let long = end - start > 1;
    let cut = if long && stored { state.cut.take() } else { None };
    respond(stream, 206, &headers, &content[start..end], cut);
}

fn commit(sha: &str, variant: &str) -> Commit {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/checkpoints");
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder.join(variant)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        files.insert(name, std::fs::read(&path).unwrap());
    }
    for name in
        ["tokenizer.json", "additional_chat_templates/tool_use.jinja", "README.md", "modeling_x.py"]
    {
        files.insert(name.to_owned(), name.as_bytes().to_vec());
    }
    files.insert("pytorch_model.bin".to_owned(), b"never".to_vec());
    Commit { sha: sha.to_owned(), files }
}

#[test]
fn a_snapshot_has_what_a_model_needs_and_stays() {
    for variant in ["single_f32", "sharded_bf16"] {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        let hub = Hub::serve(commit(sha, variant));
        let heard = RefCell::new(BTreeMap::new());
        let progress = |name: &str, done: u64, size: u64| {
            heard.borrow_mut().insert(name.to_owned(), (done, size));
        };
        let folder = download(REPO, &hub.options(), &progress).unwrap();
        assert_eq!(folder, hub.repo().join("snapshots").join(sha));
        let files = hub.state().commit.files.clone();
        for (name, content) in &files {
            let foreign =
                ["README.md", "modeling_x.py", "pytorch_model.bin", "state_dict_order.json"];
            let path = folder.join(name);
            assert_eq!(path.exists(), !foreign.contains(&name.as_str()), "{name}");
            if path.exists() {
                assert_eq!(&std::fs::read(path).unwrap(), content, "{name}");
                let size = content.len() as u64;
                assert_eq!(heard.borrow()[name], (size, size), "{name}");
            }
        }
        Checkpoint::open(&folder).unwrap();
        // The layout of huggingface_hub.
        let refs: Vec<_> = std::fs::read_dir(hub.repo().join("refs"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(refs, ["main"]);
        assert_eq!(std::fs::read_to_string(hub.repo().join("refs/main")).unwrap(), sha);
        let target =
            std::fs::read_link(folder.join("additional_chat_templates/tool_use.jinja")).unwrap();
        assert!(target.starts_with("../../../blobs"), "{}", target.display());

        // Again: one request, and none offline or when the hub does not answer.
        hub.state().log.clear();
        assert_eq!(download(REPO, &hub.options(), &|_, _, _| {}).unwrap(), folder);
        assert_eq!(hub.state().log.len(), 1, "{:?}", hub.state().log);
        let mut offline = hub.options();
        offline.offline = Some(true);
        assert_eq!(download(REPO, &offline, &|_, _, _| {}).unwrap(), folder);
        offline.revision = Some(sha.to_owned());
        assert_eq!(download(REPO, &offline, &|_, _, _| {}).unwrap(), folder);
        assert_eq!(hub.state().log.len(), 1);
        let mut unreachable = hub.options();
        unreachable.endpoint = Some("http://127.0.0.1:9".to_owned());
        assert_eq!(download(REPO, &unreachable, &|_, _, _| {}).unwrap(), folder);
    }
}

#[test]
fn a_new_commit_fetches_only_what_changed() {
    let hub = Hub::serve(commit("a", "single_f32"));
    let first = download(REPO, &hub.options(), &|_, _, _| {}).unwrap();
    let mut second = commit("b", "single_f32");
    second.files.insert("tokenizer.json".to_owned(), b"changed".to_vec());
    hub.state().commit = second;
    hub.state().log.clear();
    let folder = download(REPO, &hub.options(), &|_, _, _| {}).unwrap();
    assert_ne!(first, folder);
    assert_eq!(std::fs::read(folder.join("tokenizer.json")).unwrap(), b"changed");
    assert!(Checkpoint::open(&folder).is_ok() && Checkpoint::open(&first).is_ok());
    assert!(folder.join("additional_chat_templates/tool_use.jinja").exists());
    let bodies: Vec<String> =
        hub.state().log.iter().filter(|line| line.ends_with("bytes=0-")).cloned().collect();
    assert_eq!(bodies, [format!("/{REPO}/resolve/b/tokenizer.json bytes=0-")]);
}

#[test]
fn broken_connections_are_resumed() {
    let hub = Hub::serve(commit("a", "single_f32"));
    hub.state().cut = Some(10_000);
    let folder = download(REPO, &hub.options(), &|_, _, _| {}).unwrap();
    Checkpoint::open(folder).unwrap();
    let resumed = hub.state().log.iter().any(|line| line.ends_with("bytes=10000-"));
    assert!(resumed, "{:?}", hub.state().log);
}

#[test]
fn a_complete_part_of_a_killed_download_is_no_trap() {
    let hub = Hub::serve(commit("a", "single_f32"));
    let folder = download(REPO, &hub.options(), &|_, _, _| {}).unwrap();
    let pointer = folder.join("model.safetensors");
    let blob = std::fs::canonicalize(&pointer).unwrap();
    std::fs::rename(&blob, blob.with_extension("part")).unwrap();
    std::fs::remove_file(&pointer).unwrap();
    let folder = download(REPO, &hub.options(), &|_, _, _| {}).unwrap();
    Checkpoint::open(folder).unwrap();
}

#[test]
fn errors_say_what_to_do() {
    let hub = Hub::serve(commit("a", "single_f32"));
    for (status, words) in [
        (401, "asked without a token"),
        (403, "accept its terms or ask for access at http://127.0.0.1"),
        (404, "not found (404): repository or revision `main`"),
        (500, "http status: 500"),
    ] {
        hub.state().refuse = Some(status);
        let text = hub.error();
        assert!(text.starts_with(REPO) && text.contains(words), "{text}");
    }
    hub.state().refuse = None;
    let mut options = hub.options();
    options.revision = Some("v2".to_owned());
    let text = download(REPO, &options, &|_, _, _| {}).unwrap_err().to_string();
    assert!(text.contains("revision `v2`"), "{text}");
    options = hub.options();
    options.offline = Some(true);
    let text = download(REPO, &options, &|_, _, _| {}).unwrap_err().to_string();
    assert!(text.contains("offline, and "), "{text}");
    options.offline = Some(false);
    options.endpoint = Some("http://127.0.0.1:9".to_owned());
    let text = download(REPO, &options, &|_, _, _| {}).unwrap_err().to_string();
    assert!(text.contains("http://127.0.0.1:9"), "{text}");

    hub.state().commit.files.remove("model.safetensors");
    let text = hub.error();
    assert!(text.contains("found: pytorch_model.bin"), "{text}");

    let index = br#"{"weight_map": {"a": "model-00001-of-00001.safetensors"}}"#;
    hub.state().commit.files.insert("model.safetensors.index.json".into(), index.to_vec());
    let text = hub.error();
    assert!(text.contains("model-00001-of-00001.safetensors: not found (404)"), "{text}");
    let mut offline = hub.options();
    offline.offline = Some(true);
    assert!(download(REPO, &offline, &|_, _, _| {}).is_err());
    let index = br#"{"weight_map": {"a": "../../escape.safetensors"}}"#;
    hub.state().commit = commit("c", "single_f32");
    hub.state().commit.files.remove("model.safetensors");
    hub.state().commit.files.insert("model.safetensors.index.json".into(), index.to_vec());
    assert!(hub.error().contains("no file name"));
}

#[test]
fn the_token_goes_to_the_hub() {
    let hub = Hub::serve(commit("a", "single_f16"));
    let mut options = hub.options();
    options.token = Some("hf_secret".to_owned());
    download(REPO, &options, &|_, _, _| {}).unwrap();
    assert_eq!(hub.state().token.as_deref(), Some("Bearer hf_secret"));
    hub.state().refuse = Some(401);
    let text = download(REPO, &options, &|_, _, _| {}).unwrap_err().to_string();
    assert!(text.contains("token is not valid") && !text.contains("hf_secret"), "{text}");
}

#[test]
fn folders_do_not_ask_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(resolve(folder.path().to_str().unwrap()).unwrap(), folder.path());
}
