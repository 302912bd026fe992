//! The same bits for any number of threads and any size of files, for every method.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod checkpoints;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use checkpoints::{Entry, Random, plan_with, weights, write_model, yaml};
use posttrain_merge::dtype::Dtype;
use posttrain_merge::methods::{Base, Registry};
use posttrain_merge::{Arithmetic, Checkpoint, Execution, PlanOptions, execute, execute_in_memory};
use serde_json::json;

/// Tensors of several blocks and spans, of shapes that blocks do not divide, and small ones.
fn model(path: &Path, seed: u64, dtype: Dtype) -> PathBuf {
    // Near one another, with equal sizes among the differences, as checkpoints are.
    let mut base = Random(1);
    let mut own = Random(seed);
    let mut entry = |name: &str, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let near = |_| {
            let delta = if own.next().is_multiple_of(3) {
                0.0
            } else {
                (own.below(64) as f32 - 31.5) / 512.0
            };
            base.number() + delta
        };
        let values: Vec<f32> = (0..count).map(near).collect();
        Entry::new(name, dtype, shape, &values)
    };
    let entries = [
        entry("wide", &[3, 200_003]),
        entry("tall", &[1007, 61]),
        entry("solid", &[7, 31, 90]),
        entry("vector", &[20_011]),
        entry("small", &[5, 3]),
        entry("scalar", &[]),
        entry("empty", &[0, 1 << 40]),
    ];
    write_model(path, &json!({"model_type": "x"}), &entries)
}

fn configurations(folder: &Path, dtype: Dtype) -> Vec<String> {
    let name = |name: &str| folder.join(format!("{name}_{dtype:?}"));
    let models: Vec<PathBuf> = ["base", "a", "b", "c"]
        .iter()
        .zip(2..)
        .map(|(n, seed)| model(&name(n), seed, dtype))
        .collect();
    let registry = Registry::default();
    let one = |method: &posttrain_merge::methods::Method| {
        let count = (*method.inputs.end()).min(3).max(*method.inputs.start());
        let ours: Vec<&str> = method.parameters.iter().map(|parameter| parameter.name).collect();
        let mut own = Vec::new();
        for (parameter, value) in [
            ("weight", "0.6"),
            ("density", "0.55"),
            ("gamma", "0.05"),
            ("epsilon", "0.1"),
            ("scale", "0.7"),
        ] {
            let per_input = method.parameters.iter().any(|p| {
                p.name == parameter && p.scope == posttrain_merge::methods::Scope::PerInput
            });
            if per_input {
                own.push(format!("{parameter}: {value}"));
            }
        }
        let own = own.join(", ");
        let mut shared = String::from("parameters:\n");
        for (parameter, value) in [("t", "0.3"), ("select_topk", "0.4"), ("lambda", "0.9")] {
            if ours.contains(&parameter) {
                writeln!(shared, "  {parameter}: {value}").unwrap();
            }
        }
        if shared.lines().count() == 1 {
            shared.clear();
        }
        let needs_base = method.base != Base::Ignored;
        let inputs: Vec<(&Path, &str)> = if needs_base {
            models[1..=count].iter().map(|path| (path.as_path(), own.as_str())).collect()
        } else {
            models[..count].iter().map(|path| (path.as_path(), own.as_str())).collect()
        };
        if needs_base {
            writeln!(shared, "base_model: '{}'", models[0].display()).unwrap();
        }
        yaml(method.name, &inputs, &shared)
    };
    registry.methods().map(one).collect()
}

/// The bytes of every tensor.
fn tensors(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.tensors().iter().map(|(name, t)| (name.clone(), t.bytes().to_vec())).collect()
}

fn same_bits(dtype: Dtype, arithmetic: Arithmetic) {
    let scratch = tempfile::tempdir().unwrap();
    let configurations = configurations(scratch.path(), dtype);
    assert_eq!(configurations.len(), Registry::default().methods().count());
    for text in configurations {
        let options = PlanOptions { seed: 3, arithmetic, ..PlanOptions::default() };
        let plan = plan_with(&text, options).unwrap();
        let merged = |threads: usize, shard_size: u64| {
            let out = scratch.path().join("out");
            let execution = Execution { threads: Some(threads), memory: u64::MAX, shard_size };
            execute(&plan, &out, &execution, &|_| true).unwrap();
            let found = (weights(&out), tensors(&out));
            std::fs::remove_dir_all(&out).unwrap();
            found
        };
        let (files, bytes) = merged(1, u64::MAX);
        assert_eq!(files.len(), 1);
        for threads in [2, 3, 8] {
            assert!(merged(threads, u64::MAX).0 == files, "{threads} threads: {text}");
        }
        let (small, again) = merged(3, 1_000_000);
        assert!(small.len() > 2 && again == bytes, "{text}");
        let (smallest, again) = merged(2, 1);
        assert!(smallest.len() == 8 && again == bytes, "{text}");
        let execution = Execution { threads: Some(5), memory: u64::MAX, shard_size: 0 };
        assert!(execute_in_memory(&plan, &execution).unwrap() == bytes, "{text}");
        // Another seed, other bits, where there is chance.
        let other = plan_with(&text, PlanOptions { seed: 4, arithmetic, ..PlanOptions::default() });
        let other = execute_in_memory(&other.unwrap(), &execution).unwrap();
        let chance = ["dare", "della"].iter().any(|name| plan.config().merge_method.contains(name));
        assert_eq!(other != bytes, chance, "{text}");
    }
}

#[test]
fn of_f32() {
    same_bits(Dtype::F32, Arithmetic::Float32);
}

#[test]
fn of_bf16() {
    same_bits(Dtype::BF16, Arithmetic::Float32);
}

#[test]
fn of_f16() {
    same_bits(Dtype::F16, Arithmetic::Float32);
}

#[test]
fn of_arithmetic_in_bf16() {
    same_bits(Dtype::BF16, Arithmetic::Input);
}
