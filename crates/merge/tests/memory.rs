//! The memory of a merge does not depend on the size of its tensors, and is what the plan says at the most.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod allocator;
mod checkpoints;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use allocator::peak_of;
use checkpoints::{plan, yaml};
use posttrain_merge::{Execution, execute};
use serde_json::{Value, json};

/// bf16 matrices of 2048 columns, written by a pattern.
fn model(path: &Path, rows: usize, matrices: usize, salt: u32) -> PathBuf {
    std::fs::create_dir_all(path).unwrap();
    std::fs::write(path.join("config.json"), r#"{"model_type": "x"}"#).unwrap();
    let size = rows * 2048 * 2;
    let mut header = serde_json::Map::new();
    for i in 0..matrices {
        let place = [i * size, (i + 1) * size];
        header.insert(
            format!("layers.{i}.w"),
            json!({"dtype": "BF16", "shape": [rows, 2048], "data_offsets": place}),
        );
    }
    let header = Value::Object(header).to_string();
    let file = File::create(path.join("model.safetensors")).unwrap();
    file.write_all_at(&(header.len() as u64).to_le_bytes(), 0).unwrap();
    file.write_all_at(header.as_bytes(), 8).unwrap();
    // From 0.5 to 1, changing from place to place.
    let pattern: Vec<u8> = (0..1u32 << 19)
        .flat_map(|i| {
            let low =
                (i.wrapping_mul(2_654_435_761).wrapping_add(i.wrapping_mul(salt)) >> 13) & 0x7f;
            (0x3f00 | low as u16).to_le_bytes()
        })
        .collect();
    for (at, length) in (0..matrices * size)
        .step_by(pattern.len())
        .map(|at| (at, pattern.len().min(matrices * size - at)))
    {
        file.write_all_at(&pattern[..length], 8 + header.len() as u64 + at as u64).unwrap();
    }
    path.to_owned()
}

/// The most bytes that a merge of two models and a base may hold for each thread, whatever the size of its tensors.
const OF_A_THREAD: usize = 8_000_000;

/// Method, parameters of each model, shared parameters.
const METHODS: [(&str, &str, &str); 13] = [
    ("linear", "weight: 0.5", ""),
    ("slerp", "", "parameters: {t: 0.3}\n"),
    ("ties", "weight: 0.5, density: 0.3", ""),
    ("della", "weight: 0.5, density: 0.3", ""),
    ("dare_ties", "weight: 0.5, density: 0.3", ""),
    ("sce", "", "parameters: {select_topk: 0.3}\n"),
    ("breadcrumbs", "weight: 0.5, density: 0.3, gamma: 0.01", ""),
    ("arcee_fusion", "", ""),
    ("model_stock", "", ""),
    ("karcher", "", ""),
    ("nuslerp", "weight: 0.5", "parameters: {nuslerp_flatten: false}\n"),
    ("multislerp", "weight: 0.5", ""),
    ("ramplus_tl", "", ""),
];

/// The most that the selections of a method keep: a million sizes for a question, twice while they are sorted, and for
/// each of two inputs as many questions as the method has.
fn kept(method: &str) -> usize {
    let questions = match method {
        "ties" | "sce" | "arcee_fusion" => 2,
        "breadcrumbs" => 4,
        _ => 0,
    };
    questions * 2 * 4 * (1 << 20)
}

/// The peaks of the methods `of` for models of `matrices` with `rows` each.
fn peaks(of: &[&str], [rows, matrices]: [usize; 2], threads: usize) -> Vec<usize> {
    let scratch = tempfile::tempdir().unwrap();
    let folder = |name: &str| scratch.path().join(name);
    let base = model(&folder("base"), rows, matrices, 1);
    let a = model(&folder("a"), rows, matrices, 12_345);
    let b = model(&folder("b"), rows, matrices, 54_321);
    let mut peaks = Vec::new();
    for (method, own, shared) in METHODS.iter().filter(|(method, ..)| of.contains(method)) {
        let one_input = ["slerp", "arcee_fusion"].contains(method);
        let models: &[(&Path, &str)] =
            if one_input { &[(&a, own)] } else { &[(&a, own), (&b, own)] };
        let base = match *method {
            "linear" | "karcher" => String::new(),
            _ => format!("base_model: '{}'\n", base.display()),
        };
        let plan = plan(&yaml(method, models, &format!("{base}{shared}"))).unwrap();
        let out = folder("out");
        let memory = plan.memory(threads);
        let execution = Execution { threads: Some(threads), memory, ..Execution::default() };
        let name = format!("{method}, {matrices} x {rows} rows, {threads} threads");
        let (report, peak) = peak_of(&name, || execute(&plan, &out, &execution, &|_| true));
        report.unwrap();
        std::fs::remove_dir_all(&out).unwrap();
        assert!((peak as u64) < memory, "{name}: {peak} bytes, the plan said {memory}");
        assert!(peak < threads * OF_A_THREAD + kept(method), "{name}: {peak} bytes");
        peaks.push(peak);
    }
    peaks
}

/// In one test: the allocator counts for the whole process.
#[test]
fn does_not_depend_on_the_tensors() {
    let all = METHODS.map(|(method, ..)| method);
    let (usual, double) = (peaks(&all, [1024, 4], 1), peaks(&all, [2048, 4], 1));
    for ((method, usual), double) in all.iter().zip(&usual).zip(&double) {
        // Some numbers for each row, and what a selection keeps up to its limit; nothing else may grow.
        let most = usual + usual / 10 + 100_000 + kept(method);
        assert!(*double < most, "{method}: {usual} and {double} bytes");
    }
    // 200 MB each.
    let methods = ["linear", "ties", "breadcrumbs"];
    let large = peaks(&methods, [16_384, 3], 1);
    for ((method, usual), large) in methods.iter().zip([usual[0], usual[2]]).zip(&large) {
        let most = usual + usual / 10 + 100_000 + kept(method);
        assert!(*large < most, "{method}: {usual} and {large} bytes");
    }
    // Several tensors at a time, each on several threads.
    peaks(&all, [1024, 4], 4);
    peaks(&all, [24, 128], 4);
    peaks(&["breadcrumbs", "ties", "model_stock"], [256, 24], 8);
}
