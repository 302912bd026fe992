//! Reward models: what they read, what they say, and that what is kept changes nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::path::Path;

use burn::module::Module as _;
use burn::tensor::{Tensor, TensorData};
use posttrain_core::{Conversation, Message, Prompt, Reward, Sample, StepReward, StepSample};
use posttrain_model::config::{Config, Head};
use posttrain_model::reward::{
    Convention, MathShepherd, ProcessOptions, QwenMath, Reading, RewardOptions, RewardTokenizer,
    Rlhflow, Skywork, Trl,
};
use posttrain_model::{Batch, Decoder, Error, Gradients, ProcessRewardModel, RewardModel};
use serde::Deserialize;
use serde_json::Map;
use support::rewards::{folder, load, readings};
use support::{device, distance, models, numbers};

fn open(case: &str, convention: Option<Convention>, cache_tokens: usize) -> ProcessRewardModel {
    let options = ProcessOptions { convention, cache_tokens, ..ProcessOptions::default() };
    ProcessRewardModel::load_with(folder(case), &device(), &options).unwrap()
}

/// A folder, its file of readings, and the convention where it has to be named.
fn conventions() -> Vec<(&'static str, &'static str, Option<Convention>)> {
    vec![
        ("qwen_prm", "readings.json", None),
        ("skywork_prm", "readings.json", None),
        ("token_qwen2", "readings.json", None),
        (
            "language_prm",
            "math_shepherd.json",
            Some(Convention::MathShepherd(MathShepherd::default())),
        ),
        ("language_prm", "rlhflow.json", Some(Convention::Rlhflow(Rlhflow::default()))),
    ]
}

fn near(found: &[f64], expected: &[f64], limit: f64) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < limit, "{found:?} is not {expected:?}");
    }
}

#[test]
fn every_convention_reads_what_its_model_is_read_by() {
    for (case, file, convention) in conventions() {
        let model = open(case, convention, 4096);
        for reading in readings(case, file) {
            let prompt = Prompt::from(reading.prompt.as_str());
            let marked = model.encode(&prompt, &reading.steps).unwrap();
            assert_eq!(marked.ids, reading.ids, "{case}/{file}");
            assert_eq!(marked.places, reading.places, "{case}/{file}");
            let sample = StepSample { prompt: &prompt, steps: &reading.steps };
            let scores = model.step_reward(&[sample]).remove(0).unwrap();
            near(&scores, &reading.scores, 1e-5);
        }
    }
    let detected = |case| open(case, None, 0).convention().name();
    assert_eq!(detected("qwen_prm"), "qwen_math");
    assert_eq!(detected("skywork_prm"), "skywork");
    assert_eq!(detected("token_qwen2"), "trl");
}

#[derive(Deserialize)]
struct Rewarded {
    prompt: Prompt,
    response: String,
    ids: Vec<u32>,
    reward: f64,
}

fn rewarded() -> Vec<Rewarded> {
    let path = folder("sequence_llama").join("rewards.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn answers_are_read_as_trl_trains_on_them() {
    let known = rewarded();
    let load = |logistic| {
        let options = RewardOptions { logistic, ..RewardOptions::default() };
        RewardModel::load_with(folder("sequence_llama"), &device(), &options).unwrap()
    };
    let columns = Map::new();
    let samples: Vec<Sample<'_>> = known
        .iter()
        .map(|Rewarded { prompt, response, .. }| Sample { prompt, response, columns: &columns })
        .collect();
    let model = load(false);
    for Rewarded { prompt, response, ids, .. } in &known {
        assert_eq!(model.encode(prompt, response).unwrap(), *ids);
    }
    let rewards = |model: &dyn Reward| -> Vec<f64> {
        model.reward(&samples).into_iter().map(Result::unwrap).collect()
    };
    let expected: Vec<f64> = known.iter().map(|known| known.reward).collect();
    near(&rewards(&model), &expected, 1e-4);
    let squashed: Vec<f64> = expected.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    near(&rewards(&load(true)), &squashed, 1e-4);
}

/// Texts of unequal length with common beginnings, and the model's own scores of each alone.
fn texts() -> Vec<Vec<u32>> {
    let prompt: Vec<u32> = (0..40).map(|i| 10 + i * 7 % 80).collect();
    let with = |from: usize, rest: &[u32]| [&prompt[..from], rest].concat();
    vec![
        with(40, &[11, 12, 13]),
        with(40, &[11, 12]),
        with(40, &[20]),
        with(25, &[30, 31, 32, 33, 34]),
        with(3, &[9]),
        vec![50],
        with(40, &[11, 12, 13, 14, 15, 16, 17, 18, 19]),
        with(40, &[11, 12, 13]),
        with(0, &(0..60).map(|i| 10 + i * 3 % 59).collect::<Vec<u32>>()),
    ]
}

fn alone(model: &Decoder, text: &[u32]) -> f32 {
    let batch = Batch::padded(&[text], 0).unwrap();
    numbers(model.scores(model.forward(&batch), &[model.config().pooled(text)]))[0]
}

/// Windows, soft caps and rotations by length as well.
#[test]
fn what_is_kept_changes_no_score() {
    let new_head = |case: &str| {
        let head = Head::Value { lm_head: false, prefixed: false };
        Decoder::load(models().join(case), &device()).unwrap().with_head(head, 5).unwrap()
    };
    for (name, model) in [
        ("sequence_llama", load("sequence_llama")),
        ("sequence_gemma2", load("sequence_gemma2")),
        ("sequence_gemma3", load("sequence_gemma3")),
        ("llama_dynamic", new_head("llama_dynamic")),
        ("smollm3_window", new_head("smollm3_window")),
    ] {
        let texts = texts();
        let expected: Vec<f64> = texts.iter().map(|text| f64::from(alone(&model, text))).collect();
        for cache_tokens in [0, 60, 4096] {
            let options = RewardOptions { cache_tokens, ..RewardOptions::default() };
            let tokenizer = || RewardTokenizer::from_model(folder("sequence_llama")).unwrap();
            let new = || RewardModel::new(model.clone(), tokenizer(), &options).unwrap();
            let scores = |model: &RewardModel, texts: &[Vec<u32>]| -> Vec<f64> {
                model.reward_ids(texts).into_iter().map(Result::unwrap).collect()
            };
            // All at once, again, and one after the other in another order.
            let (reward, one_by_one) = (new(), new());
            for _ in 0..2 {
                near(&scores(&reward, &texts), &expected, 1e-5);
            }
            for (text, expected) in texts.iter().zip(&expected).rev() {
                near(&scores(&one_by_one, std::slice::from_ref(text)), &[*expected], 1e-5);
            }
            println!("{name} {cache_tokens}: {} tokens", reward.computed_tokens());
        }
    }
}

#[test]
fn what_texts_begin_with_is_computed_once() {
    let model = RewardModel::load(folder("sequence_llama"), &device()).unwrap();
    let texts = texts();
    let first = model.reward_ids(&texts);
    let together: usize = texts.iter().map(Vec::len).sum();
    let computed = model.computed_tokens();
    assert!(computed < together as u64 / 2, "{computed} of {together}");
    // Nothing is computed again, and what is new alone.
    let again = model.reward_ids(&texts);
    assert_eq!(model.computed_tokens(), computed);
    for (a, b) in first.iter().zip(&again) {
        assert_eq!(a.as_ref().unwrap(), b.as_ref().unwrap());
    }
    let longer = [&texts[0][..], &[60, 61]].concat();
    model.reward_ids(&[longer]).remove(0).unwrap();
    assert_eq!(model.computed_tokens(), computed + 2);
}

/// Texts longer than a pass, and more of them than are kept at a time.
#[test]
fn long_texts_come_in_parts() {
    let json = serde_json::json!({"model_type": "llama", "vocab_size": 90, "hidden_size": 16,
        "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 4096, "architectures": ["LlamaForSequenceClassification"],
        "num_labels": 1, "rope_theta": 100.0});
    let config = Config::from_json(Path::new("config.json"), &json).unwrap();
    let model = Decoder::random(&config, 0.3, 1, &device()).unwrap();
    let text = |length: usize, step: usize| -> Vec<u32> {
        (0..length).map(|i| (10 + i * step % 79) as u32).collect()
    };
    let mut texts: Vec<Vec<u32>> = (1..9).map(|step| text(700, step)).collect();
    texts.extend([text(2500, 3), text(2200, 3), [text(1500, 3), text(100, 5)].concat()]);
    let options = RewardOptions { cache_tokens: 100, ..RewardOptions::default() };
    let tokenizer = RewardTokenizer::from_model(folder("sequence_llama")).unwrap();
    let reward = RewardModel::new(model.clone(), tokenizer, &options).unwrap();
    for (text, found) in texts.iter().zip(reward.reward_ids(&texts)) {
        near(&[found.unwrap()], &[f64::from(alone(&model, text))], 1e-5);
    }
}

/// Solutions grow step by step, as in a search; the scores are those of whole solutions.
#[test]
fn a_longer_solution_costs_its_new_steps() {
    for (case, file, convention) in conventions() {
        let (kept, fresh) = (open(case, convention.clone(), 4096), open(case, convention, 0));
        for reading in readings(case, file) {
            let prompt = Prompt::from(reading.prompt.as_str());
            for count in 1..=reading.steps.len() {
                let sample = StepSample { prompt: &prompt, steps: &reading.steps[..count] };
                let before = kept.computed_tokens();
                let scores = kept.step_reward(&[sample]).remove(0).unwrap();
                assert_eq!(scores, fresh.step_reward(&[sample]).remove(0).unwrap(), "{case}");
                near(&scores, &reading.scores[..count], 1e-5);
                let cost = (kept.computed_tokens() - before) as usize;
                let longest = reading.places[count - 1] + 1;
                // Another step, or the first behind a prompt that may be known.
                let most = match count {
                    1 => longest,
                    _ => longest - reading.places[count - 2],
                };
                assert!(cost <= most, "{case}/{file}: {cost} tokens for step {count}");
            }
        }
    }
}

#[test]
fn one_failure_loses_nothing_else() {
    let model = open("skywork_prm", None, 4096);
    let reading = readings("skywork_prm", "readings.json").remove(0);
    let prompt = Prompt::from(reading.prompt.as_str());
    let long = vec!["x ".repeat(600)];
    let turns = ["a", "b", "c"].map(Message::user);
    let turns = Prompt::from(Conversation::new(turns));
    let samples = [
        StepSample { prompt: &prompt, steps: &reading.steps },
        StepSample { prompt: &prompt, steps: &long },
        StepSample { prompt: &turns, steps: &reading.steps },
        StepSample { prompt: &prompt, steps: &[] },
        StepSample { prompt: &prompt, steps: &reading.steps[..1] },
    ];
    let model: &dyn StepReward = &model;
    let found = model.step_reward(&samples);
    near(found[0].as_ref().unwrap(), &reading.scores, 1e-5);
    let error = found[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("expected at most the context of 512 tokens"), "{error}");
    assert!(matches!(found[2], Err(posttrain_core::Error::Unscorable { .. })), "{:?}", found[2]);
    assert!(found[3].as_ref().unwrap().is_empty());
    near(found[4].as_ref().unwrap(), &reading.scores[..1], 1e-5);

    let reward = RewardModel::load(folder("sequence_llama"), &device()).unwrap();
    let found = reward.reward_ids(&[vec![5, 6], vec![9999], vec![], vec![5, 6]]);
    assert!(found[1].as_ref().unwrap_err().to_string().contains("9999"));
    assert!(found[2].as_ref().unwrap_err().to_string().contains("empty"));
    assert_eq!(found[0].as_ref().unwrap(), found[3].as_ref().unwrap());
}

#[test]
fn a_step_that_holds_the_mark_cannot_be_scored() {
    let steps = ["first<extra_0>second".to_owned()];
    let error = open("qwen_prm", None, 0).encode(&"2 + 2?".into(), &steps).unwrap_err();
    assert!(error.to_string().contains("2 marks for 1 steps"), "{error}");
    let shepherd = Some(Convention::MathShepherd(MathShepherd::default()));
    let model = open("language_prm", shepherd, 0);
    let error = model.encode(&"a ки".into(), &["b".to_owned()]).unwrap_err();
    assert!(matches!(error, Error::Unscorable(_)), "{error}");
}

#[test]
fn prompts_are_texts_or_conversations() {
    let steps = ["It is 4.".to_owned()];
    let user = || Message::user("2 + 2?");
    let chat = |messages: Vec<Message>| Prompt::from(Conversation::new(messages));
    let text = Prompt::from("2 + 2?");
    for (case, convention) in [
        ("qwen_prm", Convention::QwenMath(QwenMath::default())),
        ("skywork_prm", Convention::Skywork(Skywork::default())),
        ("language_prm", Convention::MathShepherd(MathShepherd::default())),
        ("language_prm", Convention::Rlhflow(Rlhflow::default())),
    ] {
        let model = open(case, Some(convention), 0);
        let of = |prompt: &Prompt| model.encode(prompt, &steps).unwrap();
        assert_eq!(of(&chat(vec![user()])), of(&text), "{case}");
        let system = chat(vec![Message::system("Be brief."), user()]);
        assert_ne!(of(&system), of(&text), "{case}");
    }
    let qwen = open("qwen_prm", None, 0);
    let own = Message::system(QwenMath::default().system.unwrap());
    assert_eq!(
        qwen.encode(&chat(vec![own, user()]), &steps).unwrap(),
        qwen.encode(&text, &steps).unwrap()
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let load = |case: &str, convention: Option<Convention>| {
        let options = ProcessOptions { convention, ..ProcessOptions::default() };
        ProcessRewardModel::load_with(folder(case), &device(), &options).map(drop).unwrap_err()
    };
    let error = load("language_prm", None);
    assert!(matches!(error, Error::NoConvention { head: Head::Language, .. }), "{error}");
    assert!(error.to_string().contains("math_shepherd, rlhflow, skywork, qwen_math, trl"));
    let error = load("language_prm", Some(Convention::Trl(Trl::default())));
    assert!(error.to_string().contains("expected a head with two scores"), "{error}");
    let error = load("sequence_llama", Some(Convention::Rlhflow(Rlhflow::default())));
    assert!(error.to_string().contains("expected a language model"), "{error}");
    let other = MathShepherd { step_tag: "кино".into(), ..MathShepherd::default() };
    let error = load("language_prm", Some(Convention::MathShepherd(other)));
    assert!(matches!(error, Error::NoTag { convention: "math_shepherd", .. }), "{error}");
    let other = Rlhflow { bad_token: "minus".into(), ..Rlhflow::default() };
    let error = load("language_prm", Some(Convention::Rlhflow(other)));
    assert!(error.to_string().contains("no token of a bad step \"minus\""), "{error}");

    // A tokenizer without a chat template, where one is needed.
    let config = support::rewards::load("language_prm").config().clone();
    let tokenizer = RewardTokenizer::from_model(folder("skywork_prm")).unwrap();
    let rlhflow = Convention::Rlhflow(Rlhflow::default());
    assert!(rlhflow.reading(&tokenizer, &config).is_ok());
    let error = rlhflow.encode(&tokenizer, &"a".into(), &["b".into()]).unwrap_err();
    assert!(matches!(error, Error::NoChatTemplate { .. }), "{error}");
    let other = QwenMath { step_token: "<step>".into(), ..QwenMath::default() };
    let error = Convention::QwenMath(other).encode(&tokenizer, &"a".into(), &["b".into()]);
    assert!(matches!(error, Err(Error::NoTag { .. })), "{error:?}");

    let options = RewardOptions::default();
    let error = RewardModel::new(support::rewards::load("sequence_qwen3"), tokenizer, &options);
    let error = error.map(drop).unwrap_err();
    assert!(error.to_string().contains("expected one with one score"), "{error}");
    let error = RewardModel::load(folder("language_prm"), &device()).map(drop).unwrap_err();
    assert!(error.to_string().contains("is Language"), "{error}");
}

/// The gradient of log-odds, against what the tensor library derives.
#[test]
fn log_odds_and_their_gradients() {
    for (case, reading) in [
        ("qwen_prm", Reading::TwoScores),
        ("skywork_prm", Reading::Value),
        ("language_prm", Reading::Tokens { good: 20, bad: 30 }),
    ] {
        let model = load(case);
        let batch = Batch::padded(&[&[15, 16, 17, 18], &[19, 20]], 0).unwrap();
        let (hidden, places) = (model.forward(&batch), [1, 3, 5]);
        let factors = TensorData::new(vec![0.5_f32, -1.5, 0.75], [3]);
        let factors = Tensor::<1>::from_data(factors, &model.device());
        let tracked = model.clone().train();
        let inner = Tensor::from_inner(hidden.clone()).require_grad();
        let said = reading.log_odds(&tracked, inner.clone(), &places);
        let odds = numbers(reading.log_odds(&model, hidden.clone(), &places));
        assert_eq!(numbers(said.clone().inner()), odds, "{case}");
        let found = (said * Tensor::from_inner(factors.clone())).sum().backward();
        let mut gradients = Gradients::default();
        let by_hidden = reading.log_odds_backward(&model, hidden, &places, factors, &mut gradients);
        let off = distance(&numbers(by_hidden), &numbers(inner.grad(&found).unwrap()));
        assert!(off < 1e-5, "{case}: {off:e}");
        assert!(!gradients.is_empty());
    }
}
