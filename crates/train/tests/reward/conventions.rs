//! Each convention trains, and what training encodes is what scoring encodes.

use posttrain_core::{StepReward, StepSample};
use posttrain_model::reward::{ProcessOptions, ProcessRewardModel};
use posttrain_train::data::Batches;
use posttrain_train::reward::{StepRow, score_steps};

use crate::kit::{asked, config, encoded, solutions, train_and_save};
use crate::support::{device, fixtures};

/// Conventions, the model to train, and whether it takes conversations.
const CASES: [(&str, &str, bool); 7] = [
    ("math_shepherd", "language_prm", false),
    ("rlhflow", "language_prm", true),
    ("skywork", "skywork_prm", false),
    // A new head on a language model.
    ("skywork", "language_prm", false),
    ("qwen_math", "qwen_prm", true),
    ("trl", "token_qwen2", false),
    ("trl", "language_prm", true),
];

fn rows(conversations: bool) -> Vec<StepRow> {
    let mut rows = solutions(0..6);
    for (index, row) in rows.iter_mut().enumerate() {
        if let (true, 1, posttrain_core::Prompt::Text(text)) =
            (conversations, index % 2, &row.prompt)
        {
            row.prompt = asked(text);
        }
    }
    rows
}

#[test]
fn each_learns_and_scores_as_it_learned() {
    let folder = tempfile::tempdir().unwrap();
    for (index, (convention, model, conversations)) in CASES.into_iter().enumerate() {
        let what = format!("{convention} on {model}");
        let saved = folder.path().join(format!("{index}"));
        let base = fixtures().join("reward").join(model);
        let model = format!("model={}", base.display());
        let name = format!("convention={convention}");
        let more = ["max_steps=8", "per_device_train_batch_size=6", "learning_rate=5e-3"];
        let sets = [&["kind=process", &name, &model], &more[..]].concat();
        let config = config(&folder.path().join(format!("{index}-run")), &sets);
        let solutions = rows(conversations);
        let (answers, counts) = encoded(&config, solutions.clone()).unwrap();
        assert_eq!((counts.read, answers.len()), (6, 6));
        let (trained, memory) =
            train_and_save(&config, answers.clone(), None, Some(&saved)).unwrap();
        let losses: Vec<f64> = memory.steps.iter().map(|step| step.loss).collect();
        assert!(losses[7] < losses[0], "{what}: {losses:?}");
        let steps: usize = solutions.iter().map(|row| row.steps.len()).sum();
        assert!(memory.steps.iter().all(|step| step.trained_tokens == steps as u64), "{what}");

        let options =
            ProcessOptions { convention: config.method.convention.clone(), ..Default::default() };
        let scorer = ProcessRewardModel::load_with(&saved, &device(), &options).unwrap();
        for (row, solution) in solutions.iter().enumerate() {
            let marked = scorer.encode(&solution.prompt, &solution.steps).unwrap();
            assert_eq!(marked.ids, answers.texts().ids(row), "{what}");
            let trained = answers.texts().trained(row);
            let places = trained.enumerate().filter(|(_, mark)| *mark).map(|(place, _)| place);
            assert_eq!(marked.places, places.collect::<Vec<_>>(), "{what}");
            assert_eq!(answers.values(row), solution.labels);
        }
        // Scores of the saved model are those that are measured in training.
        let reading = scorer.convention().reading(scorer.tokenizer(), scorer.model().config());
        let batches = Batches::of_answers(answers, config.eval_batch_options()).unwrap();
        let report = score_steps(&trained, &batches, reading.unwrap()).unwrap();
        let samples =
            solutions.iter().map(|row| StepSample { prompt: &row.prompt, steps: &row.steps });
        let scores = scorer.step_reward(&samples.collect::<Vec<_>>());
        let labels = solutions.iter().flat_map(|row| row.labels.clone());
        let scores = scores.into_iter().flat_map(Result::unwrap);
        let brier = scores.zip(labels).map(|(score, label)| (score - label).powi(2)).sum::<f64>();
        let off = (brier / steps as f64 - report.all.brier).abs();
        assert!(off < 1e-5, "{what}: {} and {}", brier / steps as f64, report.all.brier);
    }
}

/// The mean over steps of the cross-entropy with labels between 0 and 1.
#[test]
fn soft_labels_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let mut solutions = solutions(0..4);
    for row in &mut solutions {
        for (index, label) in row.labels.iter_mut().enumerate() {
            *label = [0.75, 0.1, 0.5][index % 3];
        }
    }
    let sets = ["kind=process", "convention=trl", "per_device_train_batch_size=3"];
    let sets = [&sets[..], &["gradient_accumulation_steps=2", "max_steps=1"]].concat();
    let config = config(&folder.path().join("run"), &sets);
    let (answers, _) = encoded(&config, solutions.clone()).unwrap();
    let (_, memory) = train_and_save(&config, answers, None, None).unwrap();
    // The model as it was before the first step.
    let base = fixtures().join("sft/model");
    let model = posttrain_model::Decoder::load(&base, &device()).unwrap();
    let head = config.method.convention.as_ref().unwrap().head(model.config()).unwrap();
    let model = model.with_head(head, config.training.seed).unwrap();
    let tokenizer = posttrain_model::reward::RewardTokenizer::from_model(&base).unwrap();
    let convention = config.method.convention.clone().unwrap();
    let scorer = ProcessRewardModel::new(model, tokenizer, convention, 0).unwrap();
    let (mut loss, mut steps) = (0.0, 0);
    for row in &solutions {
        let sample = StepSample { prompt: &row.prompt, steps: &row.steps };
        let scores = scorer.step_reward(&[sample]).remove(0).unwrap();
        for (p, label) in scores.into_iter().zip(&row.labels) {
            loss -= label * p.ln() + (1.0 - label) * (1.0 - p).ln();
            steps += 1;
        }
    }
    let expected = loss / f64::from(steps);
    assert!((memory.steps[0].loss - expected).abs() < 1e-5, "{} {expected}", memory.steps[0].loss);
}

#[test]
fn rows_that_are_too_long_or_without_labels_are_refused_or_counted() {
    let folder = tempfile::tempdir().unwrap();
    let of = |drop: bool, max_length: usize, rows: Vec<StepRow>| {
        let set = format!("max_length={max_length}");
        let mut sets = vec!["kind=process", "convention=trl", &set];
        sets.extend(drop.then_some("untrained_rows=drop"));
        encoded(&config(folder.path(), &sets), rows)
    };
    let all = of(false, 512, solutions(0..8)).unwrap().0;
    let mut lengths: Vec<usize> = (0..8).map(|row| all.texts().length(row)).collect();
    lengths.sort_unstable();
    // Exactly as long is not too long.
    assert_eq!(of(false, lengths[7], solutions(0..8)).unwrap().0.len(), 8);
    let error = of(false, lengths[7] - 1, solutions(0..8)).unwrap_err().to_string();
    assert!(error.starts_with("rows.jsonl:"), "{error}");
    assert!(error.contains(&format!("{} tokens, max_length is", lengths[7])), "{error}");
    let (kept, counts) = of(true, lengths[3], solutions(0..8)).unwrap();
    assert!((1..8).contains(&kept.len()));
    assert_eq!(
        (counts.read, counts.dropped.values().map(|c| c.rows).sum::<u64>()),
        (8, 8 - kept.len() as u64)
    );
    let error = of(true, 2, solutions(0..8)).unwrap_err().to_string();
    assert!(error.contains("all 8 were dropped"), "{error}");

    let mut short = solutions(0..1);
    short[0].labels.pop();
    let error = of(false, 512, short).unwrap_err().to_string();
    assert!(
        error.contains("steps and") && error.contains("labels, expected one for each"),
        "{error}"
    );
    let none = vec![StepRow { steps: vec![], labels: vec![], ..solutions(0..1).remove(0) }];
    assert!(of(false, 512, none).unwrap_err().to_string().contains("0 steps and 0 labels"));
}
