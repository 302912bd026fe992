//! What evaluations say, and what is made of it.

use posttrain_model::Decoder;
use posttrain_model::config::Head;
use posttrain_model::reward::{RewardModel, RewardOptions, RewardTokenizer};
use posttrain_train::data::Batches;
use posttrain_train::reward::{ScoreReport, ScoredPair, score_pairs};
use serde_json::{Value, json};

use crate::kit::{TRL, base, config, encoded, solutions, train};
use crate::support::answers::pairs;
use crate::support::{device, weights};

#[test]
fn pairs_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let sets = ["eval_strategy=steps", "eval_steps=2", "per_device_eval_batch_size=3"];
    let config = config(&folder.path().join("run"), &sets);
    let held_out = pairs(20..27);
    let (model, memory) = train(&config, pairs(0..4), Some(held_out.clone())).unwrap();
    let tokenizer = RewardTokenizer::from_model(base(&config)).unwrap();
    let scorer = RewardModel::new(model, tokenizer, &RewardOptions::default()).unwrap();
    let texts: Vec<Vec<u32>> = (0..14).map(|text| held_out.texts().ids(text).to_vec()).collect();
    let scores: Vec<f64> = scorer.reward_ids(&texts).into_iter().map(Result::unwrap).collect();
    let tokens = |text: usize| held_out.texts().targets(text);
    let scored: Vec<ScoredPair> = (0..7)
        .map(|row| ScoredPair {
            chosen: scores[2 * row],
            rejected: scores[2 * row + 1],
            chosen_tokens: tokens(2 * row),
            rejected_tokens: tokens(2 * row + 1),
        })
        .collect();
    let found = memory.evaluations.last().unwrap();
    let near = |name: &str, found: f64, expected: f64| {
        assert!((found - expected).abs() < 1e-4, "{name}: {found}, not {expected}");
    };
    for (name, expected) in ScoreReport::new(&scored).unwrap().metrics() {
        near(name, found.extra.get(name).unwrap(), expected);
    }
    let mean = |of: &dyn Fn(&ScoredPair) -> f64| scored.iter().map(of).sum::<f64>() / 7.0;
    near("loss", found.eval_loss, mean(&|pair| (-pair.margin()).exp().ln_1p()));
    near("margin", found.extra.get("margin").unwrap(), mean(&ScoredPair::margin));
    let right = mean(&|pair| f64::from(u8::from(pair.margin() > 0.0)));
    near("accuracy", found.extra.get("accuracy").unwrap(), right);
    assert!(found.details.contains("<section"), "what the report shows");
}

#[test]
fn the_best_by_accuracy_or_auc_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    for metric in ["accuracy", "auc"] {
        let set = format!("metric_for_best_model={metric}");
        let saves = ["save_strategy=steps", "save_steps=1", "eval_strategy=steps"];
        let more = ["load_best_model_at_end=true", "early_stopping_patience=2", "max_steps=30"];
        let sets = [&[&set[..]], &saves[..], &more[..]].concat();
        let config = config(&folder.path().join(metric), &sets);
        let (model, memory) = train(&config, pairs(0..4), Some(pairs(20..27))).unwrap();
        let values: Vec<f64> =
            memory.evaluations.iter().map(|e| e.extra.get(metric).unwrap()).collect();
        let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let step = 1 + values.iter().position(|&value| value == best).unwrap() as u64;
        let summary = memory.summary.unwrap();
        assert_eq!((summary.best, summary.step), (Some((best, step)), step + 2), "{values:?}");
        let kept = config.training.output_dir.join(format!("checkpoint-{step}"));
        assert!(weights(&Decoder::load(kept, &device()).unwrap()) == weights(&model));
    }
}

#[test]
fn steps_have_their_measures() {
    let folder = tempfile::tempdir().unwrap();
    let sets = [&TRL[..], &["eval_strategy=steps", "eval_steps=4"]].concat();
    let config = config(&folder.path().join("run"), &sets);
    let of = |rows| encoded(&config, solutions(rows)).unwrap().0;
    let (_, memory) = train(&config, of(0..6), Some(of(20..28))).unwrap();
    let [found] = &memory.evaluations[..] else { panic!("{:?}", memory.evaluations) };
    for name in ["accuracy", "auc", "brier", "ece"] {
        let value = found.extra.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert!((0.0..=1.0).contains(&value), "{name} is {value}");
    }
    let steps: usize = solutions(20..28).iter().map(|row| row.steps.len()).sum();
    assert_eq!(found.trained_tokens, steps as u64);
}

/// With a rotation that depends on the length prompts are not shared, in training and in scoring.
#[test]
fn a_rotation_by_length_is_that_of_each_text() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model");
    crate::support::copy(&crate::support::fixtures().join("sft/model"), &to);
    let path = to.join("config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["max_position_embeddings"] = 32.into();
    json["rope_parameters"] =
        json!({"rope_type": "dynamic", "factor": 16.0, "rope_theta": 10000.0});
    std::fs::write(&path, json.to_string()).unwrap();
    let model = format!("model={}", to.display());
    let config = config(&folder.path().join("run"), &[&model]);
    let (trained, memory) = train(&config, pairs(0..2), None).unwrap();
    let tokens: usize = (0..4).map(|text| pairs(0..2).texts().length(text)).sum();
    assert!(memory.steps.iter().all(|step| step.tokens == tokens as u64));
    assert_eq!(trained.config().head, Head::Sequence { labels: 1 });

    let held_out = pairs(20..24);
    let rows = Batches::of_answers(held_out.clone(), config.eval_batch_options()).unwrap();
    let report = score_pairs(&trained, &rows).unwrap();
    let tokenizer = RewardTokenizer::from_model(&to).unwrap();
    let scorer = RewardModel::new(trained, tokenizer, &RewardOptions::default()).unwrap();
    let texts: Vec<Vec<u32>> = (0..8).map(|text| held_out.texts().ids(text).to_vec()).collect();
    let scores: Vec<f64> = scorer.reward_ids(&texts).into_iter().map(Result::unwrap).collect();
    let scored = scores.chunks(2).enumerate().map(|(row, pair)| ScoredPair {
        chosen: pair[0],
        rejected: pair[1],
        chosen_tokens: held_out.texts().targets(2 * row),
        rejected_tokens: held_out.texts().targets(2 * row + 1),
    });
    let expected = ScoreReport::new(&scored.collect::<Vec<_>>()).unwrap();
    for ((name, found), (_, expected)) in report.metrics().into_iter().zip(expected.metrics()) {
        assert!((found - expected).abs() < 1e-4, "{name}: {found}, not {expected}");
    }
}
