//! Log-probabilities of the reference that are computed before the first step, and read again.

use std::fs;

use posttrain_train::data::{Answers, Sample};

use crate::kit::{NEW_ADAPTER, adapter, config, numbers, pairs, train};
use crate::support::{Memory, copy, fixtures, weights};

const BEFORE: &str = "precompute_ref_log_probs=true";

fn same_steps(a: &Memory, b: &Memory) {
    assert_eq!(a.steps.len(), b.steps.len());
    for (a, b) in a.steps.iter().zip(&b.steps) {
        assert_eq!(numbers(a), numbers(b));
    }
    assert_eq!(a.evaluations.len(), b.evaluations.len());
    for (a, b) in a.evaluations.iter().zip(&b.evaluations) {
        assert_eq!((a.eval_loss, &a.extra), (b.eval_loss, &b.extra));
    }
}

/// On the CPU a text has the same numbers in whatever batch, so not a bit differs.
#[test]
fn the_steps_are_those_beside_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let ld = "loss={type: dpo, ld_alpha: 0.5}";
    for (name, sets) in [
        ("full", vec!["loss=dpo".to_owned()]),
        ("tails", vec![ld.to_owned()]),
        ("new", vec![NEW_ADAPTER.to_owned(), "loss={type: dpo, loss_type: ipo}".to_owned()]),
        ("loaded", vec![adapter()]),
    ] {
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let sets = [&sets[..], &["eval_strategy=steps", "eval_steps=2", "max_steps=5"]].concat();
        let run = |part: &str, more: &[&str]| {
            let out = folder.path().join(format!("{name}-{part}"));
            let config = config(&out, &[&sets[..], more].concat());
            train(&config, pairs(0..5), Some(pairs(20..23))).unwrap()
        };
        let ((a, beside), (b, before)) = (run("beside", &[]), run("before", &[BEFORE]));
        same_steps(&beside, &before);
        assert!(weights(&a) == weights(&b), "{name}");
        assert!(beside.progress.is_empty());
        // Of both sets, to their ends.
        let ends: Vec<u64> =
            before.progress.iter().filter(|p| p.1 == p.2).map(|progress| progress.2).collect();
        assert_eq!(ends, [10, 6], "{:?}", before.progress);
        assert!(before.progress.iter().all(|(what, ..)| what.contains("reference")));
    }
}

#[test]
fn a_second_run_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let stored = folder.path().join("deep/stored.safetensors");
    let place = format!("ref_log_probs={}", stored.display());
    let run = |name: &str, more: &[&str]| {
        let sets = [&[BEFORE, &place, "eval_strategy=steps", "eval_steps=2"], more].concat();
        let config = config(&folder.path().join(name), &sets);
        train(&config, pairs(0..5), Some(pairs(20..23))).unwrap().1
    };
    let first = run("first", &[]);
    assert!(!first.progress.is_empty() && stored.exists());
    let second = run("second", &[]);
    assert!(second.progress.is_empty(), "{:?}", second.progress);
    same_steps(&first, &second);
    // The rows are the same ones in another order, with another loss.
    let other = run("other", &["seed=7", "loss={type: dpo, loss_type: hinge}"]);
    assert!(other.progress.is_empty());
    assert_ne!(numbers(&first.steps[0]), numbers(&other.steps[0]));
}

/// The rows as another template would have them: with one more token before the prompt.
fn retold(rows: &Answers) -> Answers {
    let mut told = Answers::default();
    for row in 0..rows.len() {
        let text = |text| {
            let Sample { ids, trained, row } = rows.texts().sample(text);
            let (ids, trained) = ([vec![3], ids].concat(), [vec![false], trained].concat());
            (Sample { ids, trained, row }, vec![])
        };
        told.push(&rows.row(row).map(text).collect::<Vec<_>>()).unwrap();
    }
    told
}

#[test]
fn what_was_made_of_something_else_is_refused_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let stored = folder.path().join("stored.safetensors");
    let place = format!("ref_log_probs={}", stored.display());
    let run = |sets: &[&str], rows: Answers, validation: Option<Answers>| {
        let out = folder.path().join("run");
        let sets = [&[BEFORE, &place, "overwrite_output_dir=true"], sets].concat();
        train(&config(&out, &sets), rows, validation)
    };
    run(&[], pairs(0..5), Some(pairs(20..23))).unwrap();
    let bytes = fs::read(&stored).unwrap();
    let refused = |what: &str, sets: &[&str], rows: Answers, validation: Option<Answers>| {
        let error = run(sets, rows, validation).unwrap_err().to_string();
        let (file, what) = (stored.display().to_string(), format!("the {what} has the checksum"));
        assert!(error.contains(&file) && error.contains(&what), "{error}");
        assert!(error.contains("remove the file"), "{error}");
        assert!(fs::read(&stored).unwrap() == bytes, "{what}");
    };
    let held_out = || Some(pairs(20..23));
    refused("training rows as tokens", &[], pairs(0..4), held_out());
    refused("training rows as tokens", &[], retold(&pairs(0..5)), held_out());
    refused("validation rows as tokens", &[], pairs(0..5), Some(pairs(21..24)));
    refused("validation rows as tokens", &[], pairs(0..5), None);
    let model = folder.path().join("copy");
    copy(&fixtures().join("sft/model"), &model);
    let path = model.join("model.safetensors");
    let same = format!("model={}", model.display());
    run(&[&same], pairs(0..5), held_out()).unwrap();
    let mut weights = fs::read(&path).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    fs::write(&path, weights).unwrap();
    refused("model", &[&same], pairs(0..5), held_out());
    refused("model", &[&adapter()], pairs(0..5), held_out());
    refused("model", &["dtype=bfloat16"], pairs(0..5), held_out());
    let other = format!("ref_model={}", model.display());
    refused("model", &[&other], pairs(0..5), held_out());
    // The reference is the same, whoever is compared with it.
    let base = format!("ref_model={}", fixtures().join("sft/model").display());
    assert!(run(&[&base, &adapter()], pairs(0..5), held_out()).is_ok());

    fs::write(&stored, "half").unwrap();
    let error = run(&[], pairs(0..5), held_out()).unwrap_err().to_string();
    assert!(error.contains("stored.safetensors: not readable"), "{error}");
}
