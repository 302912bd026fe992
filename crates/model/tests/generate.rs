//! Generation: greedy as transformers, independent of neighbours, stopped and cancelled.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;

use posttrain_chat::{Builtin, ChatTemplate, ChatTokenizer};
use posttrain_core::{FinishReason, Generate, Request, Sampling};
use posttrain_model::config::{Config, GenerationConfig};
use posttrain_model::{Batch, Decoder, Generator, KvCache, Next, TokenCompletion, TokenRequest};
use support::{device, models};

fn load(case: &str) -> Decoder {
    Decoder::load(models().join(case), &device()).unwrap()
}

fn all(
    model: &Decoder,
    requests: &[TokenRequest],
    stop_ids: &[u32],
    batch: usize,
) -> Vec<TokenCompletion> {
    let answers = model.continue_ids(requests, stop_ids, batch, &mut |_, _| Next::Continue);
    answers.into_iter().map(Result::unwrap).collect()
}

/// Requests of unequal prompts, lengths and seeds.
fn mixed(count: u32) -> Vec<TokenRequest> {
    let request = |i: u32| {
        let ids = (0..=(i * 5 % 11)).map(|j| 3 + (i * 17 + j * 29) % 90).collect();
        let sampling = Sampling {
            temperature: 0.8,
            top_p: 0.9,
            seed: u64::from(i),
            max_tokens: 4 + (i as usize * 7) % 15,
            logprobs: true,
            ..Sampling::default()
        };
        TokenRequest { ids, sampling }
    };
    (0..count).map(request).collect()
}

#[test]
fn an_answer_does_not_depend_on_its_neighbours() {
    for case in ["llama_gqa", "gemma3_text", "phi3", "qwen2"] {
        let model = load(case);
        let requests = mixed(12);
        let alone: Vec<_> = requests
            .iter()
            .map(|request| all(&model, std::slice::from_ref(request), &[], 1).remove(0))
            .collect();
        // Bit for bit, log-probabilities included: each row is computed on its own.
        for batch in [1, 3, 5, 12] {
            assert_eq!(all(&model, &requests, &[], batch), alone, "{case}, {batch} at a time");
        }
        for (request, answer) in requests.iter().zip(&alone) {
            assert_eq!(answer.ids.len(), request.sampling.max_tokens);
            assert_eq!(answer.logprobs.len(), answer.ids.len());
        }
    }
}

#[test]
fn logprobs_of_sampled_tokens_are_those_of_one_pass() {
    let model = load("qwen3");
    for request in mixed(4) {
        let answer = all(&model, std::slice::from_ref(&request), &[], 1).remove(0);
        let text: Vec<u32> = request.ids.iter().chain(&answer.ids).copied().collect();
        let batch = posttrain_model::Batch::padded(&[&text], 0).unwrap();
        let targets = posttrain_model::Targets::all(&batch);
        let scored = model.logprobs(model.forward(&batch), &targets);
        let known = support::numbers(scored.logprobs);
        let known = &known[request.ids.len() - 1..];
        assert!(support::distance(&answer.logprobs, known) < 1e-4);
    }
}

#[test]
fn an_end_token_ends_and_belongs_to_the_ids() {
    let model = load("llama_mha");
    let request = TokenRequest { ids: vec![5, 6, 7], sampling: Sampling::greedy() };
    let limit = Sampling { max_tokens: 20, ..Sampling::greedy() };
    let free =
        all(&model, &[TokenRequest { sampling: limit, ..request.clone() }], &[], 1).remove(0);
    let end = free.ids[6];
    let at = free.ids.iter().position(|&id| id == end).unwrap();
    // As an end token of the model, among several, and as one of the request.
    let of_model = all(&model, std::slice::from_ref(&request), &[1, end], 1).remove(0);
    let sampling = Sampling { stop_token_ids: vec![end], ..Sampling::greedy() };
    let of_request = all(&model, &[TokenRequest { sampling, ..request }], &[], 1).remove(0);
    for answer in [of_model, of_request] {
        assert_eq!(answer.ids, free.ids[..=at]);
        assert_eq!(answer.finish_reason, FinishReason::Stop);
    }
}

/// A model with random weights over 96 tokens.
fn random(fields: serde_json::Value) -> Decoder {
    let mut json = serde_json::json!({
        "model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    });
    json.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let config = Config::from_json(Path::new("config.json"), &json).unwrap();
    Decoder::random(&config, 0.3, 7, &device()).unwrap()
}

#[test]
fn long_prompts_are_read_in_parts_as_in_one() {
    let scaled = serde_json::json!({
        "max_position_embeddings": 1200, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0},
    });
    for model in [random(serde_json::json!({})), random(scaled)] {
        let ids: Vec<u32> = (0..1500).map(|i| i * 31 % 96).collect();
        let sampling = Sampling { max_tokens: 1, logprobs: true, ..Sampling::greedy() };
        let request = TokenRequest { ids: ids.clone(), sampling };
        let answer = all(&model, &[request], &[], 1).remove(0);
        let one_pass = model.forward(&Batch::padded(&[&ids], 0).unwrap());
        let logits = support::numbers(model.logits(one_pass.narrow(1, ids.len() - 1, 1)));
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let lse = logits.iter().map(|z| (z - largest).exp()).sum::<f32>().ln() + largest;
        assert_eq!(logits[answer.ids[0] as usize], largest);
        assert!((answer.logprobs[0] - (largest - lse)).abs() < 1e-4);
    }
}

/// Passes that hold several prompts, parts of prompts, and rows that end before others.
#[test]
fn long_prompts_are_read_beside_short_ones_as_alone() {
    let scaled = serde_json::json!({
        "max_position_embeddings": 1700, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0},
    });
    let window = serde_json::json!({"model_type": "mistral", "sliding_window": 100});
    let lengths = [90, 1, 1500, 33, 1030, 2, 700, 300, 64, 65, 5];
    for model in [random(serde_json::json!({})), random(scaled), random(window)] {
        let request = |(i, &length): (usize, &u32)| TokenRequest {
            ids: (0..length).map(|j| (j * 31 + i as u32 * 17) % 96).collect(),
            sampling: Sampling { max_tokens: 3, logprobs: true, ..Sampling::greedy() },
        };
        let requests: Vec<_> = lengths.iter().enumerate().map(request).collect();
        let alone: Vec<_> = requests
            .iter()
            .map(|request| all(&model, std::slice::from_ref(request), &[], 1).remove(0))
            .collect();
        for batch in [4, 11] {
            assert_eq!(all(&model, &requests, &[], batch), alone, "{batch} at a time");
        }
    }
}

#[test]
fn parts_that_do_not_fit_the_cache_are_refused() {
    let model = load("llama3");
    let mut cache = KvCache::new(&model, 2);
    let mut message = |parts: &[(usize, &[u32])]| {
        let error = model.forward_cached(parts, &mut cache).unwrap_err().to_string();
        assert!(cache.is_empty(), "nothing is kept of a pass that is refused");
        error
    };
    assert_eq!(message(&[]), "the list of sequences is empty, expected at least one");
    assert_eq!(
        message(&[(1, &[5]), (1, &[6])]),
        "the list of sequences is [1, 1], expected different ones below 2"
    );
    assert_eq!(
        message(&[(0, &[5]), (2, &[6])]),
        "the list of sequences is [0, 2], expected different ones below 2"
    );
    assert_eq!(
        message(&[(0, &[5]), (1, &[])]),
        "the number of new ids of sequence 1 is 0, expected at least one"
    );
    assert_eq!(message(&[(0, &[5, 96])]), "a token id is 96, expected below 96");
}

#[test]
fn a_model_in_training_samples_as_another() {
    let requests = mixed(3);
    let plain = all(&load("qwen3"), &requests, &[], 3);
    let tracked = Decoder::load(models().join("qwen3"), &device().autodiff()).unwrap();
    assert_eq!(all(&tracked, &requests, &[], 3), plain);
}

#[test]
fn a_bad_request_fails_alone() {
    let model = load("llama3");
    let good = mixed(1).remove(0);
    let bad = |ids: Vec<u32>, sampling| TokenRequest { ids, sampling };
    let requests = [
        bad(vec![], Sampling::greedy()),
        good.clone(),
        bad(vec![5, 96], Sampling::greedy()),
        bad(vec![5], Sampling { top_p: 0.0, ..Sampling::default() }),
        bad(vec![5; 100_000], Sampling::greedy()),
    ];
    let answers = model.continue_ids(&requests, &[], 4, &mut |_, _| Next::Continue);
    let message = |at: usize| answers[at].as_ref().unwrap_err().to_string();
    assert_eq!(message(0), "the prompt is empty, expected at least one token");
    assert_eq!(answers[1].as_ref().unwrap(), &all(&model, &[good], &[], 1)[0]);
    assert_eq!(message(2), "a token id of the prompt is 96, expected below 96");
    assert_eq!(message(3), "`top_p` is 0, expected above 0, at most 1");
    assert!(
        message(4).starts_with("the length of the prompt is 100000, expected below the context")
    );
}

#[test]
fn one_request_or_all_can_be_cancelled() {
    let model = load("llama3");
    let requests: Vec<_> = mixed(5)
        .into_iter()
        .map(|request| {
            let sampling = Sampling { max_tokens: 8, ..request.sampling };
            TokenRequest { sampling, ..request }
        })
        .collect();
    let whole = all(&model, &requests, &[], 2);
    let mut heard = 0;
    let answers = model.continue_ids(&requests, &[], 2, &mut |request, _| {
        heard += usize::from(request == 1);
        if request == 1 && heard == 3 { Next::Cancel } else { Next::Continue }
    });
    for (index, answer) in answers.into_iter().map(Result::unwrap).enumerate() {
        if index == 1 {
            assert_eq!(answer.finish_reason, FinishReason::Cancelled);
            assert_eq!(answer.ids, whole[1].ids[..3]);
        } else {
            assert_eq!(answer, whole[index]);
        }
    }
    let mut tokens = 0;
    let answers = model.continue_ids(&requests, &[], 2, &mut |_, _| {
        tokens += 1;
        if tokens == 5 { Next::CancelAll } else { Next::Continue }
    });
    assert_eq!(tokens, 5, "nothing is drawn afterwards");
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| answer.finish_reason == FinishReason::Cancelled));
    // What was drawn by then is kept.
    assert!(answers[0].ids.len() >= 2 && whole[0].ids.starts_with(&answers[0].ids));
    assert!(answers[4].ids.is_empty());
}

/// A model over the vocabulary of the tokenizer of the chat fixtures.
fn talker() -> Generator {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat_templates/tokenizer");
    let template = ChatTemplate::builtin(Builtin::ChatMl);
    let chat = ChatTokenizer::from_model_with_template(folder, template).unwrap();
    let vocab_size = chat.tokenizer().get_vocab_size(true);
    let model = random(serde_json::json!({"vocab_size": vocab_size}));
    Generator::new(model, chat, GenerationConfig::default())
}

#[test]
fn texts_stream_and_stop_at_stop_strings() {
    let talker = talker();
    let sampling = Sampling { max_tokens: 40, temperature: 1.2, seed: 3, ..Sampling::default() };
    let request = |sampling: &Sampling| Request::new("Hello there", sampling.clone());
    let whole = talker.generate(&[request(&sampling)]).remove(0).unwrap();
    assert!(whole.text.chars().count() > 20, "{whole:?}");
    assert_eq!(whole.completion_tokens, whole.token_ids.len());
    // A stop string out of the middle of the text, whatever tokens it lies over.
    let middle: String = whole.text.chars().skip(9).take(4).collect();
    let before = &whole.text[..whole.text.find(&middle).unwrap()];
    let stopped = Sampling { stop: vec!["not there".into(), middle], ..sampling.clone() };
    let mut pieces = String::new();
    let answer = talker
        .stream(&[request(&stopped)], &mut |piece| {
            pieces += piece.text;
            Next::Continue
        })
        .remove(0)
        .unwrap();
    assert_eq!(answer.text, before);
    assert_eq!(pieces, before);
    assert_eq!(answer.finish_reason, FinishReason::Stop);
    assert!(answer.token_ids.len() < whole.token_ids.len());
}

#[test]
fn conversations_go_through_the_template() {
    let talker = talker();
    let chat: posttrain_core::Conversation = serde_json::from_value(serde_json::json!({
        "messages": [{"role": "user", "content": "Hi"}]
    }))
    .unwrap();
    let ids = talker.encode(&chat.clone().into()).unwrap();
    let text = talker.tokenizer().decode(&ids, false).unwrap();
    assert!(text.contains("user") && text.contains("Hi") && text.contains("assistant"), "{text}");
    let sampling = Sampling { max_tokens: 3, ..Sampling::greedy() };
    let answer = talker.generate(&[Request::new(chat, sampling)]).remove(0).unwrap();
    assert_eq!(answer.prompt_tokens, ids.len());
}
