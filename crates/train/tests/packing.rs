//! Packed, without padding, or cut into passes: the loss and its gradients are those of the rows
//! alone, on the device of `POSTTRAIN_DEVICE`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use posttrain_model::{Activations, Decoder, Gradients, Objective, device};
use posttrain_train::data::{
    BatchOptions, Batches, Packing, RowId, Sample, Samples, SamplingStrategy, Window,
};

/// Rows of different lengths with answers in the middle and at the end.
fn samples(vocabulary: u32) -> Samples {
    let mut samples = Samples::default();
    for (row, length) in (0..).zip([23_u32, 5, 14, 2, 17, 9, 11, 31, 3, 8]) {
        let ids = (0..length).map(|place| 3 + (row * 31 + place * place * 7) % (vocabulary - 3));
        let trained = (0..length).map(|place| place % 5 > 1 || place + 1 == length);
        let (ids, trained) = (ids.collect(), trained.collect());
        samples.push(&Sample { ids, trained, row: RowId::index(row.into()) }).unwrap();
    }
    samples
}

/// The only window of an epoch.
fn window(samples: &Samples, options: BatchOptions) -> Window {
    let options = BatchOptions {
        num_train_epochs: 1.0,
        max_length: Some(32),
        train_sampling_strategy: SamplingStrategy::Sequential,
        ..options
    };
    let mut batches = Batches::new(samples.clone(), options).unwrap();
    let window = batches.next_window().unwrap().unwrap();
    assert!(batches.next_window().unwrap().is_none(), "one window");
    window
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec::<f32>().unwrap()
}

/// The mean of the negative log-probability over the window, and its gradients by name.
fn learn(
    model: &Decoder,
    window: &Window,
    activations: Activations,
) -> (f64, BTreeMap<String, Vec<f32>>) {
    let weight = 1.0 / window.trained_tokens as f32;
    let (mut loss, mut gradients) = (0.0, Gradients::default());
    for pass in &window.micro_batches {
        model.backward(&pass.batch, None, activations, &mut gradients, |hidden, gradients| {
            let weights = vec![weight; pass.targets.len()];
            let objective = Objective::Nll;
            let found =
                model.cross_entropy(hidden, &pass.targets, &weights, objective, Some(gradients));
            loss += found.loss;
            found.by_hidden.unwrap()
        });
    }
    let gradients =
        gradients.iter().map(|(name, sum)| (name.to_owned(), numbers(sum.clone()))).collect();
    (loss, gradients)
}

#[test]
fn packed_equals_unpacked() {
    let device = device::choose(None).unwrap();
    let cases = std::env::var("POSTTRAIN_CASES");
    // Grouped heads; tied head; windows of attention, norms around; positions that the length of
    // the text changes.
    let cases = cases.unwrap_or_else(|_| "llama3,qwen3,gemma3_text,llama_dynamic".into());
    for case in cases.split(',') {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
        let model = Decoder::load(folder.join(case), &device).unwrap().with_trainable(|_| true);
        let samples = samples(model.config().vocab_size as u32);
        let alone = BatchOptions {
            per_device_train_batch_size: 1,
            gradient_accumulation_steps: samples.len(),
            ..BatchOptions::default()
        };
        let reference = window(&samples, alone.clone());
        let (loss, gradients) = learn(&model, &reference, Activations::Keep);
        assert_eq!(gradients.len(), model.parameters().len(), "{case}: a gradient for each");
        let batch = |per_device_train_batch_size, gradient_accumulation_steps| BatchOptions {
            per_device_train_batch_size,
            gradient_accumulation_steps,
            ..BatchOptions::default()
        };
        let packed = BatchOptions { packing: Some(Packing::Bfd), ..batch(2, 8) };
        for (name, options) in [
            ("padded", batch(10, 1)),
            ("passes of 4, 4 and 2", batch(4, 3)),
            ("without padding", BatchOptions { padding_free: true, ..batch(10, 1) }),
            ("packed", packed.clone()),
            ("packed, one row a pass", BatchOptions { padding_free: true, ..packed }),
        ] {
            let other = window(&samples, options);
            assert_eq!(other.trained_tokens, reference.trained_tokens);
            for activations in [Activations::Keep, Activations::Recompute] {
                let (found, others) = learn(&model, &other, activations);
                let what = format!("{case}, {name}, {activations:?}");
                assert!((found - loss).abs() < 1e-5, "{what}: loss {found}, expected {loss}");
                assert!(gradients.keys().eq(others.keys()), "{what}");
                let mut worst = ("", 0.0_f32);
                for (key, expected) in &gradients {
                    let pairs = expected.iter().zip(&others[key]);
                    let distance = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(!distance.is_nan());
                    if distance > worst.1 {
                        worst = (key, distance);
                    }
                }
                assert!(worst.1 < 1e-5, "{what}: gradient of {} differs by {}", worst.0, worst.1);
            }
        }
        assert!(gradients.values().all(|g| g.iter().any(|number| number.abs() > 1e-4)), "{case}");
        // Rows that do see each other are something else.
        let joined = BatchOptions { packing: Some(Packing::Wrapped), ..batch(8, 1) };
        let (joined, _) = learn(&model, &window(&samples, joined), Activations::Keep);
        assert!((joined - loss).abs() > 1e-2, "{case}: {joined} and {loss}");
    }
}
