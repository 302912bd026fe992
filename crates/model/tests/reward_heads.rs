//! Heads that score, against transformers and torch.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::path::PathBuf;

use burn::module::Module as _;
use burn::tensor::{Tensor, TensorData};
use posttrain_model::adapter::LoraConfig;
use posttrain_model::checkpoint::{Checkpoint, SaveOptions};
use posttrain_model::config::Head;
use posttrain_model::{Activations, Batch, Decoder, Error, Generator, Gradients, LoadOptions};
use support::rewards::{Case, folder, load};
use support::{device, distance, models, numbers};

/// Cases with a batch, and whether the head reads the last token alone.
const BATCHES: [(&str, bool); 6] = [
    ("sequence_llama", true),
    ("sequence_qwen3", true),
    ("sequence_gemma2", true),
    ("sequence_gemma3", true),
    ("token_qwen2", false),
    ("qwen_prm", false),
];

/// The gradient of the mean of the squared scores.
fn by_scores(scores: &Tensor<2>) -> Tensor<2> {
    let [rows, labels] = scores.dims();
    scores.clone().mul_scalar(2.0 / (rows * labels) as f32)
}

/// The gradients of that mean by all that is trained.
fn gradients(model: &Decoder, case: &Case, last: bool, activations: Activations) -> Gradients {
    let places = case.places(model, last);
    let mut gradients = Gradients::default();
    model.backward(&case.batch, None, activations, &mut gradients, |hidden, gradients| {
        let by_scores = by_scores(&model.scores(hidden.clone(), &places));
        model.scores_backward(hidden, &places, by_scores, gradients)
    });
    gradients
}

/// That the gradients are those of a file, no more and no fewer.
fn assert_gradients(name: &str, found: &Gradients, known: Vec<(String, Vec<f32>)>) {
    let mut names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(found.iter().map(|(name, _)| name).collect::<Vec<_>>(), names, "{name}");
    let mut worst = 0.0_f32;
    for (parameter, known) in &known {
        let found = numbers(found.get(parameter).unwrap().clone());
        let largest = known.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let off = distance(&found, known) / largest;
        assert!(off < 1e-4, "{name}: gradient of {parameter} is off by {off:e}");
        worst = worst.max(off);
    }
    println!("{name:20} gradients {worst:.1e}");
}

#[test]
fn scores_are_those_of_transformers() {
    for (name, last) in BATCHES {
        let (model, case) = (load(name), Case::open(name));
        let places = case.places(&model, last);
        let found = numbers(model.scores(model.forward(&case.batch), &places));
        let off = distance(&found, &case.scores(&places, last));
        println!("{name:20} {off:.1e}");
        assert!(off < 1e-4, "{name}: {off:e}");
    }
}

#[test]
fn gradients_are_those_of_torch() {
    for (name, last) in BATCHES {
        let path = folder(name).join("gradients.safetensors");
        if !path.exists() {
            continue;
        }
        let (model, case) = (load(name), Case::open(name));
        let known = support::Expected::read(&path);
        let known = known.names().into_iter().filter(|name| name != "loss").map(|name| {
            let numbers = known.floats(&name).0;
            (name, numbers)
        });
        let known: Vec<_> = known.collect();
        for activations in [Activations::Keep, Activations::Recompute] {
            assert_gradients(name, &gradients(&model, &case, last, activations), known.clone());
        }
    }
}

#[test]
fn a_frozen_head_gets_no_gradient() {
    let (model, case) = (load("sequence_llama"), Case::open("sequence_llama"));
    let model = model.with_trainable(|name| name == "model.norm.weight");
    let found = gradients(&model, &case, true, Activations::Keep);
    assert_eq!(found.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["model.norm.weight"]);
}

/// Every tensor of a folder: name, shape, bytes.
fn tensors(folder: &std::path::Path) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    let of = |name: String| {
        let view = checkpoint.get(&name).unwrap();
        (name, view.shape.to_vec(), view.bytes.to_vec())
    };
    names.into_iter().map(of).collect()
}

#[test]
fn every_head_is_written_back_as_it_was_read() {
    let others = ["skywork_prm", "language_prm"];
    for name in BATCHES.iter().map(|(name, _)| *name).chain(others) {
        let saved = tempfile::tempdir().unwrap();
        load(name).save(saved.path(), &SaveOptions::default()).unwrap();
        assert_eq!(tensors(&folder(name)), tensors(saved.path()), "{name}");
        let json = |folder: &std::path::Path| support::adapted::json(&folder.join("config.json"));
        assert_eq!(json(&folder(name)), json(saved.path()), "{name}");
        let (before, after) = (load(name), Decoder::load(saved.path(), &device()).unwrap());
        assert_eq!(before.config().head, after.config().head, "{name}");
    }
}

/// A language model beside a value head has logits, and the prefix is no part of a parameter's name.
#[test]
fn a_value_head_stands_beside_the_language_model() {
    let model = load("skywork_prm");
    assert_eq!(model.config().head, Head::Value { lm_head: true, prefixed: true });
    assert!(model.parameters().iter().any(|p| p.name == "v_head.summary.bias"));
    assert!(model.parameters().iter().all(|p| !p.name.starts_with("pretrained")));
    let batch = Batch::padded(&[&[10, 11]], 0).unwrap();
    assert_eq!(model.logits(model.forward(&batch)).dims(), [1, 2, model.config().vocab_size]);
    // Also without a word in `config.json`, as TRL saves it.
    let saved = tempfile::tempdir().unwrap();
    let llama = Decoder::load(models().join("llama_gqa"), &device()).unwrap();
    let llama = llama.with_head(Head::Value { lm_head: false, prefixed: false }, 1).unwrap();
    llama.save(saved.path(), &SaveOptions::default()).unwrap();
    let again = Decoder::load(saved.path(), &device()).unwrap();
    assert_eq!(again.config().head, Head::Value { lm_head: true, prefixed: false });
    assert!(Generator::load(folder("skywork_prm"), &device()).is_ok());
}

#[test]
fn a_new_head_is_drawn_saved_and_loaded() {
    for (case, head, class) in [
        ("llama_gqa", Head::Sequence { labels: 1 }, "LlamaForSequenceClassification"),
        ("gemma3_text", Head::Sequence { labels: 3 }, "Gemma3TextForSequenceClassification"),
        ("qwen3", Head::Token { labels: 2, bias: true }, "Qwen3ForTokenClassification"),
        ("smollm3", Head::Token { labels: 2, bias: false }, "SmolLM3ForTokenClassification"),
        ("qwen2", Head::Perceptron { labels: 2, lm_head: false }, "Qwen2ForProcessRewardModel"),
    ] {
        let base = Decoder::load(models().join(case), &device()).unwrap();
        let model = base.clone().with_head(head, 7).unwrap();
        assert!(model.lm_head.is_none());
        let saved = tempfile::tempdir().unwrap();
        model.save(saved.path(), &SaveOptions::default()).unwrap();
        let again = Decoder::load(saved.path(), &device()).unwrap();
        assert_eq!(again.config().head, head, "{case}");
        assert_eq!(again.config().json["architectures"][0], class);
        // To be loaded in transformers: see the README of the fixtures.
        if let Some(folder) = std::env::var_os("POSTTRAIN_SAVED").map(PathBuf::from) {
            model.save(folder.join(case), &SaveOptions::default()).unwrap();
        }
        let batch = Batch::padded(&[&[10, 11, 12]], 0).unwrap();
        let scores = |model: &Decoder| numbers(model.scores(model.forward(&batch), &[0, 2]));
        assert_eq!(scores(&model), scores(&again), "{case}");
        let other = |seed| scores(&base.clone().with_head(head, seed).unwrap());
        assert_eq!(other(7), scores(&model));
        assert_ne!(other(8), scores(&model));
    }
    // Numbers are spread as `initializer_range` says.
    let base = Decoder::load(models().join("llama_gqa"), &device()).unwrap();
    let model = base.with_head(Head::Sequence { labels: 500 }, 1).unwrap();
    let weight = model.named("score.weight");
    let square = weight.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / weight.len() as f64;
    assert!((square.sqrt() - 0.02).abs() < 1e-3, "{}", square.sqrt());
}

/// A parameter's numbers.
trait Named {
    fn named(&self, name: &str) -> Vec<f32>;
}

impl Named for Decoder {
    fn named(&self, name: &str) -> Vec<f32> {
        let mut found = Vec::new();
        let _ = self.clone().with_trainable(|n| n == name).map_trainable(&mut |_, tensor| {
            found = numbers(tensor.clone());
            tensor
        });
        found
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let input = |result: Result<Decoder, Error>| result.map(drop).unwrap_err().to_string();
    let base = |case: &str| Decoder::load(models().join(case), &device()).unwrap();
    let one = Head::Sequence { labels: 1 };
    let error = input(base("granite").with_head(one, 1));
    assert!(error.contains("expected one that the family granite has"), "{error}");
    let token = Head::Token { labels: 2, bias: true };
    assert!(input(base("gemma3_text").with_head(token, 1)).contains("gemma3_text"));
    assert!(input(base("olmo2").with_head(Head::Sequence { labels: 0 }, 1)).contains("a label"));
    assert!(input(base("olmo2").with_head(Head::Language, 1)).contains("one that scores"));
    let mut adapted = base("llama_gqa");
    adapted.add_adapter("a", &LoraConfig::default(), 1).unwrap();
    assert!(input(adapted.with_head(one, 1)).contains("`merge_and_unload`"));

    let error = Generator::load(folder("sequence_llama"), &device()).map(drop).unwrap_err();
    assert!(matches!(error, Error::NoLogits { head: Head::Sequence { labels: 1 }, .. }), "{error}");

    // A head too many, a head too few, a head of another width.
    let (edited, name) = (tempfile::tempdir().unwrap(), "sequence_llama");
    let weights = folder(name).join("model.safetensors");
    std::fs::copy(weights, edited.path().join("model.safetensors")).unwrap();
    let mut json = support::adapted::json(&folder(name).join("config.json"));
    let mut error = |key: &str, value: serde_json::Value| {
        json[key] = value;
        std::fs::write(edited.path().join("config.json"), json.to_string()).unwrap();
        input(Decoder::load(edited.path(), &device()))
    };
    let wide = error("id2label", serde_json::json!({"0": "a", "1": "b"}));
    assert!(wide.contains("shape of score.weight: found [1, 32], expected [2, 32]"), "{wide}");
    let token = error("architectures", serde_json::json!(["LlamaForTokenClassification"]));
    assert!(token.contains("missing: score.bias"), "{token}");
    let language = error("architectures", serde_json::json!(["LlamaForCausalLM"]));
    assert!(language.contains("missing: lm_head.weight"), "{language}");
    assert!(language.contains("unexpected: score.weight"), "{language}");
}

#[test]
#[should_panic(expected = "has no logits")]
fn a_model_that_scores_has_no_logits() {
    let model = load("sequence_llama");
    let _ = model.logits(model.forward(&Batch::padded(&[&[10]], 0).unwrap()));
}

#[test]
#[should_panic(expected = "no head that scores")]
fn a_language_model_has_no_scores() {
    let model = load("language_prm");
    let _ = model.scores(model.forward(&Batch::padded(&[&[10]], 0).unwrap()), &[0]);
}

/// A quantised base under a dense head.
#[test]
fn the_head_stays_dense_when_layers_are_quantised() {
    let quantization = serde_json::from_value(serde_json::json!({"load_in_8bit": true})).unwrap();
    let options = LoadOptions { quantization: Some(quantization), ..LoadOptions::default() };
    let model = Decoder::load_with(folder("qwen_prm"), &device(), &options).unwrap();
    assert!(model.quantized_modules().iter().all(|path| path.starts_with("model.layers.")));
    assert!(model.parameters().iter().any(|parameter| parameter.name == "score.2.weight"));
    let unused = |p: &posttrain_model::Parameter| p.name == "lm_head.weight" && !p.trainable;
    assert!(model.parameters().iter().any(unused));
}

/// The logits of a few tokens are those of all, also where the matrix is tied, scaled, capped or
/// adapted; and so are their gradients.
#[test]
fn logits_of_a_few_tokens() {
    let lora = |json: serde_json::Value| serde_json::from_value::<LoraConfig>(json).unwrap();
    let head = serde_json::json!({"r": 2, "target_modules": ["lm_head", "q_proj"],
        "init_lora_weights": false});
    let mut dora = head.clone();
    dora["use_dora"] = true.into();
    let mut pissa = head.clone();
    pissa["init_lora_weights"] = "pissa".into();
    for (case, adapter) in [
        ("llama_gqa", None),
        ("gemma2", None),
        ("granite", None),
        ("llama_gqa", Some(lora(head.clone()))),
        ("llama3", Some(lora(head))),
        ("gemma2", Some(lora(dora))),
        ("granite", Some(lora(pissa))),
    ] {
        let mut model = Decoder::load(models().join(case), &device()).unwrap();
        if let Some(config) = &adapter {
            model.add_adapter("a", config, 3).unwrap();
        }
        let batch = Batch::padded(&[&[5, 6, 7, 8], &[9, 10]], 0).unwrap();
        let (places, ids) = ([1, 3, 5], [40, 7]);
        let chosen = |logits: Tensor<3>| {
            let [_, _, vocab] = logits.dims();
            let all = logits.reshape([8, vocab as isize]);
            let rows = places.map(|place| all.clone().narrow(0, place, 1));
            let rows = Tensor::cat(rows.to_vec(), 0);
            Tensor::cat(ids.map(|id| rows.clone().narrow(1, id as usize, 1)).to_vec(), 1)
        };
        let hidden = model.forward(&batch);
        let few = numbers(model.token_logits(hidden.clone(), &places, &ids));
        let off = distance(&few, &numbers(chosen(model.logits(hidden.clone()))));
        assert!(off < 1e-5, "{case}: {off:e}");

        let factors = [0.3_f32, -0.7, 0.9, 0.2, -0.4, 0.5];
        let factors = TensorData::new(factors.to_vec(), [3, 2]);
        let factors = Tensor::<2>::from_data(factors, &model.device());
        let tracked = model.clone().train();
        let inner = Tensor::from_inner(hidden.clone()).require_grad();
        let loss =
            (chosen(tracked.logits(inner.clone())) * Tensor::from_inner(factors.clone())).sum();
        let found = loss.backward();
        let mut gradients = Gradients::default();
        let by_hidden = model.token_logits_backward(hidden, &places, &ids, factors, &mut gradients);
        let off = distance(&numbers(by_hidden), &numbers(inner.grad(&found).unwrap()));
        assert!(off < 1e-5, "{case}: by the hidden states {off:e}");
        let mut known = Vec::new();
        if let Some(head) = &tracked.lm_head {
            let (a, b) = (&head.lora_A, &head.lora_B);
            let parts = [("lm_head.lora_A.weight", a), ("lm_head.lora_B.weight", b)];
            known.extend(parts.into_iter().filter_map(|(name, factor)| {
                Some((name.to_owned(), numbers(factor.as_ref()?.weight.val().grad(&found)?)))
            }));
            let weight = head.weight.dense().unwrap().val().grad(&found);
            known.extend(weight.map(|weight| ("lm_head.weight".to_owned(), numbers(weight))));
            let magnitude = head.lora_magnitude_vector.as_ref().map(|m| m.val().grad(&found));
            let name = "lm_head.lora_magnitude_vector".to_owned();
            known.extend(magnitude.flatten().map(|m| (name, numbers(m))));
        } else {
            let weight = tracked.model.embed_tokens.weight.val().grad(&found).unwrap();
            known.push(("model.embed_tokens.weight".to_owned(), numbers(weight)));
        }
        assert_gradients(case, &gradients, known);
    }
}
