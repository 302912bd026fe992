//! Rows that are not of the kind that the loss wants.

use posttrain_train::Error;
use posttrain_train::data::{Answers, Batches};

use crate::kit::{config, labelled, pairs, rankings, train, train_on, triples};
use crate::support::samples;

#[test]
fn another_kind_of_rows_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |loss: &str, rows: Answers, validation: Option<Answers>| {
        let config = config(&folder.path().join("run"), &[&format!("loss={loss}")]);
        let error = train(&config, rows, validation).unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{loss}: {error}");
        error.to_string()
    };
    let single = refused("dpo", labelled(0..3), None);
    assert!(single.starts_with("rows.jsonl:1: 1 answers with [1] values"), "{single}");
    for (loss, rows) in [
        ("dpo", rankings(0..2)),
        ("dpo", triples(0..2)),
        ("orpo", labelled(0..3)),
        ("kto", pairs(0..2)),
        ("bco", rankings(0..2)),
        ("tpo", pairs(0..2)),
        ("{type: tpo, tpo_alpha: 0}", triples(0..2)),
        ("rrhf", labelled(0..3)),
    ] {
        assert!(refused(loss, rows, None).contains("for this loss"));
    }
    // The validation rows as well.
    assert!(refused("dpo", pairs(0..2), Some(labelled(0..2))).contains("for this loss"));
}

#[test]
fn texts_are_no_answers() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &[]);
    let batches = Batches::new(samples(), config.batch_options()).unwrap();
    let error = train_on(&config, batches, None).unwrap_err().to_string();
    assert!(error.contains("they are texts, expected answers"), "{error}");
}

/// A head that scores has no log-probabilities.
#[test]
fn a_reward_model_is_no_policy() {
    let folder = tempfile::tempdir().unwrap();
    let model = crate::support::fixtures().join("reward/sequence_llama");
    let config = config(folder.path(), &[&format!("model={}", model.display())]);
    let error = train(&config, pairs(0..2), None).unwrap_err().to_string();
    assert!(error.contains("expected a language model"), "{error}");
}
