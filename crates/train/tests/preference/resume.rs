//! A run of four steps is one of two that goes on for two more, bit for bit.

use posttrain_train::config::Resume;
use posttrain_train::data::Answers;

use crate::kit::{
    NEW_ADAPTER, adapter, config, extra, labelled, numbers, pairs, rankings, train, triples,
};
use crate::support::{copy, weights};

/// The whole run's steps and those behind the checkpoint are the same.
fn resumed_equals_whole(sets: &[&str], rows: Answers, validation: Option<Answers>) {
    let folder = tempfile::tempdir().unwrap();
    let mut sets = [sets, &["save_strategy=steps", "save_steps=2"]].concat();
    if validation.is_some() {
        sets.extend(["eval_strategy=steps", "eval_steps=1"]);
    }
    let whole = config(&folder.path().join("whole"), &sets);
    let (model, memory) = train(&whole, rows.clone(), validation.clone()).unwrap();
    assert_eq!(memory.steps.len(), 4);
    let mut parts = config(&folder.path().join("parts"), &sets);
    let checkpoint = &memory.checkpoints[0];
    assert_eq!(checkpoint.step, 2);
    copy(&checkpoint.path, &parts.training.output_dir.join("checkpoint-2"));
    parts.training.resume_from_checkpoint = Resume::Newest(true);
    let (again, rest) = train(&parts, rows, validation).unwrap();
    assert_eq!(rest.started.unwrap().resumed_from, Some(2), "{sets:?}");
    assert_eq!(rest.steps.len(), 2);
    for (a, b) in memory.steps[2..].iter().zip(&rest.steps) {
        assert_eq!(numbers(a), numbers(b), "{sets:?}");
        assert_eq!(a.rows, b.rows);
    }
    let measured = |memory: &[posttrain_train::watch::EvalMetrics]| {
        let of = |found: &posttrain_train::watch::EvalMetrics| {
            (found.step, found.eval_loss.to_bits(), found.extra.clone())
        };
        memory.iter().rev().take(2).map(of).collect::<Vec<_>>()
    };
    assert_eq!(measured(&memory.evaluations), measured(&rest.evaluations));
    assert!(weights(&model) == weights(&again), "{sets:?}: every bit of every weight");
    // The policy had left its reference before the checkpoint: a reference that began there would show.
    if let Some(reward) = memory.steps[2].extra.get("rewards/chosen")
        && memory.steps[2].extra.get("reference_kl").is_some()
    {
        assert!(reward.abs() > 1e-3, "{sets:?}: {reward}");
    }
}

#[test]
fn against_a_copy_as_it_was_before_the_first_step() {
    resumed_equals_whole(&["loss=dpo"], pairs(0..7), Some(pairs(20..24)));
    let computed = ["loss=dpo", "precompute_ref_log_probs=true", "ema_decay=0.5"];
    resumed_equals_whole(&computed, pairs(0..7), Some(pairs(20..24)));
}

#[test]
fn against_a_loaded_adapter_as_it_began() {
    resumed_equals_whole(&["loss=dpo", &adapter()], pairs(0..7), None);
    let computed = ["loss=dpo", &adapter(), "precompute_ref_log_probs=true"];
    resumed_equals_whole(&computed, pairs(0..7), None);
}

#[test]
fn against_the_base_of_a_new_adapter() {
    let dropout = "lora={r: 4, target_modules: all-linear, lora_dropout: 0.1}";
    resumed_equals_whole(&["loss=dpo", dropout, "disable_dropout=false"], pairs(0..7), None);
    let pissa = "lora={r: 4, target_modules: all-linear, init_lora_weights: pissa}";
    resumed_equals_whole(&["loss=dpo", pissa], pairs(0..7), None);
    let four = "quantization={load_in_4bit: true, bnb_4bit_quant_type: nf4}";
    resumed_equals_whole(&["loss=kto", NEW_ADAPTER, four], labelled(0..7), None);
}

#[test]
fn kto_and_the_running_mean_of_bco() {
    resumed_equals_whole(&["loss=kto"], labelled(0..7), Some(labelled(12..16)));
    resumed_equals_whole(&["loss=bco"], labelled(0..7), Some(labelled(12..16)));
    resumed_equals_whole(&["loss=bco", &adapter()], labelled(0..7), None);
}

#[test]
fn a_reference_that_followed_before_and_after() {
    for every in ["ref_model_sync_steps=1", "ref_model_sync_steps=2", "ref_model_sync_steps=3"] {
        let sets = ["loss=dpo", "sync_ref_model=true", "ref_model_mixup_alpha=0.5", every];
        resumed_equals_whole(&sets, pairs(0..7), None);
    }
}

#[test]
fn losses_without_a_reference() {
    for loss in ["orpo", "cpo"] {
        resumed_equals_whole(&[&format!("loss={loss}")], pairs(0..7), None);
    }
    resumed_equals_whole(&["loss=tpo"], triples(0..5), None);
    resumed_equals_whole(&["loss=slic", NEW_ADAPTER], rankings(0..5), None);
}

#[test]
fn what_is_learned_and_against_what_stays() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let saves = ["save_strategy=steps", "save_steps=2"];
    train(&config(&out, &saves), pairs(0..4), None).unwrap();
    let again = |sets: &[&str]| {
        let resume = ["resume_from_checkpoint=true", "max_steps=5"];
        let config = config(&out, &[&saves[..], &resume[..], sets].concat());
        train(&config, pairs(0..4), None)
    };
    for (sets, key) in [
        (&["loss={type: dpo, beta: 0.2}"][..], "loss"),
        (&["loss={type: dpo, loss_type: ipo}"], "loss"),
        (&["sync_ref_model=true"], "sync_ref_model"),
        (&["disable_dropout=false"], "disable_dropout"),
        (&["ref_model=elsewhere"], "ref_model"),
        (&["ref_model_sync_steps=3"], "ref_model_sync_steps"),
        (&["lora={r: 2}"], "lora"),
    ] {
        let error = again(sets).unwrap_err().to_string();
        assert!(error.contains("checkpoint-4") && error.contains(&format!("`{key}: ")), "{error}");
    }
    let (_, memory) = again(&["save_total_limit=7"]).unwrap();
    assert_eq!(memory.steps.len(), 1);
    assert!(extra(&memory.steps[0], "rewards/margins").is_finite());
}
