//! The reference stays where it is while the policy moves, or follows as it is told.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use posttrain_model::Decoder;
use posttrain_train::watch::StepMetrics;

use crate::kit::{NEW_ADAPTER, adapter, by_hand, config, extra, labelled, pairs, train};
use crate::support::{device, fixtures};

fn base() -> Decoder {
    Decoder::load(fixtures().join("sft/model"), &device()).unwrap()
}

/// Mean log-probabilities of both answers under the reference of a step: rewards are β times what the
/// policy is above it.
fn of_reference(step: &StepMetrics, beta: f64) -> [f64; 2] {
    ["chosen", "rejected"].map(|which| {
        extra(step, &format!("logps/{which}")) - extra(step, &format!("rewards/{which}")) / beta
    })
}

fn near(found: [f64; 2], expected: [f64; 2], what: &str) {
    for (found, expected) in found.into_iter().zip(expected) {
        assert!((found - expected).abs() < 1e-3, "{what}: {found}, not {expected}");
    }
}

/// Mean log-probabilities of better and of worse answers of pairs.
fn means(model: &Decoder) -> [f64; 2] {
    let sums = by_hand(model, &pairs(0..2));
    [f64::midpoint(sums[0], sums[2]), f64::midpoint(sums[1], sums[3])]
}

#[test]
fn it_stays_while_the_policy_moves() {
    let folder = tempfile::tempdir().unwrap();
    let mut adapted = base();
    adapted.load_adapter(fixtures().join("sft/adapter"), "a").unwrap();
    let other = format!("ref_model={}", fixtures().join("sft/model").display());
    for (name, sets, expected) in [
        ("full", vec![], means(&base())),
        ("new", vec![NEW_ADAPTER.to_owned()], means(&base())),
        ("loaded", vec![adapter()], means(&adapted)),
        ("given", vec![adapter(), other], means(&base())),
    ] {
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let sets = [&sets[..], &["learning_rate=1e-2"]].concat();
        let config = config(&folder.path().join(name), &sets);
        let (policy, memory) = train(&config, pairs(0..2), None).unwrap();
        for step in &memory.steps {
            let what = format!("{name}, step {}", step.step);
            near(of_reference(step, 0.1), expected, &what);
        }
        let mut moved = memory.steps.iter().map(|step| extra(step, "rewards/margins"));
        assert!(moved.next_back().unwrap() > 0.05, "{name}");
        assert!((means(&policy)[0] - expected[0]).abs() > 0.1, "{name}");
    }
}

#[test]
fn that_of_labelled_answers_stays_too() {
    let folder = tempfile::tempdir().unwrap();
    for loss in ["kto", "bco"] {
        let (loss, name) = (format!("loss={loss}"), folder.path().join(loss));
        let sets = [&loss, "learning_rate=1e-2", "per_device_train_batch_size=4"];
        let (_, memory) = train(&config(&name, &sets), labelled(0..4), None).unwrap();
        let first = of_reference(&memory.steps[0], 0.1);
        for step in &memory.steps {
            near(of_reference(step, 0.1), first, &loss);
        }
        let moved = (memory.steps[0].clone(), memory.steps[3].clone());
        assert!((extra(&moved.0, "logps/chosen") - extra(&moved.1, "logps/chosen")).abs() > 0.1);
    }
}

/// Weights of the model in a folder, `share` of them, and of the given one the rest.
fn blend(model: &Decoder, share: f32, folder: &Path) -> Decoder {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    model.clone().map_trainable(&mut |parameter, weight| {
        let numbers = file.tensor(&parameter.name).unwrap().data().chunks_exact(4);
        let numbers: Vec<f32> =
            numbers.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        let other = Tensor::from_data(TensorData::new(numbers, weight.dims()), &weight.device());
        weight * (1.0 - share) + other * share
    })
}

#[test]
fn it_follows_by_the_share_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let sets = [
        "sync_ref_model=true",
        "ref_model_mixup_alpha=0.25",
        "ref_model_sync_steps=2",
        "learning_rate=1e-2",
        "max_steps=5",
        "save_strategy=steps",
        "save_steps=2",
    ];
    let (_, memory) = train(&config(&out, &sets), pairs(0..2), None).unwrap();
    let once = blend(&base(), 0.25, &out.join("checkpoint-2"));
    let twice = blend(&once, 0.25, &out.join("checkpoint-4"));
    let expected = [&base(), &base(), &once, &once, &twice].map(means);
    assert!((expected[0][0] - expected[2][0]).abs() > 0.05 && expected[2] != expected[4]);
    for (step, expected) in memory.steps.iter().zip(expected) {
        near(of_reference(step, 0.1), expected, &format!("step {}", step.step));
    }
}

#[test]
fn one_that_cannot_say_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |model: &str| {
        let set = format!("ref_model={}", fixtures().join(model).display());
        let config = config(&folder.path().join("run"), &[&set]);
        train(&config, pairs(0..2), None).unwrap_err().to_string()
    };
    let head = refused("reward/sequence_llama");
    assert!(head.contains("`ref_model` is a model with the head Sequence"), "{head}");
    let vocabulary = refused("reward/language_prm");
    assert!(vocabulary.contains("`ref_model` is a model of 297 tokens"), "{vocabulary}");
    assert!(refused("nowhere").contains("nowhere"));
}
