//! `examples/sft.rs` with each of its configurations, on broken input, killed and resumed.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::init_model::tiny_model;
use crate::runs::{self, killed_is_whole, left};
use crate::support::{Files, Program};

const PROGRAM: Program = Program("sft");

fn short_run(files: &Files, name: &str, more: &[&str]) -> String {
    runs::short_run(&PROGRAM, files, name, more).0
}

/// What every run leaves; the losses of its steps.
fn losses(out: &str) -> Vec<f64> {
    left(out).0.iter().map(|step| step["loss"].as_f64().unwrap()).collect()
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
    let state = ["model.safetensors", "optimizer.safetensors", "trainer_state.json"];
    killed_is_whole(&PROGRAM, &files, settings, &state);
}
