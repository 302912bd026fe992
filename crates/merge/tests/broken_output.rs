//! Merges that cannot be written or computed: an error that names the place, and nothing under the final name.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "says why nothing was tested")]

mod checkpoints;

use std::path::{Path, PathBuf};
use std::process::Command;

use checkpoints::{Entry, config, llama, merge, plan, says, weights, write_model, yaml};
use posttrain_merge::dtype::Dtype;
use posttrain_merge::{Error, Execution, execute};
use serde_json::json;

/// What a child process is to do, and where.
const CHILD: &str = "POSTTRAIN_MERGE_CHILD";

fn two(scratch: &Path) -> String {
    let model = |name: &str, seed| {
        let mut entries = llama(seed, Dtype::F32, 2);
        entries.push(Entry::new(
            "score.weight",
            Dtype::F32,
            &[64, 256],
            &vec![seed as f32; 64 * 256],
        ));
        write_model(&scratch.join(name), &config(2), &entries)
    };
    let (a, b) = (model("a", 1), model("b", 2));
    yaml("linear", &[(&a, "weight: 1"), (&b, "weight: 1")], "")
}

#[test]
fn places_that_cannot_be_written() {
    let scratch = tempfile::tempdir().unwrap();
    let text = two(scratch.path());
    std::fs::write(scratch.path().join("file"), "x").unwrap();
    for out in [scratch.path().join("file/out"), PathBuf::from("/proc/out"), "/sys/out".into()] {
        let error = merge(&text, &out).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        says(&error.to_string(), &[out.to_str().unwrap()]);
        assert!(!out.exists());
    }
    for out in ["", "..", "/"] {
        let error = merge(&text, Path::new(out)).unwrap_err();
        assert!(matches!(error, Error::Value { .. } | Error::Exists { .. }), "{out}: {error:?}");
    }
}

#[test]
fn what_is_there_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let text = two(scratch.path());
    let folder = scratch.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let file = scratch.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for out in [&folder, &file, &link] {
        let error = merge(&text, out).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error:?}");
        says(&error.to_string(), &[out.to_str().unwrap(), "exists already; choose another"]);
    }
    assert_eq!(std::fs::read(file).unwrap(), b"x");
    assert!(std::fs::read_dir(folder).unwrap().next().is_none());
    // Nor is anything that lies where the output grows taken into it.
    let out = scratch.path().join("out");
    let unfinished = scratch.path().join("out.unfinished");
    std::fs::create_dir(&unfinished).unwrap();
    std::fs::write(unfinished.join("model-00007-of-00009.safetensors"), "old").unwrap();
    let error = merge(&text, &out).unwrap_err().to_string();
    says(
        &error,
        &["out.unfinished: holds `model-00007-of-00009.safetensors`, which is no file of"],
    );
    assert!(unfinished.join("model-00007-of-00009.safetensors").exists() && !out.exists());
    std::fs::remove_file(unfinished.join("model-00007-of-00009.safetensors")).unwrap();
    merge(&text, &out).unwrap();
    assert!(!unfinished.exists());
}

#[test]
fn what_is_no_number_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let a = write_model(&scratch.path().join("a"), &config(2), &llama(1, Dtype::F32, 2));
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let mut broken = llama(2, dtype, 2);
        let size = broken[6].bytes.len() / broken[6].shape.iter().product::<usize>();
        let nan = Entry::new("", dtype, &[1], &[f32::NAN]);
        broken[6].bytes[77 * size..78 * size].copy_from_slice(&nan.bytes);
        let b = write_model(&scratch.path().join("b"), &config(2), &broken);
        for (method, parameters) in [
            ("linear", "weight: 1"),
            ("slerp", ""),
            ("ties", "weight: 1, density: 0.5"),
            ("della", "weight: 1, density: 0.5"),
            ("dare_ties", "weight: 1, density: 0.5"),
            ("breadcrumbs", "weight: 1, density: 0.5"),
            ("sce", ""),
            ("karcher", ""),
            ("multislerp", "weight: 1"),
            ("nuslerp", "weight: 1"),
            ("nearswap", ""),
            ("arcee_fusion", ""),
            ("ram", ""),
            ("ramplus_tl", ""),
        ] {
            let base = format!("base_model: '{}'\n", a.display());
            let base = if ["karcher", "linear", "multislerp", "nuslerp"].contains(&method) {
                ""
            } else {
                &base
            };
            let shared =
                if ["slerp", "nearswap"].contains(&method) { "parameters: {t: 0.5}\n" } else { "" };
            let sce = if method == "sce" { "parameters: {select_topk: 0.5}\n" } else { "" };
            let text = yaml(
                method,
                &[(&a, parameters), (&b, parameters)],
                &format!("{base}{shared}{sce}"),
            );
            let out = scratch.path().join("out");
            let error = merge(&text, &out).unwrap_err();
            assert!(matches!(error, Error::Tensor { .. }), "{error:?}");
            let text = error.to_string();
            says(&text, &["tensor `model.layers.1.mlp.up_proj.weight`: ", "b/model.safetensors"]);
            assert!(text.ends_with("is NaN at element 77, expected numbers"), "{method}: {text}");
            assert!(!out.exists());
            std::fs::remove_dir_all(scratch.path().join("out.unfinished")).unwrap();
        }
    }
}

#[test]
fn the_layer_with_nan_is_named_as_its_file_has_it() {
    let scratch = tempfile::tempdir().unwrap();
    let mut broken = llama(2, Dtype::F32, 2);
    broken[6].bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let a = write_model(&scratch.path().join("a"), &config(2), &broken);
    let text = format!(
        "merge_method: passthrough\nslices:\n- sources:\n  - {{model: '{0}', layer_range: [1, 2], parameters: {{scale: 2}}}}\n- sources:\n  - {{model: '{0}', layer_range: [0, 1]}}\n",
        a.display()
    );
    let error = merge(&text, &scratch.path().join("out")).unwrap_err().to_string();
    says(
        &error,
        &[
            "tensor `model.layers.0.mlp.up_proj.weight`: ",
            "a/model.safetensors: `model.layers.1.mlp.up_proj.weight` is NaN at element 0",
        ],
    );
}

#[test]
fn numbers_too_large_for_the_type_of_the_output_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let mut values = vec![1.0; 96];
    // Rounds to 65504, the largest of float16.
    values[3] = 65_519.0;
    let model = |values: &[f32]| {
        let entry = Entry::new("model.embed_tokens.weight", Dtype::F32, &[12, 8], values);
        write_model(&scratch.path().join("a"), &json!({"model_type": "x"}), &[entry])
    };
    let out = scratch.path().join("out");
    let text = yaml("passthrough", &[(&model(&values), "")], "out_dtype: float16\n");
    merge(&text, &out).unwrap();
    std::fs::remove_dir_all(&out).unwrap();
    values[5] = -65_520.0;
    model(&values);
    let error = merge(&text, &out).unwrap_err().to_string();
    says(&error, &["tensor `model.embed_tokens.weight`: element 5 is -6.552e4, more than float16"]);
    assert!(!out.exists());
    // What is infinite already stays so.
    values[5] = f32::INFINITY;
    model(&values);
    std::fs::remove_dir_all(scratch.path().join("out.unfinished")).unwrap();
    merge(&text, &out).unwrap();
}

#[test]
fn too_little_memory_is_said_before_anything_is_read() {
    let scratch = tempfile::tempdir().unwrap();
    let plan = plan(&two(scratch.path())).unwrap();
    let out = scratch.path().join("out");
    let execution = Execution { memory: 1_000_000, ..Execution::default() };
    let error = execute(&plan, &out, &execution, &|_| true).unwrap_err().to_string();
    let needed = plan.memory(1);
    says(&error, &["`memory` is 1000000", &format!("at least {needed} bytes")]);
    assert!(!out.exists());
    let execution = Execution { memory: needed, ..Execution::default() };
    execute(&plan, &out, &execution, &|_| true).unwrap();
}

/// Runs the test `name` in a process whose `disk` is a file system in memory of its own; `None` where that is not
/// permitted.
fn on_a_small_disk(name: &str, scratch: &Path, options: &str) -> Option<()> {
    let disk = scratch.join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let script = format!("mount -t tmpfs -o {options} none '{}'", disk.display());
    let may = |user: &[&str]| {
        Command::new("unshare")
            .args(user)
            .args(["sh", "-c", &script])
            .status()
            .is_ok_and(|s| s.success())
    };
    let user = [&["-m"][..], &["-r", "-m"]].into_iter().find(|user| may(user));
    let Some(user) = user else {
        eprintln!("skipped: mounting a file system in memory is not permitted here");
        return None;
    };
    let test = std::env::current_exe().unwrap();
    let script = format!("{script} && exec '{}' --exact {name} --nocapture", test.display());
    let output = Command::new("unshare")
        .args(user)
        .args(["sh", "-c", &script])
        .env(CHILD, scratch)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Some(())
}

#[test]
fn a_full_disk() {
    if let Some(scratch) = std::env::var_os(CHILD) {
        let scratch = PathBuf::from(scratch);
        let out = scratch.join("disk/out");
        let text = std::fs::read_to_string(scratch.join("merge.yaml")).unwrap();
        let error = merge(&text, &out).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        says(&error.to_string(), &["disk/out.unfinished/model.safetensors: ", "No space left"]);
        assert!(!out.exists());
        // Room for the weights, and then not for what goes with them.
        let room = |size: &str| {
            let remount =
                format!("mount -o remount,size={size} '{}'", scratch.join("disk").display());
            assert!(Command::new("sh").args(["-c", &remount]).status().unwrap().success());
        };
        let (mut step, mut failures) = (76, 0);
        loop {
            room(&format!("{step}k"));
            match merge(&text, &out) {
                Ok(_) => break,
                Err(error) => {
                    says(&error.to_string(), &["disk/out.unfinished", "No space left"]);
                    assert!(!out.exists());
                    failures += 1;
                    step += 4;
                }
            }
        }
        assert!(failures >= 2, "{failures}");
        merge(&text, &scratch.join("reference")).unwrap();
        assert_eq!(weights(&out), weights(&scratch.join("reference")));
        assert!(posttrain_merge::verify(&out).unwrap().is_ok());
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("merge.yaml"), two(scratch.path())).unwrap();
    on_a_small_disk("a_full_disk", scratch.path(), "size=16k");
}

#[test]
fn a_disk_that_is_read_only() {
    if let Some(scratch) = std::env::var_os(CHILD) {
        let scratch = PathBuf::from(scratch);
        let text = std::fs::read_to_string(scratch.join("merge.yaml")).unwrap();
        let error = merge(&text, &scratch.join("disk/out")).unwrap_err();
        says(&error.to_string(), &["disk/out.unfinished: Read-only file system"]);
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("merge.yaml"), two(scratch.path())).unwrap();
    on_a_small_disk("a_disk_that_is_read_only", scratch.path(), "ro,size=1m");
}
