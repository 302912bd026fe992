//! The laws of a run: accumulation, resuming, recomputation, the checkpoints, what stops it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;

use posttrain_train::Error;
use posttrain_train::config::SftConfig;
use support::{Memory, config, copy, distance, samples, train, weights};

/// Steps and the trained weights.
fn trained(config: &SftConfig) -> (Memory, Vec<(String, Vec<f32>)>) {
    let (model, memory) = train(config, samples(), None).unwrap();
    (memory, weights(&model))
}

const SHORT: &str = "max_steps: 4\nlearning_rate: 1e-3\nassistant_only_loss: true\n";

#[test]
fn accumulated_passes_are_one_large_batch() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, batch: usize, passes: usize| {
        let settings = format!(
            "{SHORT}per_device_train_batch_size: {batch}\ngradient_accumulation_steps: {passes}\n\
             optim: sgd\nlearning_rate: 0.1\n"
        );
        let settings = settings.replacen("learning_rate: 1e-3\n", "", 1);
        trained(&config(&folder.path().join(name), &settings))
    };
    let (whole, one) = run("one", 12, 1);
    for (name, batch, passes) in [("three", 4, 3), ("twelve", 1, 12)] {
        let (parts, several) = run(name, batch, passes);
        for (a, b) in whole.steps.iter().zip(&parts.steps) {
            assert!((a.loss / b.loss - 1.0).abs() < 1e-6, "{} against {}", a.loss, b.loss);
            assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-5);
        }
        let distance = distance(&one, &several);
        assert!(distance < 1e-6, "{name}: {distance:.1e}");
    }
}

#[test]
fn layers_computed_anew_give_the_same_gradients() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, anew: bool| {
        let settings = format!("{SHORT}neftune_noise_alpha: 5\noptim: sgd\n");
        let mut config = config(&folder.path().join(name), &settings);
        config.training.gradient_checkpointing = anew;
        trained(&config)
    };
    let ((kept, a), (anew, b)) = (run("kept", false), run("anew", true));
    assert_eq!(kept.steps.len(), 4);
    for (kept, anew) in kept.steps.iter().zip(&anew.steps) {
        assert!((kept.loss / anew.loss - 1.0).abs() < 1e-6);
    }
    assert!(distance(&a, &b) < 1e-5);
}

/// Ten steps, and five with a checkpoint, resumed for five more.
fn resumed_equals_whole(settings: &str) {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("{settings}save_steps: 5\nlearning_rate: 1e-3\nwarmup_steps: 3\n");
    let mut whole = config(&folder.path().join("whole"), &settings);
    whole.training.max_steps = 10;
    let (memory, expected) = trained(&whole);
    assert_eq!(memory.checkpoints.len(), 2);

    // The schedule is that of ten steps in both parts; the first is cut off behind the fifth.
    let mut parts = config(&folder.path().join("parts"), &settings);
    parts.training.max_steps = 10;
    copy(&memory.checkpoints[0].path, &parts.training.output_dir.join("checkpoint-5"));
    parts.training.resume_from_checkpoint = posttrain_train::config::Resume::Newest(true);
    let (rest, found) = trained(&parts);
    assert_eq!(rest.started.unwrap().resumed_from, Some(5));
    assert_eq!(rest.steps.len(), 5);
    for (a, b) in memory.steps[5..].iter().zip(&rest.steps) {
        assert_eq!((a.step, a.loss, a.grad_norm), (b.step, b.loss, b.grad_norm));
        assert_eq!((a.learning_rate, &a.rows), (b.learning_rate, &b.rows));
    }
    assert_eq!(expected, found, "every bit of every weight");
}

#[test]
fn a_resumed_run_is_the_whole_run_full() {
    resumed_equals_whole("ema_decay: 0.9\nweight_decay: 0.01\nneftune_noise_alpha: 5\n");
}

#[test]
fn a_resumed_run_is_the_whole_run_with_other_optimizers() {
    for optim in ["adafactor", "lion", "muon", "sgd", "adamw_8bit"] {
        resumed_equals_whole(&format!("optim: {optim}\n"));
    }
}

#[test]
fn a_resumed_run_is_the_whole_run_with_an_adapter_and_packed_rows() {
    resumed_equals_whole(
        "lora: {r: 4, target_modules: all-linear, lora_dropout: 0.1}\npacking: true\n\
         per_device_train_batch_size: 1\n",
    );
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let settings = "max_steps: 2\nsave_steps: 1\n";
    trained(&config(&out, settings));
    let again = |more: &str| {
        let config = config(&out, &format!("max_steps: 3\nsave_steps: 1\n{more}"));
        train(&config, samples(), None).unwrap_err().to_string()
    };
    assert!(again("").contains("resume_from_checkpoint: true"));
    let resume = "resume_from_checkpoint: true\n";
    assert!(again(&format!("{resume}seed: 7\n")).contains("seed 42, not 7"));
    let other = again(&format!("{resume}optim: lion\n"));
    assert!(other.contains("optimizer.safetensors"), "{other}");
    let mut config = config(&out, &format!("max_steps: 3\n{resume}"));
    let fewer = samples().select(0..20);
    let data = train(&config, fewer, None).unwrap_err();
    assert!(matches!(data, Error::Data { .. }), "{data}");
    // Moved aside, not deleted.
    config.training.resume_from_checkpoint = posttrain_train::config::Resume::Newest(false);
    config.training.overwrite_output_dir = true;
    trained(&config);
    assert!(folder.path().join("run.1/checkpoint-2/optimizer.safetensors").exists());
}

#[test]
fn going_on_with_an_older_checkpoint_sets_the_later_ones_aside() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    trained(&config(&out, "max_steps: 4\nsave_steps: 1\n"));
    let older = out.join("checkpoint-2");
    let more = format!("resume_from_checkpoint: {}\nsave_total_limit: 2\n", older.display());
    trained(&config(&out, &format!("max_steps: 3\nsave_steps: 1\n{more}")));
    let there = |name: &str| out.join(name).exists();
    assert!(there("checkpoint-2") && there("checkpoint-3") && !there("checkpoint-4"));
    assert!(there("abandoned-checkpoint-3") && there("abandoned-checkpoint-4"));
}

#[test]
fn numbers_that_are_not_finite_stop_the_run_and_save_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    // So large a rate overflows within a few steps.
    let config = config(&out, "max_steps: 50\nlearning_rate: 1e30\noptim: sgd\nmax_grad_norm: 0\n");
    let error = train(&config, samples(), None).unwrap_err();
    let Error::NotFinite { step, batch, .. } = &error else { panic!("{error}") };
    assert!(*step > 1);
    let lines = fs::read_to_string(batch).unwrap();
    assert_eq!(lines.lines().count(), 8);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(first["rows"][0].as_str().unwrap().starts_with("rows.jsonl:"));
    assert!(!first["ids"].as_array().unwrap().is_empty());
}

#[test]
fn the_best_checkpoint_is_kept_and_patience_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "max_steps: 40\nlearning_rate: 0.05\neval_steps: 2\nsave_steps: 2\n\
                    save_total_limit: 1\n";
    let mut config = config(&folder.path().join("run"), settings);
    config.training.eval_strategy = posttrain_train::config::When::Steps;
    config.training.early_stopping_patience = Some(3);
    let (train_rows, validation) = (samples().select(0..12), samples().select(40..58));
    let rows = || (train_rows.clone(), Some(validation.clone()));
    let (stopped, memory) = train(&config, rows().0, rows().1).unwrap();
    let losses: Vec<f64> = memory.evaluations.iter().map(|found| found.eval_loss).collect();
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let best_step = memory.evaluations.iter().find(|e| e.eval_loss == best).unwrap().step;
    let last = memory.steps.last().unwrap().step;
    // Learning twelve rows by heart makes others worse: the run ends three evaluations behind its best.
    assert!(last < 40, "{losses:?}");
    assert_eq!(last, best_step + 6, "{losses:?}");
    let left: Vec<_> = fs::read_dir(&config.training.output_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("checkpoint-"))
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&format!("checkpoint-{best_step}")), "{left:?}");
    let summary = memory.summary.unwrap();
    assert_eq!(summary.best, Some((best, best_step)));

    // As if it had been killed before it wrote its model: there is no step to make.
    config.training.resume_from_checkpoint = posttrain_train::config::Resume::Newest(true);
    let (again, memory) = train(&config, rows().0, rows().1).unwrap();
    assert!(memory.steps.is_empty());
    let summary = memory.summary.unwrap();
    assert_eq!((summary.step, summary.stop), (last, posttrain_train::watch::Stop::Early));
    assert_eq!(weights(&again), weights(&stopped));
}
