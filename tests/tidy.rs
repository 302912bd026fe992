//! The rules of ARCHITECTURE.md that a test can keep.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

/// What each crate may use of ours: imports point downward, never sideways.
const LAYERS: &[(&str, &[&str])] = &[
    ("posttrain-core", &[]),
    ("posttrain-chat", &["posttrain-core"]),
    ("posttrain-merge", &[]),
    ("posttrain-model", &["posttrain-chat", "posttrain-core"]),
    ("posttrain-data", &["posttrain-chat", "posttrain-core"]),
    ("posttrain-search", &["posttrain-core"]),
    ("posttrain-endpoint", &["posttrain-core"]),
    ("posttrain-train", &["posttrain-model", "posttrain-chat", "posttrain-core"]),
    ("posttrain-eval", &["posttrain-data", "posttrain-chat", "posttrain-core"]),
];

/// Crates that may use a tensor library.
const TENSORS: &[&str] = &["posttrain-model", "posttrain-train"];

/// Crates that may open a connection.
const NETWORK: &[&str] = &["posttrain-endpoint", "posttrain-model"];

/// Where `unsafe` may stand: SIMD kernels and mapped files.
const UNSAFE: &[&str] = &[
    "crates/model/src/kernel/cpu/",
    "crates/model/src/checkpoint/map.rs",
    // The allocator that measures.
    "crates/model/tests/support/allocator.rs",
    "crates/merge/tests/allocator/mod.rs",
    "crates/merge/src/checkpoint/map.rs",
];

/// The longest file, in lines of code.
const MAX_CODE_LINES: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn packages() -> Vec<Json> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Json = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The names of a package's dependencies that are not only for its tests.
fn dependencies(package: &Json) -> Vec<&str> {
    let all = package["dependencies"].as_array().unwrap();
    all.iter().filter(|d| d["kind"] != "dev").map(|d| d["name"].as_str().unwrap()).collect()
}

/// Every file of the project that git would keep, by extension.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let foreign = ["target", ".git", "__pycache__", "venv", ".venv"].contains(&name);
            if path.is_dir() && !foreign {
                walk(&path, found);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.retain(|path| {
        path.extension().is_some_and(|extension| extensions.contains(&extension.to_str().unwrap()))
    });
    assert!(!found.is_empty());
    found.sort();
    found
}

fn sources() -> Vec<(PathBuf, String)> {
    files(&["rs"])
        .into_iter()
        .map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

#[test]
fn dependencies_point_downward() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let ours: Vec<&str> =
            dependencies(&package).into_iter().filter(|d| d.starts_with("posttrain")).collect();
        if name == "posttrain" {
            continue;
        }
        let layer = LAYERS.iter().find(|(known, _)| *known == name);
        let (_, allowed) = layer.unwrap_or_else(|| panic!("{name} has no place in LAYERS"));
        for dependency in ours {
            assert!(allowed.contains(&dependency), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn tensors_and_network_stay_where_they_belong() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        for dependency in dependencies(&package) {
            let tensors = dependency.starts_with("burn") || dependency.starts_with("cubecl");
            assert!(!tensors || TENSORS.contains(&name), "{name} must not depend on {dependency}");
            let network = ["reqwest", "ureq", "hyper", "hf-hub", "tokio"].contains(&dependency);
            assert!(!network || NETWORK.contains(&name), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn the_facade_has_a_feature_for_each_crate() {
    let packages = packages();
    let facade = packages.iter().find(|package| package["name"] == "posttrain").unwrap();
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let Some(short) = name.strip_prefix("posttrain-") else { continue };
        assert!(facade["features"].get(short).is_some(), "the facade has no feature {short}");
    }
}

#[test]
fn lints_and_metadata_are_shared() {
    for package in packages() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let name = &package["name"];
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{name} does not use the shared lints"
        );
        for field in ["version", "edition", "rust-version", "license"] {
            let shared = format!("{field}.workspace = true");
            assert!(manifest.contains(&shared), "{name} sets its own {field}");
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for (path, text) in sources() {
        let start = text.trim_start();
        let documented = start.starts_with("//!") || start.starts_with("#![doc = include_str!");
        assert!(documented, "{} does not start with a module doc", path.display());
    }
}

/// Lines that are neither blank, nor comments, nor in the file's own test module.
fn code_lines(text: &str) -> usize {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn files_hold_one_concept() {
    for (path, text) in sources() {
        let lines = code_lines(&text);
        assert!(
            lines <= MAX_CODE_LINES,
            "{} has {lines} lines of code, at most {MAX_CODE_LINES}: it is two concepts",
            path.display()
        );
    }
}

#[test]
fn unsafe_code_stays_in_its_modules() {
    // Spelt so that this file does not find itself.
    let marks = [["unsafe", " {"], ["unsafe", " impl"], ["unsafe", " fn"]].map(|m| m.concat());
    for (path, text) in sources() {
        let place = path.to_string_lossy().replace('\\', "/");
        if UNSAFE.iter().any(|allowed| place.contains(allowed)) {
            continue;
        }
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().starts_with("//")) {
            let found = marks.iter().any(|mark| line.contains(mark.as_str()));
            assert!(!found, "{}:{}: {line}", path.display(), i + 1);
        }
    }
}

#[test]
fn fixtures_are_small() {
    for path in files(&["json", "jinja", "jsonl", "safetensors", "parquet"]) {
        let size = path.metadata().unwrap().len();
        assert!(size < 2 << 20, "{} has {size} bytes, at most 2 MiB", path.display());
    }
}

#[test]
fn nothing_is_left_half_done() {
    // Spelt so that this file does not find itself.
    let marks =
        [["TO", "DO"], ["FIX", "ME"], ["todo", "!("], ["unimplemented", "!("]].map(|m| m.concat());
    for (path, text) in sources() {
        for (i, line) in text.lines().enumerate() {
            let found = marks.iter().find(|mark| line.contains(mark.as_str()));
            assert!(found.is_none(), "{}:{}: {line}", path.display(), i + 1);
        }
    }
}
