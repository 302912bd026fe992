//! Windows by hand, and what they promise for every choice of options.

use std::collections::BTreeMap;

use super::*;
use crate::data::Sample;

/// Rows of the given lengths; row r has the ids 100 r, 100 r + 1, ..., all trained but the first.
fn rows(lengths: &[usize]) -> Samples {
    let mut samples = Samples::default();
    for (row, &length) in (0..).zip(lengths) {
        let ids = (0..length as u32).map(|place| 100 * row + place).collect();
        let trained = (0..length).map(|place| place > 0).collect();
        let row = RowId::new("a.jsonl", u64::from(row) + 1);
        samples.push(&Sample { ids, trained, row }).unwrap();
    }
    samples
}

fn options(batch: usize, accumulation: usize) -> BatchOptions {
    BatchOptions {
        per_device_train_batch_size: batch,
        gradient_accumulation_steps: accumulation,
        num_train_epochs: 1.0,
        train_sampling_strategy: SamplingStrategy::Sequential,
        pad_token_id: 9,
        ..BatchOptions::default()
    }
}

fn windows(batches: &mut Batches) -> Vec<Window> {
    std::iter::from_fn(|| batches.next_window().unwrap()).collect()
}

fn lines(window: &Window) -> Vec<Vec<u64>> {
    let lines = |pass: &MicroBatch| pass.rows.iter().flatten().map(|row| row.line).collect();
    window.micro_batches.iter().map(lines).collect()
}

#[test]
fn windows_by_hand() {
    let batches = Batches::new(rows(&[3, 2, 4, 2, 3]), options(2, 2));
    let found = windows(&mut batches.unwrap());
    assert_eq!(found.len(), 2);
    let [first, last] = &found[..] else { panic!() };
    assert_eq!(lines(first), [[1, 2], [3, 4]]);
    let pass = &first.micro_batches[0];
    assert_eq!(pass.batch.ids(), [0, 1, 2, 100, 101, 9]);
    assert_eq!(pass.targets.tokens(), [1, 2, 101]);
    assert_eq!(pass.targets.texts(), [0, 0, 1]);
    // 2 + 1 and 3 + 1 targets; 3 + 2 and 4 + 2 tokens; 2 x 3 and 2 x 4 places.
    assert_eq!((first.trained_tokens, first.tokens, first.padded_tokens), (7, 11, 14));
    assert_eq!((first.step, first.epoch), (1, 2.0 / 3.0));
    // The last window is what is left, and has its own divisor.
    assert_eq!((lines(last), last.trained_tokens), (vec![vec![5]], 2));
    assert_eq!((last.step, last.epoch), (2, 1.0));
}

#[test]
fn steps_are_counted_as_transformers_counts_them() {
    let steps = |epochs, max_steps| {
        let options = BatchOptions { num_train_epochs: epochs, max_steps, ..options(2, 2) };
        let mut batches = Batches::new(rows(&[2; 9]), options).unwrap();
        assert_eq!(batches.steps_per_epoch(), 3); // 4, 4 and 1 rows
        let found = windows(&mut batches);
        assert_eq!(batches.total_steps(), found.len() as u64);
        (found.len(), found.last().unwrap().epoch)
    };
    assert_eq!(steps(1.0, None), (3, 1.0));
    // 5 passes in an epoch, 2 in a step.
    assert_eq!(steps(0.5, None), (2, 4.0 / 5.0));
    assert_eq!(steps(2.1, None), (7, 2.0 + 2.0 / 5.0));
    assert_eq!(steps(1.0, Some(5)), (5, 1.0 + 4.0 / 5.0));
}

#[test]
fn packed_rows_are_texts_of_their_own() {
    let options =
        BatchOptions { packing: Some(Packing::Bfd), max_length: Some(6), ..options(2, 1) };
    let mut batches = Batches::new(rows(&[3, 2, 4]), options).unwrap();
    let window = batches.next_window().unwrap().unwrap();
    let pass = &window.micro_batches[0];
    assert_eq!(pass.batch.texts(), [vec![4, 2], vec![3]]);
    assert_eq!(pass.batch.ids(), [200, 201, 202, 203, 100, 101, 0, 1, 2, 9, 9, 9]);
    assert_eq!(pass.targets.tokens(), [201, 202, 203, 101, 1, 2]);
    assert_eq!(pass.targets.texts(), [0, 0, 0, 1, 2, 2]);
    assert_eq!(lines(&window), [[3, 2, 1]]);
    let report = batches.packing().unwrap();
    assert_eq!((report.sequences, report.fill, report.left_out), (2, 0.75, 0));
}

#[test]
fn without_padding_a_pass_is_one_row() {
    let options = BatchOptions { padding_free: true, ..options(2, 1) };
    let mut batches = Batches::new(rows(&[3, 2]), options).unwrap();
    let window = batches.next_window().unwrap().unwrap();
    let pass = &window.micro_batches[0];
    assert_eq!(
        (pass.batch.texts(), pass.batch.ids()),
        (&[vec![3, 2]][..], &[0, 1, 2, 100, 101][..])
    );
    assert_eq!((pass.targets.tokens(), pass.targets.texts()), (&[1, 2, 101][..], &[0, 0, 1][..]));
    assert_eq!(pass.rows.len(), 2);
    assert_eq!((window.tokens, window.padded_tokens), (5, 5));
}

#[test]
fn wrapped_rows_are_one_text() {
    let options =
        BatchOptions { packing: Some(Packing::Wrapped), max_length: Some(4), ..options(2, 1) };
    let mut samples = rows(&[3]);
    let second = Sample { ids: vec![100, 101, 102], trained: vec![true; 3], row: RowId::index(7) };
    samples.push(&second).unwrap();
    let mut batches = Batches::new(samples, options).unwrap();
    let window = batches.next_window().unwrap().unwrap();
    let pass = &window.micro_batches[0];
    assert_eq!(pass.batch.texts(), [[4], [2]]);
    // The first token of the second row is predicted from the first row; 101 starts a sequence.
    assert_eq!(pass.targets.tokens(), [1, 2, 100, 102]);
    let row = |line| if line == 7 { RowId::index(7) } else { RowId::new("a.jsonl", line) };
    assert_eq!(pass.rows, [vec![row(1), row(7)], vec![row(7)]]);
}

fn every_choice() -> Vec<BatchOptions> {
    let mut all = Vec::new();
    for packing in [None, Some(Packing::Bfd), Some(Packing::BfdSplit), Some(Packing::Wrapped)] {
        for train_sampling_strategy in [
            SamplingStrategy::Random,
            SamplingStrategy::Sequential,
            SamplingStrategy::GroupByLength,
        ] {
            for shuffle_dataset in [false, true] {
                all.push(BatchOptions {
                    packing,
                    train_sampling_strategy,
                    shuffle_dataset,
                    num_train_epochs: 2.5,
                    max_length: Some(16),
                    ..options(3, 2)
                });
            }
        }
    }
    all
}

fn many() -> Samples {
    rows(&(0..61).map(|row| 2 + row * 7 % 15).collect::<Vec<_>>())
}

#[test]
fn a_run_goes_on_where_it_stopped() {
    for options in every_choice() {
        let mut whole = Batches::new(many(), options.clone()).unwrap();
        let all = windows(&mut whole);
        for stop in [0, 1, all.len() / 2, all.len() - 1, all.len()] {
            let mut first = Batches::new(many(), options.clone()).unwrap();
            let mut found: Vec<Window> =
                (0..stop).map(|_| first.next_window().unwrap().unwrap()).collect();
            let stored = serde_json::to_string(first.position()).unwrap();
            let mut second = Batches::new(many(), options.clone()).unwrap();
            second.resume(&serde_json::from_str(&stored).unwrap()).unwrap();
            found.extend(windows(&mut second));
            assert_eq!(found, all, "stopped after {stop}: {options:?}");
        }
    }
}

#[test]
fn an_epoch_sees_every_token_once_in_another_order() {
    for options in every_choice() {
        let mut batches = Batches::new(many(), options.clone()).unwrap();
        let per_epoch = batches.steps_per_epoch() as usize;
        let all = windows(&mut batches);
        assert_eq!(all.len(), (2.5 * per_epoch as f64).ceil() as usize);
        let ids = |windows: &[Window]| {
            let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
            for pass in windows.iter().flat_map(|window| &window.micro_batches) {
                for (row, texts) in pass.batch.texts().iter().enumerate() {
                    let start = row * pass.batch.time();
                    let tokens = &pass.batch.ids()[start..start + texts.iter().sum::<usize>()];
                    for &id in tokens {
                        *counts.entry(id).or_default() += 1;
                    }
                }
            }
            counts
        };
        let first = ids(&all[..per_epoch]);
        assert_eq!(first.values().sum::<usize>(), many().tokens());
        assert!(first.values().all(|&count| count == 1));
        assert_eq!(ids(&all[per_epoch..2 * per_epoch]), first);
        let random = options.train_sampling_strategy != SamplingStrategy::Sequential;
        let same = all[0].micro_batches == all[per_epoch].micro_batches;
        assert_eq!(same, !random, "{options:?}");
        // An evaluation sees the same tokens, too.
        let pass: Vec<MicroBatch> = batches.pass().collect::<Result<_, _>>().unwrap();
        let targets: usize = pass.iter().map(|pass| pass.targets.len()).sum();
        let trained: usize = all[..per_epoch].iter().map(|window| window.trained_tokens).sum();
        assert_eq!(targets, trained);
        assert!(pass.iter().map(|pass| pass.batch.time()).is_sorted_by(|a, b| a >= b));
    }
}

#[test]
fn another_run_is_not_resumed() {
    let base = options(2, 2);
    let mut position = Batches::new(rows(&[2; 9]), base.clone()).unwrap().position().clone();
    position.step = 1;
    let resume = |samples, options| {
        let mut batches = Batches::new(samples, options).unwrap();
        batches.resume(&position).unwrap_err().to_string()
    };
    let other = BatchOptions { gradient_accumulation_steps: 4, ..base.clone() };
    assert_eq!(
        resume(rows(&[2; 9]), other),
        "`gradient_accumulation_steps` is 4, expected 2 as in the checkpoint: another value gives \
         another order"
    );
    let other = BatchOptions { seed: 1, ..base.clone() };
    assert!(resume(rows(&[2; 9]), other).starts_with("`seed` is 1, expected 42"));
    let message = resume(rows(&[2, 2, 2, 2, 3, 2, 2, 2, 2]), base);
    assert!(message.starts_with("the training rows: 9 rows with the fingerprint "), "{message}");
}

#[test]
fn options_and_rows_that_cannot_be_are_errors() {
    let fault =
        |lengths: &[usize], options| Batches::new(rows(lengths), options).unwrap_err().to_string();
    let base = || options(2, 1);
    for (options, message) in [
        (options(0, 1), "`per_device_train_batch_size` is 0, expected at least 1"),
        (options(1, 0), "`gradient_accumulation_steps` is 0, expected at least 1"),
        (BatchOptions { max_length: Some(0), ..base() }, "`max_length` is 0, expected at least 1"),
        (
            BatchOptions { num_train_epochs: f64::NAN, ..base() },
            "`num_train_epochs` is NaN, expected a number above 0",
        ),
        (
            BatchOptions { max_steps: Some(0), ..base() },
            "`max_steps` is 0, expected at least 1, or none for num_train_epochs",
        ),
        (
            BatchOptions { packing: Some(Packing::Bfd), max_length: None, ..base() },
            "`max_length` is none, expected a length, which packing needs",
        ),
    ] {
        assert_eq!(fault(&[2, 2], options), message);
    }
    assert_eq!(fault(&[], base()), "the training rows: there are none");
    let long = BatchOptions { max_length: Some(4), ..base() };
    assert_eq!(fault(&[2, 5], long), "a.jsonl:2: 5 tokens, expected at most max_length, 4");
    assert_eq!(
        fault(&[2, 1], base()),
        "a.jsonl:2: no token is trained, expected at least one behind the first"
    );
}
