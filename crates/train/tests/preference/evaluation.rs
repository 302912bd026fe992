//! What evaluations say, by hand, and what is made of it.

use posttrain_model::Decoder;
use posttrain_train::data::Answers;
use posttrain_train::watch::{EvalMetrics, Stop};

use crate::kit::{NEW_ADAPTER, adapter, by_hand, config, labelled, pairs, train};
use crate::support::{device, fixtures, weights};

fn base() -> Decoder {
    Decoder::load(fixtures().join("sft/model"), &device()).unwrap()
}

fn mean(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// Tokens of each answer.
fn lengths(rows: &Answers) -> Vec<f64> {
    let texts = 0..rows.texts().len();
    texts.map(|text| rows.texts().targets(text) as f64).collect()
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn compare(found: &EvalMetrics, expected: &[(&str, f64)], what: &str) {
    for &(name, expected) in expected {
        let found = match name {
            "loss" => found.eval_loss,
            name => found.extra.get(name).unwrap_or_else(|| panic!("{what}: no {name}")),
        };
        let near = (found - expected).abs() <= 1e-4 * expected.abs().max(1.0);
        assert!(near, "{what}: {name} is {found}, not {expected}");
    }
}

/// Seven rows in passes of three, so that the last is a smaller one.
const EVAL: [&str; 4] =
    ["eval_strategy=steps", "eval_steps=2", "per_device_eval_batch_size=3", "learning_rate=1e-2"];

#[test]
fn pairs_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let held_out = pairs(20..27);
    let mut adapted = base();
    adapted.load_adapter(fixtures().join("sft/adapter"), "a").unwrap();
    for (name, set, reference) in
        [("full", "", base()), ("new", NEW_ADAPTER, base()), ("loaded", &adapter(), adapted)]
    {
        let sets = [&EVAL[..], &[set][usize::from(set.is_empty())..]].concat();
        let config = config(&folder.path().join(name), &sets);
        let (policy, memory) = train(&config, pairs(0..4), Some(held_out.clone())).unwrap();
        let (p, q) = (by_hand(&policy, &held_out), by_hand(&reference, &held_out));
        let reward = |text: usize| 0.1 * (p[text] - q[text]);
        let rows = || (0..held_out.len()).map(|row| (2 * row, 2 * row + 1));
        let margins = || rows().map(|(c, r)| reward(c) - reward(r));
        let length = lengths(&held_out);
        let per_token = (0..p.len()).map(|text| (p[text] - q[text]) / length[text]);
        let right = margins().filter(|margin| *margin > 0.0).count();
        assert!((1..7).contains(&right), "{right} of 7 are right: nothing to be seen");
        compare(
            memory.evaluations.last().unwrap(),
            &[
                ("loss", mean(margins().map(|margin| softplus(-margin)))),
                ("rewards/accuracies", right as f64 / 7.0),
                ("rewards/margins", mean(margins())),
                ("rewards/chosen", mean(rows().map(|(c, _)| reward(c)))),
                ("rewards/rejected", mean(rows().map(|(_, r)| reward(r)))),
                ("logps/chosen", mean(rows().map(|(c, _)| p[c]))),
                ("logps/rejected", mean(rows().map(|(_, r)| p[r]))),
                ("length/chosen", mean(rows().map(|(c, _)| length[c]))),
                ("length/rejected", mean(rows().map(|(_, r)| length[r]))),
                ("reference_kl", mean(per_token)),
            ],
            name,
        );
        let evaluation = memory.evaluations.last().unwrap();
        assert_eq!(evaluation.step, 4);
        assert_eq!(evaluation.trained_tokens as f64, length.iter().sum::<f64>());
    }
}

#[test]
fn labelled_answers_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let held_out = labelled(12..19);
    let good: Vec<bool> = (0..held_out.len()).map(|row| held_out.values(row) == [1.0]).collect();
    assert!(good.contains(&true) && good.contains(&false));
    let sets = [&EVAL[..], &["loss={type: kto, loss_type: apo_zero_unpaired}"]].concat();
    let config = config(&folder.path().join("run"), &sets);
    let (policy, memory) = train(&config, labelled(0..6), Some(held_out.clone())).unwrap();
    let (p, q) = (by_hand(&policy, &held_out), by_hand(&base(), &held_out));
    let reward: Vec<f64> = p.iter().zip(&q).map(|(p, q)| 0.1 * (p - q)).collect();
    let of = |numbers: &[f64], which: bool| {
        mean(numbers.iter().zip(&good).filter(|it| *it.1 == which).map(|it| *it.0))
    };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let loss = reward.iter().zip(&good);
    let loss = mean(loss.map(|(u, good)| if *good { 1.0 - sigmoid(*u) } else { sigmoid(*u) }));
    compare(
        memory.evaluations.last().unwrap(),
        &[
            ("loss", loss),
            ("rewards/chosen", of(&reward, true)),
            ("rewards/rejected", of(&reward, false)),
            ("rewards/margins", of(&reward, true) - of(&reward, false)),
            ("logps/chosen", of(&p, true)),
            ("logps/rejected", of(&p, false)),
            ("length/chosen", of(&lengths(&held_out), true)),
        ],
        "apo_zero_unpaired",
    );
}

#[test]
fn the_best_by_accuracy_is_kept_and_patience_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let sets = [
        "metric_for_best_model=rewards/accuracies",
        "load_best_model_at_end=true",
        "early_stopping_patience=3",
        "eval_strategy=steps",
        "save_strategy=steps",
        "save_steps=1",
        "save_total_limit=1",
        "max_steps=40",
        "learning_rate=1e-2",
    ];
    let config = config(&folder.path().join("run"), &sets);
    let (model, memory) = train(&config, pairs(0..4), Some(pairs(20..27))).unwrap();
    let accuracies: Vec<f64> =
        memory.evaluations.iter().map(|e| e.extra.get("rewards/accuracies").unwrap()).collect();
    let best = accuracies.iter().copied().fold(0.0, f64::max);
    let step = 1 + accuracies.iter().position(|&accuracy| accuracy == best).unwrap() as u64;
    let summary = memory.summary.unwrap();
    assert_eq!(summary.best, Some((best, step)), "{accuracies:?}");
    assert_eq!((summary.stop, summary.step), (Stop::Early, step + 3), "{accuracies:?}");
    let mut marked = memory.checkpoints.iter().filter(|checkpoint| checkpoint.best);
    assert_eq!(marked.next_back().unwrap().step, step);
    let kept = config.training.output_dir.join(format!("checkpoint-{step}"));
    let kept = Decoder::load(kept, &device()).unwrap();
    assert!(weights(&kept) == weights(&model), "the best, not the last");
    let last = config.training.output_dir.join(format!("checkpoint-{}", step + 3));
    assert!(weights(&Decoder::load(last, &device()).unwrap()) != weights(&model));
}

/// A number that no evaluation of the loss has is refused before the run.
#[test]
fn a_metric_of_another_loss_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let metric = "metric_for_best_model=rewards/accuracies";
    let read = |loss: &str| crate::kit::try_config(folder.path(), &[metric, loss]);
    let error = read("loss=kto").unwrap_err().to_string();
    assert!(error.contains("`metric_for_best_model` is eval_rewards/accuracies"), "{error}");
    assert!(error.contains("eval_rewards/margins"), "{error}");
    assert!(read("loss=rrhf").is_ok());
}
