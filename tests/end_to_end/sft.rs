//! `examples/sft.rs` with each of its configurations, on broken input, killed and resumed.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::init_model::tiny_model;
use crate::support::{Files, Program};

const PROGRAM: Program = Program("sft");

/// A run of a few steps with one of `examples/configs`.
fn short_run(files: &Files, name: &str, more: &[&str]) -> String {
    let (model, out) = (tiny_model(files), files.path(name));
    let config = format!("examples/configs/{name}.yaml");
    let (model, folder) = (format!("model={model}"), format!("output_dir={out}"));
    let mut args = vec!["--config", &config, "--set", &model, "--set", &folder];
    args.extend(["--set", "max_steps=6", "--set", "save_steps=3"]);
    for set in more {
        args.extend(["--set", set]);
    }
    let (stdout, stderr) = PROGRAM.answer(&args, "");
    assert!(stdout.is_empty());
    assert!(stderr.contains("rows"), "the data report is printed: {stderr}");
    out
}

fn lines(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What every run leaves; the losses of its steps.
fn losses(out: &str) -> Vec<f64> {
    for name in ["config.yaml", "data_report.json", "report.html", "checkpoint-6"] {
        assert!(Path::new(out).join(name).exists(), "{name}");
    }
    let events = |name: String| name.starts_with("events.out.tfevents.");
    let names = fs::read_dir(out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| events(name.clone())).count(), 1);
    let steps = lines(&format!("{out}/metrics.jsonl"));
    let keys = ["step", "epoch", "loss", "grad_norm", "learning_rate", "tokens", "trained_tokens"];
    for step in &steps {
        for key in keys.iter().chain(&["tokens_per_second"]) {
            assert!(step[*key].is_number(), "{key} of {step}");
        }
    }
    steps.iter().map(|step| step["loss"].as_f64().unwrap()).collect()
}

#[test]
fn full_fine_tuning_learns_and_its_model_answers() {
    let files = Files::new();
    let out = short_run(&files, "sft_full", &["learning_rate=5e-3"]);
    let losses = losses(&out);
    assert_eq!(losses.len(), 6);
    assert!(losses[5] < losses[0], "{losses:?}");
    let chat = Program("chat").stdout(&["--model", &out, "--prompt", "Hello", "--json"]);
    assert!(chat.contains("text"));
    // The data is read to the same rows, and a finished run is not overwritten.
    let again = PROGRAM.failure(&["--config", &format!("{out}/config.yaml")]);
    assert!(again.contains("`overwrite_output_dir: true`"), "{again}");
}

#[test]
fn lora_writes_an_adapter() {
    let files = Files::new();
    let out = short_run(&files, "sft_lora", &[]);
    assert_eq!(losses(&out).len(), 6);
    let config: Value =
        serde_json::from_slice(&fs::read(format!("{out}/adapter_config.json")).unwrap()).unwrap();
    assert_eq!((config["r"].as_u64(), config["lora_alpha"].as_f64()), (Some(16), Some(32.0)));
    assert!(Path::new(&out).join("adapter_model.safetensors").exists());
    assert!(!Path::new(&out).join("model.safetensors").exists(), "the base stays where it is");
}

#[test]
fn qlora_and_continued_pretraining_run() {
    let files = Files::new();
    assert_eq!(losses(&short_run(&files, "sft_qlora", &[])).len(), 6);
    let files = Files::new();
    let settings = ["lr_scheduler_kwargs.num_decay_steps=2", "warmup_steps=1"];
    assert_eq!(losses(&short_run(&files, "continued_pretraining", &settings)).len(), 6);
}

#[test]
fn what_is_wrong_is_said_before_anything_is_trained() {
    let files = Files::new();
    let (model, out) = (tiny_model(&files), files.path("out"));
    let rows = "examples/data/conversations.jsonl";
    let fails = |data: &str, more: &str| {
        let text = format!("model: {model}\ndata: {data}\noutput_dir: {out}\n{more}");
        PROGRAM.failure(&["--config", &files.write("sft.yaml", &text)])
    };
    let typo = fails(rows, "lerning_rate: 1");
    assert!(typo.contains("line 4: unknown key `lerning_rate` (did you mean `learning_rate`?)"));
    assert!(fails(rows, "learning_rate: -1").contains("`learning_rate` is -1"));
    assert!(fails("nowhere.jsonl", "").contains("nowhere.jsonl"));
    let nested = fails(rows, "lora: {r: 8, target_modules: [q_prj]}");
    assert!(nested.contains("q_prj"), "{nested}");
    let broken = files.write("broken.jsonl", "{\"messages\": [}\n");
    assert!(fails(&broken, "").contains("broken.jsonl:1"));
    let empty = r#"{"messages": [{"role": "user", "content": "Hello"}]}"#;
    let untrained = files.write("untrained.jsonl", &format!("{empty}\n"));
    let message = fails(&untrained, "assistant_only_loss: true\nval_set_size: 0");
    assert!(message.contains("untrained.jsonl:1"), "{message}");
    let missing = PROGRAM.failure(&["--config", &files.path("missing.yaml")]);
    assert!(missing.contains("missing.yaml"));
}

#[test]
fn a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed() {
    let files = Files::new();
    let model = tiny_model(&files);
    let settings = |out: &str| {
        format!(
            "model: {model}\ndata: examples/data/conversations.jsonl\noutput_dir: {out}\n\
             max_steps: 12\nsave_steps: 1\nsave_total_limit: 2\nper_device_train_batch_size: 4\n\
             learning_rate: 1e-3\nval_set_size: 0\neval_strategy: 'no'\n"
        )
    };
    let whole = files.path("whole");
    PROGRAM.answer(&["--config", &files.write("whole.yaml", &settings(&whole))], "");

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
        let mut child = PROGRAM.start(&["--config", &config]);
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
        // Whatever stands under the name of a checkpoint is whole.
        for entry in fs::read_dir(&out).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("checkpoint-") {
                for name in ["model.safetensors", "optimizer.safetensors", "trainer_state.json"] {
                    assert!(path.join(name).exists(), "{} without {name}", path.display());
                }
            }
        }
    }
    assert!(kills > 0, "no run was killed");
    PROGRAM.answer(&["--config", &config], "");
    let bytes = |folder: &str| fs::read(format!("{folder}/model.safetensors")).unwrap();
    assert!(bytes(&whole) == bytes(&out), "every bit of every weight");
    let steps: Vec<u64> = lines(&format!("{out}/metrics.jsonl"))
        .iter()
        .map(|step| step["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=12).collect::<Vec<_>>(), "each step once");
}
