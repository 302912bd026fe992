//! Heads: new ones are drawn, trained and kept, in a model and in an adapter.

use std::fs;
use std::path::Path;

use posttrain_model::Decoder;
use posttrain_model::config::Head;
use posttrain_model::reward::{
    Convention, ProcessRewardModel, RewardModel, RewardOptions, RewardTokenizer,
};
use posttrain_train::config::RewardConfig;
use posttrain_train::data::{Answers, Batches};
use posttrain_train::reward::{score_pairs, score_steps};
use serde_json::json;

use crate::kit::{NEW_ADAPTER, TRL, base, config, encoded, solutions, train_and_save};
use crate::support::answers::pairs;
use crate::support::{device, fixtures, weights};

/// The numbers of a tensor in a safetensors file.
fn tensor(path: &Path, name: &str) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let found = file.tensor(name).unwrap_or_else(|_| panic!("{name} of {:?}", file.names()));
    found.data().to_vec()
}

fn of_pairs(config: &RewardConfig, model: &Decoder) -> Vec<f64> {
    let rows = Batches::of_answers(pairs(20..23), config.eval_batch_options()).unwrap();
    score_pairs(model, &rows).unwrap().metrics().into_iter().map(|(_, value)| value).collect()
}

#[test]
fn a_new_head_is_drawn_by_the_seed_and_trained() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, seed: &str| {
        let saved = folder.path().join(name);
        let config = config(&folder.path().join(format!("{name}-run")), &[seed]);
        let (model, memory) = train_and_save(&config, pairs(0..4), None, Some(&saved)).unwrap();
        assert_eq!(model.config().head, Head::Sequence { labels: 1 });
        (memory.steps[0].loss, tensor(&saved.join("model.safetensors"), "score.weight"), model)
    };
    let (first, head, model) = run("first", "seed=1");
    let (again, same, _) = run("again", "seed=1");
    let (other, different, _) = run("other", "seed=2");
    assert_eq!((first, &head), (again, &same));
    assert!(first != other && head != different);
    // Not the one that was drawn.
    let drawn = Decoder::load(fixtures().join("sft/model"), &device()).unwrap();
    let drawn = drawn.with_head(Head::Sequence { labels: 1 }, 1).unwrap();
    let score = |model: &Decoder| {
        weights(model).into_iter().find(|(name, _)| name == "score.weight").unwrap().1
    };
    let off: f32 = score(&drawn).iter().zip(score(&model)).map(|(a, b)| (a - b).abs()).sum();
    assert!(off > 1e-3, "{off}");
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("first/config.json")).unwrap())
            .unwrap();
    assert_eq!(json["architectures"], json!(["LlamaForSequenceClassification"]));
}

/// A model that has the head goes on with it.
#[test]
fn a_head_that_is_there_is_trained_further() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved");
    let first = config(&folder.path().join("first"), &[]);
    let (trained, _) = train_and_save(&first, pairs(0..4), None, Some(&saved)).unwrap();
    let model = format!("model={}", saved.display());
    let rate = "learning_rate=1e-12";
    let second = config(&folder.path().join("second"), &[&model, "seed=9", rate]);
    let (further, _) = train_and_save(&second, pairs(0..4), None, None).unwrap();
    let (a, b) = (of_pairs(&first, &trained), of_pairs(&second, &further));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
}

fn adapted(folder: &Path, config: &RewardConfig, head: Head) -> Decoder {
    // Another head than the one that was drawn, so that one that is not in the adapter shows.
    let model = Decoder::load(base(config), &device()).unwrap();
    let mut model = if head != Head::Language && model.config().head == Head::Language {
        model.with_head(head, 12345).unwrap()
    } else {
        model
    };
    model.load_adapter(folder, "default").unwrap();
    model
}

#[test]
fn an_adapter_keeps_the_head_of_an_outcome_model() {
    let folder = tempfile::tempdir().unwrap();
    for (name, lora) in [
        ("task", NEW_ADAPTER),
        // As for a language model: the head is trained all the same.
        ("language", "lora={r: 4, target_modules: all-linear, task_type: CAUSAL_LM}"),
        ("dora", "lora={r: 4, target_modules: [q_proj, v_proj], use_dora: true}"),
    ] {
        let saved = folder.path().join(name);
        let config = config(&folder.path().join(format!("{name}-run")), &[lora]);
        let (model, _) = train_and_save(&config, pairs(0..4), None, Some(&saved)).unwrap();
        let head = "base_model.model.score.weight";
        assert!(!tensor(&saved.join("adapter_model.safetensors"), head).is_empty());
        let again = adapted(&saved, &config, Head::Sequence { labels: 1 });
        let (a, b) = (of_pairs(&config, &model), of_pairs(&config, &again));
        assert_eq!(a, b, "{name}");
        let tokenizer = RewardTokenizer::from_model(base(&config)).unwrap();
        let scorer = RewardModel::new(again, tokenizer, &RewardOptions::default()).unwrap();
        let text: Vec<Vec<u32>> = vec![pairs(20..21).texts().ids(0).to_vec()];
        assert!(scorer.reward_ids(&text)[0].as_ref().unwrap().is_finite());
    }
}

#[test]
fn an_adapter_keeps_the_head_of_a_process_model() {
    let folder = tempfile::tempdir().unwrap();
    let language = format!("model={}", fixtures().join("reward/language_prm").display());
    for (convention, tensors) in [
        ("trl", &["score.weight", "score.bias"][..]),
        ("skywork", &["v_head.summary.weight", "v_head.summary.bias"]),
        ("math_shepherd", &[]),
    ] {
        let saved = folder.path().join(convention);
        let set = format!("convention={convention}");
        let sets = ["kind=process", &set, &language, NEW_ADAPTER];
        let config = config(&folder.path().join(format!("{convention}-run")), &sets);
        let rows: Answers = encoded(&config, solutions(0..6)).unwrap().0;
        let (model, _) = train_and_save(&config, rows.clone(), None, Some(&saved)).unwrap();
        for name in tensors {
            let name = format!("base_model.model.{name}");
            assert!(!tensor(&saved.join("adapter_model.safetensors"), &name).is_empty());
        }
        let head = model.config().head;
        let again = adapted(&saved, &config, head);
        let convention: Convention = serde_json::from_value(json!(convention)).unwrap();
        let tokenizer = RewardTokenizer::from_model(base(&config)).unwrap();
        let reading = convention.reading(&tokenizer, again.config()).unwrap();
        let rows = Batches::of_answers(rows, config.eval_batch_options()).unwrap();
        let (a, b) = (score_steps(&model, &rows, reading), score_steps(&again, &rows, reading));
        assert_eq!(a.unwrap(), b.unwrap(), "{convention:?}");
    }
}

/// What was trained on every weight loads by itself: the head tells how it is read.
#[test]
fn a_whole_process_model_tells_its_convention() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved");
    let config = config(&folder.path().join("run"), &TRL);
    let rows = encoded(&config, solutions(0..4)).unwrap().0;
    train_and_save(&config, rows, None, Some(&saved)).unwrap();
    let model = ProcessRewardModel::load(&saved, &device()).unwrap();
    assert_eq!(model.convention().name(), "trl");
    let without = crate::kit::config(
        &folder.path().join("further"),
        &["kind=process", &format!("model={}", saved.display())],
    );
    assert!(encoded(&without, solutions(0..2)).is_ok());
    let untold = crate::kit::config(&folder.path().join("untold"), &["kind=process"]);
    let error = encoded(&untold, solutions(0..2)).unwrap_err().to_string();
    assert!(
        error.contains("`convention` is missing") && error.contains("math_shepherd"),
        "{error}"
    );
}
