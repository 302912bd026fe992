//! Runs of the programs that train: a few steps, what they leave, and what a kill leaves.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::init_model::tiny_model;
use crate::support::{Files, Program};

/// A run of six steps with one of `examples/configs`; its folder, and what it said.
pub(crate) fn short_run(
    program: &Program,
    files: &Files,
    name: &str,
    more: &[&str],
) -> (String, String) {
    let (model, out) = (tiny_model(files), files.path(name));
    let config = format!("examples/configs/{name}.yaml");
    let (model, folder) = (format!("model={model}"), format!("output_dir={out}"));
    let mut args = vec!["--config", &config, "--set", &model, "--set", &folder];
    args.extend(["--set", "max_steps=6", "--set", "save_steps=3"]);
    for set in more {
        args.extend(["--set", set]);
    }
    let (stdout, stderr) = program.answer(&args, "");
    assert!(stdout.is_empty());
    assert!(stderr.contains("rows"), "the data report is printed: {stderr}");
    (out, stderr)
}

pub(crate) fn lines(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}")))
        .unwrap()
}

/// The steps of a run that has left what every run leaves, and its evaluations.
pub(crate) fn left(out: &str) -> (Vec<Value>, Vec<Value>) {
    for name in ["config.yaml", "data_report.json", "report.html", "checkpoint-6"] {
        assert!(Path::new(out).join(name).exists(), "{name}");
    }
    let events = |name: String| name.starts_with("events.out.tfevents.");
    let names = fs::read_dir(out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| events(name.clone())).count(), 1);
    let steps = lines(&format!("{out}/metrics.jsonl"));
    let evaluations = format!("{out}/evaluations.jsonl");
    let evaluations =
        if Path::new(&evaluations).exists() { lines(&evaluations) } else { Vec::new() };
    let keys = ["step", "epoch", "loss", "grad_norm", "learning_rate", "tokens", "trained_tokens"];
    for step in &steps {
        numbers(step, &keys);
        numbers(step, &["tokens_per_second"]);
    }
    for evaluation in &evaluations {
        numbers(evaluation, &["step", "epoch", "eval_loss", "tokens", "seconds"]);
    }
    (steps, evaluations)
}

/// That an event has these numbers.
pub(crate) fn numbers(event: &Value, keys: &[&str]) {
    for key in keys {
        assert!(event[*key].is_number(), "{key} of {event}");
    }
}

/// That a run that failed has left nothing that could be taken for a result.
pub(crate) fn nothing_is_left(out: &str) {
    let names = fs::read_dir(out).into_iter().flatten();
    for name in names.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        let part = [".tmp", ".writing"].iter().any(|part| name.contains(part));
        let result = name.ends_with(".safetensors") || name.starts_with("checkpoint-");
        assert!(!part && !result && name != "metrics.jsonl", "{name} is left");
    }
}

/// A run of twelve steps, killed at many moments, is the run that was not. `settings` are those of a run
/// into a folder, with a checkpoint at every step.
pub(crate) fn killed_is_whole(
    program: &Program,
    files: &Files,
    settings: impl Fn(&str) -> String,
    state: &[&str],
) {
    let whole = files.path("whole");
    program.answer(&["--config", &files.write("whole.yaml", &settings(&whole))], "");

    let out = files.path("killed");
    let text = format!("{}resume_from_checkpoint: true\n", settings(&out));
    let config = files.write("killed.yaml", &text);
    // The second as if it had been killed in its first step, before the first checkpoint.
    let mut kills = 0;
    // At random moments, but for the first.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut moment = since.subsec_nanos();
    let waits = std::iter::repeat_with(|| {
        moment = moment.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        100 + u64::from(moment >> 8) % 800
    });
    for (round, wait) in std::iter::once(150).chain(waits.take(6)).enumerate() {
        if round == 1 {
            fs::create_dir_all(&out).unwrap();
            let step = r#"{"step":1,"epoch":0,"loss":9,"grad_norm":1,"learning_rate":0,"tokens":1,"trained_tokens":1,"seconds":1,"nll":9}"#;
            let saved = |entry: fs::DirEntry| {
                entry.file_name().to_string_lossy().starts_with("checkpoint-")
            };
            if !fs::read_dir(&out).unwrap().any(|entry| saved(entry.unwrap())) {
                fs::write(format!("{out}/metrics.jsonl"), format!("{step}\n")).unwrap();
            }
        }
        let mut child = program.start(&["--config", &config]);
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
        // Whatever stands under the name of a checkpoint is whole.
        for entry in fs::read_dir(&out).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("checkpoint-") {
                for name in state {
                    assert!(path.join(name).exists(), "{} without {name}", path.display());
                }
            }
        }
    }
    assert!(kills > 0, "no run was killed");
    program.answer(&["--config", &config], "");
    let bytes = |folder: &str| fs::read(format!("{folder}/model.safetensors")).unwrap();
    assert!(bytes(&whole) == bytes(&out), "every bit of every weight");
    let steps: Vec<u64> = lines(&format!("{out}/metrics.jsonl"))
        .iter()
        .map(|step| step["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=12).collect::<Vec<_>>(), "each step once");
}
