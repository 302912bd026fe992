//! A run of four steps is one of two that goes on for two more, bit for bit.

use posttrain_train::config::Resume;
use posttrain_train::data::Answers;

use crate::kit::{NEW_ADAPTER, TRL, config, encoded, solutions, train};
use crate::support::answers::{numbers, pairs};
use crate::support::{copy, weights};

fn resumed_equals_whole(sets: &[&str], rows: Answers, validation: Answers) {
    let folder = tempfile::tempdir().unwrap();
    let eval = ["eval_strategy=steps", "eval_steps=1", "save_strategy=steps", "save_steps=2"];
    let sets = [sets, &eval].concat();
    let whole = config(&folder.path().join("whole"), &sets);
    let (model, memory) = train(&whole, rows.clone(), Some(validation.clone())).unwrap();
    let mut parts = config(&folder.path().join("parts"), &sets);
    copy(&memory.checkpoints[0].path, &parts.training.output_dir.join("checkpoint-2"));
    parts.training.resume_from_checkpoint = Resume::Newest(true);
    let (again, rest) = train(&parts, rows, Some(validation)).unwrap();
    assert_eq!(rest.started.unwrap().resumed_from, Some(2));
    assert_eq!((memory.steps.len(), rest.steps.len(), rest.evaluations.len()), (4, 2, 2));
    for (a, b) in memory.steps[2..].iter().zip(&rest.steps) {
        assert_eq!(numbers(a), numbers(b), "{sets:?}");
        assert_eq!(a.rows, b.rows);
    }
    for (a, b) in memory.evaluations[2..].iter().zip(&rest.evaluations) {
        assert_eq!((a.step, a.eval_loss, &a.extra), (b.step, b.eval_loss, &b.extra), "{sets:?}");
    }
    assert!(weights(&model) == weights(&again), "{sets:?}: every bit of every weight");
}

#[test]
fn of_whole_answers() {
    resumed_equals_whole(&[], pairs(0..7), pairs(20..24));
    resumed_equals_whole(&["ema_decay=0.5", "optim=adamw_8bit"], pairs(0..7), pairs(20..24));
    let dropout = "lora={r: 4, target_modules: all-linear, lora_dropout: 0.1}";
    resumed_equals_whole(&[dropout, "disable_dropout=false"], pairs(0..7), pairs(20..24));
}

#[test]
fn of_steps() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |rows| encoded(&config(folder.path(), &TRL), solutions(rows)).unwrap().0;
    for more in [&[][..], &[NEW_ADAPTER]] {
        resumed_equals_whole(&[&TRL, more].concat(), rows(0..7), rows(20..24));
    }
}

#[test]
fn what_is_scored_and_how_stays() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let saves = ["save_strategy=steps", "save_steps=2"];
    let first = [&TRL[..], &saves].concat();
    let steps = |rows| encoded(&config(folder.path(), &TRL), solutions(rows)).unwrap().0;
    train(&config(&out, &first), steps(0..4), None).unwrap();
    let again = |sets: &[&str], rows: Answers| {
        let resume = ["resume_from_checkpoint=true", "max_steps=5"];
        train(&config(&out, &[&first, &resume[..], sets].concat()), rows, None)
    };
    let separator = "convention={type: trl, step_separator: '##'}";
    for (sets, key) in
        [(&[separator][..], "convention"), (&["disable_dropout=false"], "disable_dropout")]
    {
        let error = again(sets, steps(0..4)).unwrap_err().to_string();
        assert!(error.contains("checkpoint-4") && error.contains(&format!("`{key}: ")), "{error}");
    }
    let resume = ["resume_from_checkpoint=true", "kind=outcome"];
    let error = train(&config(&out, &[&saves[..], &resume].concat()), pairs(0..4), None);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("`kind: \"process\"`, not \"outcome\""), "{error}");
    assert_eq!(again(&[], steps(0..4)).unwrap().1.steps.len(), 1);
}
