//! Interrupted merges go on: stopped by the observer, killed at any moment, with a damaged record; and refuse to go on
//! as another merge.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod checkpoints;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use checkpoints::{
    Entry, Random, config, llama, merge, plan, plan_with, says, weights, write_model, yaml,
};
use posttrain_merge::dtype::Dtype;
use posttrain_merge::{Error, Execution, Plan, PlanOptions, Report, execute};
use serde_json::json;

/// Where a child process merges.
const CHILD: &str = "POSTTRAIN_MERGE_CHILD";

/// Stochastic, so that numbers drawn anew would be seen.
fn configuration(scratch: &Path, density: f64) -> String {
    let model = |name: &str, seed| {
        write_model(&scratch.join(name), &config(3), &llama(seed, Dtype::F32, 3))
    };
    let (base, a, b) = (model("base", 1), model("a", 2), model("b", 3));
    let parameters = format!("weight: 0.5, density: {density}");
    let base = format!("base_model: '{}'\n", base.display());
    yaml("dare_ties", &[(&a, &parameters), (&b, &parameters)], &base)
}

fn one_thread() -> Execution {
    Execution { threads: Some(1), shard_size: 1000, ..Execution::default() }
}

/// Stops after `count` tensors.
fn stopped_after(plan: &Plan, out: &Path, count: usize) -> Result<Report, Error> {
    let seen = AtomicUsize::new(0);
    execute(plan, out, &one_thread(), &|_| seen.fetch_add(1, Ordering::SeqCst) + 1 < count)
}

#[test]
fn stopped_after_any_number_of_tensors() {
    let scratch = tempfile::tempdir().unwrap();
    let plan = plan(&configuration(scratch.path(), 0.5)).unwrap();
    let whole = scratch.path().join("whole");
    let report = execute(&plan, &whole, &one_thread(), &|_| true).unwrap();
    assert_eq!((report.resumed, report.outputs.len()), (0, 12));
    for count in 1..=12 {
        let out = scratch.path().join("out");
        let error = stopped_after(&plan, &out, count).unwrap_err();
        assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
        says(&error.to_string(), &["out.unfinished holds what is done, the same merge goes on"]);
        assert!(!out.exists());
        let again = execute(&plan, &out, &one_thread(), &|_| true).unwrap();
        assert_eq!(again.resumed, count);
        assert_eq!((&again.outputs, &again.inputs), (&report.outputs, &report.inputs));
        assert_eq!(weights(&out), weights(&whole));
        assert!(!scratch.path().join("out.unfinished").exists());
        assert!(posttrain_merge::verify(&out).unwrap().is_ok());
        let journal = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(journal.into_iter().all(|name| !name.to_string_lossy().contains("journal")));
        std::fs::remove_dir_all(&out).unwrap();
    }
    // Stopped again and again.
    let out = scratch.path().join("out");
    let mut starts = 0;
    while stopped_after(&plan, &out, 5 + starts).is_err() {
        starts += 1;
    }
    assert_eq!(weights(&out), weights(&whole));
}

#[test]
fn a_record_that_is_cut_off_or_lies() {
    let scratch = tempfile::tempdir().unwrap();
    let mut names = llama(1, Dtype::F32, 1);
    // A name that is cut in the middle of a letter.
    names[1].name = "äöüß.weight".into();
    let a = write_model(&scratch.path().join("a"), &config(1), &names);
    let mut random = Random(5);
    let numbers =
        |entry: &Entry| Entry::random(&entry.name, entry.dtype, &entry.shape, &mut random);
    let other: Vec<Entry> = names.iter().map(numbers).collect();
    let b = write_model(&scratch.path().join("b"), &config(1), &other);
    let plan = plan(&yaml("linear", &[(&a, "weight: 1"), (&b, "weight: 1")], "")).unwrap();
    let whole = scratch.path().join("whole");
    execute(&plan, &whole, &one_thread(), &|_| true).unwrap();
    let (out, folder) = (scratch.path().join("out"), scratch.path().join("out.unfinished"));
    let journal = folder.join("merge.journal");

    stopped_after(&plan, &out, 6).unwrap_err();
    let record = std::fs::read(&journal).unwrap();
    let head = record.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in head..record.len() {
        std::fs::write(&journal, &record[..length]).unwrap();
        // The next start writes the record anew.
        stopped_after(&plan, &out, 1).unwrap_err();
        let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').count() - 1;
        let kept = lines(&record[..length]);
        let now = lines(&std::fs::read(&journal).unwrap());
        assert!(now >= kept && now <= kept + 1, "{length}: {kept} {now}");
    }
    let report = execute(&plan, &out, &one_thread(), &|_| true).unwrap();
    assert!(report.resumed >= 5, "{}", report.resumed);
    assert_eq!(weights(&out), weights(&whole));
    std::fs::remove_dir_all(&out).unwrap();

    // Bytes that are not those of the record are computed again.
    stopped_after(&plan, &out, 6).unwrap_err();
    let damaged = folder.join("model-00001-of-00002.safetensors");
    let mut bytes = std::fs::read(&damaged).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    let report = execute(&plan, &out, &one_thread(), &|_| true).unwrap();
    assert_eq!(report.resumed, 5);
    assert_eq!(weights(&out), weights(&whole));
    std::fs::remove_dir_all(&out).unwrap();

    // So is a file that is cut off, has another header or is gone.
    for damage in [&bytes[..9], b"", &[0; 2000]] {
        stopped_after(&plan, &out, 6).unwrap_err();
        std::fs::write(&damaged, damage).unwrap();
        execute(&plan, &out, &one_thread(), &|_| true).unwrap();
        assert_eq!(weights(&out), weights(&whole));
        std::fs::remove_dir_all(&out).unwrap();
    }
    stopped_after(&plan, &out, 6).unwrap_err();
    std::fs::remove_file(&damaged).unwrap();
    execute(&plan, &out, &one_thread(), &|_| true).unwrap();
    assert_eq!(weights(&out), weights(&whole));
    std::fs::remove_dir_all(&out).unwrap();

    // Without a record, of a merge that was killed before or after it was there, all is computed.
    stopped_after(&plan, &out, 6).unwrap_err();
    std::fs::remove_file(&journal).unwrap();
    std::fs::write(folder.join(".merge.json.77.tmp"), "{").unwrap();
    std::fs::write(folder.join("merge.journal.new"), "{").unwrap();
    let report = execute(&plan, &out, &one_thread(), &|_| true).unwrap();
    assert_eq!(report.resumed, 0);
    assert_eq!(weights(&out), weights(&whole));
    assert!(!out.join(".merge.json.77.tmp").exists() && !out.join("merge.journal.new").exists());
}

/// Everything in a folder.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn another_merge_is_refused_and_nothing_is_lost() {
    let scratch = tempfile::tempdir().unwrap();
    let text = configuration(scratch.path(), 0.5);
    let first = plan(&text).unwrap();
    let out = scratch.path().join("out");
    stopped_after(&first, &out, 4).unwrap_err();
    let before = content(&scratch.path().join("out.unfinished"));
    let refused = |plan: &Plan, execution: &Execution, what: &str| {
        let error = execute(plan, &out, execution, &|_| true).unwrap_err();
        assert!(matches!(error, Error::Unfinished { .. }), "{what}: {error}");
        says(&error.to_string(), &["out.unfinished: holds the beginning of another merge"]);
        assert_eq!(content(&scratch.path().join("out.unfinished")), before, "{what}");
    };
    for (what, from, to) in [
        ("a parameter", "density: 0.5", "density: 0.25"),
        ("the method", "dare_ties", "dare_linear"),
        ("the type", "base_model", "out_dtype: bfloat16\nbase_model"),
        ("the type of the inputs", "base_model", "dtype: bfloat16\nout_dtype: float32\nbase_model"),
        ("the order", "/a'", "/b2'"),
    ] {
        let changed = text.replace("/b'", "/b2'").replace(from, to);
        let changed = changed.replace("/b2'", if what == "the order" { "/a'" } else { "/b'" });
        if let Ok(changed) = plan(&changed) {
            refused(&changed, &one_thread(), what);
        } else {
            assert_eq!(what, "the order");
        }
    }
    let seed = PlanOptions { seed: 1, ..PlanOptions::default() };
    refused(&plan_with(&text, seed).unwrap(), &one_thread(), "the seed");
    let arithmetic =
        PlanOptions { arithmetic: posttrain_merge::Arithmetic::Input, ..PlanOptions::default() };
    drop(plan_with(&text, arithmetic).unwrap());
    refused(&first, &Execution { shard_size: 2000, ..one_thread() }, "the size of files");
    // Inputs that changed since: other bytes of the same size, and other settings.
    for file in ["a/model.safetensors", "b/config.json"] {
        let path = scratch.path().join(file);
        let bytes = std::fs::read(&path).unwrap();
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let opened = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        opened.set_modified(time + Duration::from_secs(1)).unwrap();
        refused(&plan(&text).unwrap(), &one_thread(), file);
        opened.set_modified(time).unwrap();
    }
    let report = execute(&plan(&text).unwrap(), &out, &one_thread(), &|_| true).unwrap();
    assert_eq!(report.resumed, 4);
}

#[test]
fn settings_of_an_adapter_are_part_of_the_merge() {
    let scratch = tempfile::tempdir().unwrap();
    let a = write_model(&scratch.path().join("a"), &config(1), &llama(1, Dtype::F32, 1));
    let lora = scratch.path().join("lora");
    std::fs::create_dir(&lora).unwrap();
    let mut random = Random(9);
    let name = "base_model.model.model.layers.0.self_attn.q_proj";
    let pair = [("A", [2, 8]), ("B", [8, 2])].map(|(part, shape)| {
        Entry::random(&format!("{name}.lora_{part}.weight"), Dtype::F32, &shape, &mut random)
    });
    std::fs::write(lora.join("adapter_model.safetensors"), checkpoints::safetensors(&pair))
        .unwrap();
    let settings = |alpha: f64| {
        let text = json!({"peft_type": "LORA", "r": 2, "lora_alpha": alpha}).to_string();
        std::fs::write(lora.join("adapter_config.json"), text).unwrap();
    };
    settings(4.0);
    let text = format!(
        "merge_method: passthrough\nmodels:\n- model: '{}+{}'\n",
        a.display(),
        lora.display()
    );
    let out = scratch.path().join("out");
    stopped_after(&plan(&text).unwrap(), &out, 3).unwrap_err();
    settings(8.0);
    let error = merge(&text, &out).unwrap_err();
    assert!(matches!(error, Error::Unfinished { .. }), "{error}");
}

#[test]
fn killed_at_any_moment() {
    if let Some(scratch) = std::env::var_os(CHILD) {
        let text = std::fs::read_to_string(Path::new(&scratch).join("merge.yaml")).unwrap();
        let execution = Execution { threads: Some(2), shard_size: 200_000, ..Execution::default() };
        let slow = |_| {
            std::thread::sleep(Duration::from_millis(2));
            true
        };
        let report =
            execute(&plan(&text).unwrap(), &Path::new(&scratch).join("out"), &execution, &slow);
        assert!(report.is_ok(), "{report:?}");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut random = Random(11);
    let mut model = |name: &str| {
        let tensor = |i: usize, random: &mut Random| {
            Entry::random(&format!("layers.{i}.w"), Dtype::BF16, &[64, 64 + i], random)
        };
        let entries: Vec<Entry> = (0..40).map(|i| tensor(i, &mut random)).collect();
        write_model(&scratch.path().join(name), &json!({"model_type": "x"}), &entries)
    };
    let (base, a, b) = (model("base"), model("a"), model("b"));
    let parameters = "weight: 0.5, density: 0.4";
    let base = format!("base_model: '{}'\n", base.display());
    let text = yaml("della", &[(&a, parameters), (&b, parameters)], &base);
    std::fs::write(scratch.path().join("merge.yaml"), &text).unwrap();
    let whole = scratch.path().join("whole");
    let execution = Execution { shard_size: 200_000, ..Execution::default() };
    execute(&plan(&text).unwrap(), &whole, &execution, &|_| true).unwrap();

    let (mut killed, mut finished) = (0, 0);
    let mut moments = Random(12);
    while finished < 3 && killed < 200 {
        let out = scratch.path().join("out");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_at_any_moment"])
            .env(CHILD, scratch.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(1 + moments.next() % (50 + 10 * killed as u64)));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        killed += usize::from(!status.success());
        if out.exists() {
            assert_eq!(weights(&out), weights(&whole));
            assert!(posttrain_merge::verify(&out).unwrap().is_ok());
            std::fs::remove_dir_all(&out).unwrap();
            finished += 1;
        }
    }
    assert!(finished == 3 && killed >= 3, "{killed} killed, {finished} finished");
}
