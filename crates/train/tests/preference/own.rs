//! A loss of one's own.

use posttrain_train::preference::{Loss, OwnLoss, Pair, PairGradient, PreferenceLoss};
use serde_json::json;

use crate::kit::{NEW_ADAPTER, config, extra, pairs, train};
use crate::support::{distance, weights};

/// DPO's maths, written down again.
fn dpo(policy: &[Pair], reference: &[Pair]) -> Loss<PairGradient> {
    let (beta, share) = (0.1, 1.0 / policy.len() as f64);
    let mut loss =
        Loss { gradient: vec![PairGradient::default(); policy.len()], ..Loss::default() };
    let mut margin = 0.0;
    for ((p, q), by) in policy.iter().zip(reference).zip(&mut loss.gradient) {
        let d = p.chosen.sum - q.chosen.sum - p.rejected.sum + q.rejected.sum;
        let wrong = 1.0 / (1.0 + (beta * d).exp());
        loss.loss -= share * (1.0 - wrong).ln();
        by.chosen.sum = -share * beta * wrong;
        by.rejected.sum = share * beta * wrong;
        margin += share * beta * d;
    }
    loss.metrics = vec![("my/margin", margin)];
    loss
}

#[test]
fn dpo_as_a_closure_is_dpo() {
    let folder = tempfile::tempdir().unwrap();
    for (name, sets) in [("full", &[][..]), ("new", &[NEW_ADAPTER])] {
        let sets =
            [sets, &["gradient_accumulation_steps=2", "eval_strategy=steps", "eval_steps=4"]];
        let sets = sets.concat();
        let theirs = config(&folder.path().join(format!("{name}-dpo")), &sets);
        let mut ours = config(&folder.path().join(format!("{name}-own")), &sets);
        ours.method.loss = PreferenceLoss::Own(OwnLoss::new(dpo));
        let run = |config| train(config, pairs(0..7), Some(pairs(20..23))).unwrap();
        let ((a, expected), (b, found)) = (run(&theirs), run(&ours));
        for (found, expected) in found.steps.iter().zip(&expected.steps) {
            assert!((found.loss - expected.loss).abs() < 1e-9);
            assert!((found.grad_norm / expected.grad_norm - 1.0).abs() < 1e-6);
            let (margin, theirs) = (extra(found, "my/margin"), extra(expected, "rewards/margins"));
            assert!((margin - theirs).abs() < 1e-9);
            assert_eq!(extra(found, "reference_kl"), extra(expected, "reference_kl"));
        }
        let (found, expected) = (&found.evaluations[0], &expected.evaluations[0]);
        assert!((found.eval_loss - expected.eval_loss).abs() < 1e-9);
        assert!(found.extra.get("my/margin").is_some());
        let off = distance(&weights(&a), &weights(&b));
        assert!(off < 1e-6, "{name}: {off:.1e}");
    }
}

#[test]
fn without_a_reference_it_is_given_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &["per_device_train_batch_size=4"]);
    let own = OwnLoss::without_reference(|pairs| {
        let share = 1.0 / pairs.len() as f64;
        let by = PairGradient::default();
        let mut loss = Loss { gradient: vec![by; pairs.len()], ..Loss::default() };
        for (pair, by) in pairs.iter().zip(&mut loss.gradient) {
            loss.loss -= share * pair.chosen.average();
            by.chosen.sum = -share / pair.chosen.tokens as f64;
        }
        loss
    });
    config.method.loss = PreferenceLoss::Own(own);
    config.validate().unwrap();
    let (_, memory) = train(&config, pairs(0..4), None).unwrap();
    let losses: Vec<f64> = memory.steps.iter().map(|step| step.loss).collect();
    assert!(losses.is_sorted_by(|a, b| a > b), "{losses:?}");
    assert!(memory.steps[0].extra.get("reference_kl").is_none());
}

/// A file of settings can say that there is one, and not which.
#[test]
fn its_settings_are_written_and_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &[]);
    config.method.loss = PreferenceLoss::Own(OwnLoss::new(dpo));
    assert_eq!(config.to_json()["loss"], json!({"type": "own"}));
    assert!(config.to_yaml().contains("own"));
    let error = serde_json::from_value::<PreferenceLoss>(json!({"type": "own"})).unwrap_err();
    assert!(error.to_string().contains("unknown variant `own`, expected one of `dpo`"), "{error}");
}
