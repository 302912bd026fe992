//! How a step is computed changes nothing of it.

use posttrain_train::data::Answers;

use crate::kit::{config, pairs, rankings, train};
use crate::support::{Memory, distance, weights};

fn run(sets: &[&str], rows: Answers) -> (Memory, Vec<(String, Vec<f32>)>) {
    let folder = tempfile::tempdir().unwrap();
    let sets = [&["optim=sgd", "learning_rate=1e-2"], sets].concat();
    let (model, memory) = train(&config(folder.path(), &sets), rows, None).unwrap();
    (memory, weights(&model))
}

fn same(a: &(Memory, Vec<(String, Vec<f32>)>), b: &(Memory, Vec<(String, Vec<f32>)>), what: &str) {
    assert_eq!(a.0.steps.len(), b.0.steps.len());
    for (a, b) in a.0.steps.iter().zip(&b.0.steps) {
        assert_eq!((a.rows.len(), a.tokens), (b.rows.len(), b.tokens), "{what}");
        assert!((a.loss / b.loss - 1.0).abs() < 1e-6, "{what}: {} and {}", a.loss, b.loss);
        assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-5, "{what}");
        for ((name, a), (other, b)) in a.extra.iter().zip(b.extra.iter()) {
            assert_eq!(name, other);
            assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{what}: {name} {a} and {b}");
        }
    }
    let off = distance(&a.1, &b.1);
    assert!(off < 1e-5, "{what}: {off:.1e}");
}

/// Losses that are a mean over rows. Those with a mean over tokens (`sft`, NLL terms), and those that
/// compare the rows of a pass (`aot`, `kto`, `bco`), are means over passes, as in TRL.
#[test]
fn accumulated_passes_are_one_large_batch() {
    for (loss, rows) in [
        ("dpo", pairs(0..6)),
        ("{type: dpo, loss_type: ipo}", pairs(0..6)),
        ("{type: cpo, loss_type: simpo, beta: 2.0}", pairs(0..6)),
        ("rrhf", rankings(0..6)),
    ] {
        let loss = format!("loss={loss}");
        let whole = run(&[&loss, "per_device_train_batch_size=6"], rows.clone());
        for (batch, passes) in [(2, 3), (1, 6), (4, 2)] {
            let batch = format!("per_device_train_batch_size={batch}");
            let passes = format!("gradient_accumulation_steps={passes}");
            same(&whole, &run(&[&loss, &batch, &passes], rows.clone()), &loss);
        }
    }
}

#[test]
fn layers_computed_anew_give_the_same_gradients() {
    for loss in ["dpo", "orpo", "{type: dpo, use_weighting: true}"] {
        let loss = format!("loss={loss}");
        let kept = run(&[&loss, "gradient_checkpointing=false"], pairs(0..4));
        same(&kept, &run(&[&loss, "gradient_checkpointing=true"], pairs(0..4)), &loss);
    }
}
