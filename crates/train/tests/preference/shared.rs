//! What the answers of a row begin with is computed once, where that changes nothing.

use posttrain_train::data::{Answers, Batches};
use serde_json::json;

use crate::kit::{by_hand, config, extra, model_with, pairs, rankings, train, train_on, triples};
use crate::support::{distance, weights};

/// Tokens of all texts, what they begin with counted for each.
fn tokens(rows: &Answers) -> u64 {
    (0..rows.texts().len()).map(|text| rows.texts().length(text) as u64).sum()
}

#[test]
fn sharing_changes_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, sets: &[&str], rows: &Answers, shared: bool| {
        let sets = [&["optim=sgd", "learning_rate=1e-2"], sets].concat();
        let config = config(&folder.path().join(name), &sets);
        let mut batches = Batches::of_answers(rows.clone(), config.batch_options()).unwrap();
        if !shared {
            batches = batches.without_shared_prompts();
        }
        train_on(&config, batches, None).unwrap()
    };
    for (loss, rows) in [
        ("dpo", pairs(0..5)),
        ("orpo", pairs(0..5)),
        ("cpo", pairs(0..5)),
        ("tpo", triples(0..3)),
        ("slic", rankings(0..3)),
        ("rrhf", rankings(0..3)),
    ] {
        let set = format!("loss={loss}");
        let (a, once) = run(&format!("{loss}-once"), &[&set], &rows, true);
        let (b, each) = run(&format!("{loss}-each"), &[&set], &rows, false);
        assert_eq!(once.steps.len(), 4);
        for (once, each) in once.steps.iter().zip(&each.steps) {
            assert!(once.tokens < each.tokens, "{loss}");
            assert_eq!(once.trained_tokens, each.trained_tokens);
            let off = (once.loss / each.loss - 1.0).abs();
            assert!(off < 1e-5, "{loss}: {} and {}", once.loss, each.loss);
            let off = (once.grad_norm / each.grad_norm - 1.0).abs();
            assert!(off < 1e-4, "{loss}: {} and {}", once.grad_norm, each.grad_norm);
        }
        let off = distance(&weights(&a), &weights(&b));
        assert!(off < 1e-5, "{loss}: {off:.1e}");
    }
}

#[test]
fn not_where_the_rotation_depends_on_the_length() {
    let folder = tempfile::tempdir().unwrap();
    let model = model_with(folder.path(), |config| {
        config["max_position_embeddings"] = 32.into();
        config["rope_parameters"] =
            json!({"rope_type": "dynamic", "factor": 16.0, "rope_theta": 10000.0});
    });
    let (rows, held_out) = (pairs(0..2), pairs(20..23));
    let run = |name: &str, sets: &[&str]| {
        let eval = ["eval_strategy=steps", "eval_steps=4", "max_steps=4"];
        let sets = [&eval[..], sets].concat();
        let config = config(&folder.path().join(name), &sets);
        let (trained, memory) = train(&config, rows.clone(), Some(held_out.clone())).unwrap();
        (trained, memory, config)
    };
    let set = format!("model={}", model.display());
    let (trained, memory, config) = run("rotated", &[&set]);
    assert!(memory.steps.iter().all(|step| step.tokens == tokens(&rows)));
    assert_eq!(memory.evaluations[0].tokens, tokens(&held_out));
    // As if each text stood alone.
    let base = posttrain_model::Decoder::load(&model, &crate::support::device()).unwrap();
    let (policy, reference) = (by_hand(&trained, &held_out), by_hand(&base, &held_out));
    let margins = policy.chunks(2).zip(reference.chunks(2)).map(|(p, q)| p[0] - q[0] - p[1] + q[1]);
    let expected = 0.1 * margins.sum::<f64>() / 3.0;
    let found = memory.evaluations[0].extra.get("rewards/margins").unwrap();
    assert!((found - expected).abs() < 1e-3 * expected.abs().max(1.0), "{found}, not {expected}");
    drop(config);

    // Nor where it is the reference's.
    let set = format!("ref_model={}", model.display());
    let (_, memory, _) = run("reference", &[&set]);
    assert!(memory.steps.iter().all(|step| step.tokens == tokens(&rows)));
    assert_eq!(memory.evaluations[0].tokens, tokens(&held_out));
    let reference = by_hand(&base, &rows);
    let first = &memory.steps[0];
    let found = extra(first, "logps/chosen") - extra(first, "rewards/chosen") / 0.1;
    let expected = f64::midpoint(reference[0], reference[2]);
    assert!((found - expected).abs() < 1e-3, "{found}, not {expected}");

    let (_, memory, _) = run("plain", &[]);
    assert!(memory.steps.iter().all(|step| step.tokens < tokens(&rows)));
}

#[test]
fn not_with_dropout() {
    let folder = tempfile::tempdir().unwrap();
    let rows = pairs(0..2);
    let run = |name: &str, sets: &[&str]| {
        let lora = "lora={r: 4, target_modules: all-linear, lora_dropout: 0.2}";
        let sets = [&[lora], sets].concat();
        let config = config(&folder.path().join(name), &sets);
        train(&config, rows.clone(), None).unwrap().1.steps
    };
    let (with, without) = (run("with", &["disable_dropout=false"]), run("without", &[]));
    assert!(with.iter().all(|step| step.tokens == tokens(&rows)));
    assert!(without.iter().all(|step| step.tokens < tokens(&rows)));
    // The adapter begins at zero, so that dropout shows from the second step on.
    assert!((with[0].loss - without[0].loss).abs() < 1e-6);
    assert!((with[3].loss - without[3].loss).abs() > 1e-5);
    let again = run("again", &["disable_dropout=false"]);
    assert!(with.iter().zip(&again).all(|(a, b)| a.loss == b.loss));
}
