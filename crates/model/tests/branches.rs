//! Texts that share a stem get the numbers that they get in rows of their own, and so do the
//! gradients.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use burn::tensor::{Tensor, TensorData};
use posttrain_model::{Activations, Batch, Decoder, Gradients, LoadOptions, Targets};
use support::{cases, device, distance, models, numbers};

/// Stems of several lengths with two or three branches; one branch is empty, one stem is.
const STEMS: [(&[u32], &[&[u32]]); 4] = [
    (&[5, 9, 17, 3, 8], &[&[21, 4], &[7, 30, 11, 12, 6]]),
    (&[14], &[&[3, 3, 9], &[2], &[40, 41, 42, 43, 44, 45]]),
    (&[], &[&[8, 7, 6], &[19, 18]]),
    (&[33, 34, 35], &[&[], &[36, 37]]),
];

fn texts() -> Vec<Vec<u32>> {
    let of = |(stem, branches): &(&[u32], &[&[u32]])| {
        branches.iter().map(|branch| [stem, *branch].concat()).collect::<Vec<_>>()
    };
    STEMS.iter().flat_map(of).collect()
}

/// Log-probabilities and entropies of the targets, and all gradients of a sum of them.
fn run(model: &Decoder, batch: &Batch, activations: Activations) -> (Vec<f32>, Gradients) {
    let targets = Targets::of_texts(batch, |text, place| (text + place) % 4 != 0);
    let weights: Vec<f32> =
        targets.texts().iter().flat_map(|&text| [0.5 + text as f32, 0.1]).collect();
    let (mut gradients, mut found) = (Gradients::default(), Vec::new());
    model.backward(batch, None, activations, &mut gradients, |hidden, gradients| {
        let scored = model.logprobs(hidden.clone(), &targets);
        found = [numbers(scored.logprobs), numbers(scored.entropy)].concat();
        let by = TensorData::new(weights.clone(), [targets.len(), 2]);
        let by = Tensor::from_data(by, &model.device());
        model.logprobs_backward(hidden, &targets, by, gradients)
    });
    (found, gradients)
}

#[test]
fn as_in_rows_of_their_own() {
    for case in cases() {
        let model = Decoder::load_with(
            models().join(&case),
            &device(),
            &LoadOptions {
                dtype: Some(posttrain_model::checkpoint::Dtype::F32),
                ..Default::default()
            },
        )
        .unwrap();
        let texts = texts();
        let rows: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let (apart, by_apart) = run(&model, &Batch::padded(&rows, 0).unwrap(), Activations::Keep);
        for activations in [Activations::Keep, Activations::Recompute] {
            let branched = Batch::branched(&STEMS).unwrap();
            let (shared, by_shared) = run(&model, &branched, activations);
            let mut worst = distance(&shared, &apart);
            for (name, expected) in by_apart.iter() {
                let found = by_shared.get(name).unwrap_or_else(|| panic!("{case}: no {name}"));
                let expected = numbers(expected.clone());
                let scale = expected.iter().fold(1e-3, |scale: f32, x| scale.max(x.abs()));
                worst = worst.max(distance(&numbers(found.clone()), &expected) / scale);
            }
            println!("{case:20} {worst:.1e}");
            assert!(worst < 1e-4, "{case}: {worst}");
        }
    }
}

#[test]
fn tokens_of_a_stem_are_counted_once_and_scored_for_each_text() {
    let batch = Batch::branched(&[(&[5, 6, 7], &[&[8], &[9, 10]])]).unwrap();
    assert_eq!((batch.tokens(), batch.batch(), batch.time()), (6, 1, 6));
    assert_eq!(batch.places(), [[0..3, 3..4], [0..3, 4..6]]);
    let all = Targets::all(&batch);
    assert_eq!(all.tokens(), [6, 7, 8, 6, 7, 9, 10]);
    assert_eq!(all.texts(), [0, 0, 0, 1, 1, 1, 1]);
    let mask = [false, false, false, true, true, true];
    assert_eq!(Targets::masked(&batch, &mask).unwrap().tokens(), [8, 9, 10]);
}

#[test]
fn a_text_without_tokens_is_an_error() {
    for stems in [&[][..], &[(&[1_u32][..], &[][..])], &[(&[], &[&[1_u32][..], &[]])]] {
        assert!(Batch::branched(stems).unwrap_err().to_string().contains("empty"));
    }
}
