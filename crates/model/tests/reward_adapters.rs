//! Adapters of PEFT that classify: `SEQ_CLS` and `TOKEN_CLS`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use posttrain_model::adapter::{AdapterSave, LoraConfig, Merge};
use posttrain_model::{Activations, Decoder, Gradients};
use support::rewards::{Case, folder, load};
use support::{device, distance, models, numbers};

const CASES: [(&str, &str, bool); 2] =
    [("adapter_seq_cls", "sequence_llama", true), ("adapter_token_cls", "token_qwen2", false)];

fn adapted(name: &str, base: &str) -> Decoder {
    let mut model = load(base);
    model.load_adapter(folder(name), "default").unwrap();
    model
}

fn scores(model: &Decoder, case: &Case, last: bool) -> Vec<f32> {
    numbers(model.scores(model.forward(&case.batch), &case.places(model, last)))
}

#[test]
fn scores_and_gradients_are_those_of_peft() {
    for (name, base, last) in CASES {
        let (model, case) = (adapted(name, base), Case::open(name));
        let places = case.places(&model, last);
        let off = distance(&scores(&model, &case, last), &case.scores(&places, last));
        assert!(off < 1e-4, "{name}: {off:e}");
        let mut gradients = Gradients::default();
        let keep = Activations::Keep;
        model.backward(&case.batch, None, keep, &mut gradients, |hidden, gradients| {
            let scores = model.scores(hidden.clone(), &places);
            let [rows, labels] = scores.dims();
            let by_scores = scores.mul_scalar(2.0 / (rows * labels) as f32);
            model.scores_backward(hidden, &places, by_scores, gradients)
        });
        let names = case.expected.names();
        let known = names.iter().filter_map(|key| key.strip_prefix("gradient.base_model.model."));
        let mut known: Vec<&str> = known.collect();
        known.sort_unstable();
        assert_eq!(gradients.iter().map(|(name, _)| name).collect::<Vec<_>>(), known, "{name}");
        for parameter in known {
            let expected = case.expected.floats(&format!("gradient.base_model.model.{parameter}"));
            let found = numbers(gradients.get(parameter).unwrap().clone());
            let largest = expected.0.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            let off = distance(&found, &expected.0) / largest;
            assert!(off < 1e-4, "{name}: gradient of {parameter} is off by {off:e}");
        }
    }
}

#[test]
fn an_adapter_is_written_as_peft_writes_it() {
    for (name, base, last) in CASES {
        let (model, case) = (adapted(name, base), Case::open(name));
        let saved = tempfile::tempdir().unwrap();
        model.save_adapter("default", saved.path(), &AdapterSave::default()).unwrap();
        let tensors = |folder: &std::path::Path| {
            let file = std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&file).unwrap();
            let mut all: Vec<_> =
                file.tensors().into_iter().map(|(n, view)| (n, view.data().to_vec())).collect();
            all.sort();
            all
        };
        assert_eq!(tensors(saved.path()), tensors(&folder(name)), "{name}");
        let json = support::adapted::json(&saved.path().join("adapter_config.json"));
        assert_eq!(json["modules_to_save"], serde_json::json!(["classifier", "score"]));
        let mut again = load(base);
        again.load_adapter(saved.path(), "again").unwrap();
        assert_eq!(scores(&again, &case, last), scores(&model, &case, last));
        // The base is the base, its head included.
        assert_eq!(scores(&model.without_adapter(), &case, last), scores(&load(base), &case, last));
        let merged = model.clone().merge_and_unload(&Merge::default()).unwrap();
        let off = distance(&scores(&merged, &case, last), &scores(&model, &case, last));
        assert!(off < 1e-5, "{name}: {off:e}");
    }
}

#[test]
fn a_task_trains_the_head_as_a_whole() {
    let config = |json: serde_json::Value| serde_json::from_value::<LoraConfig>(json).unwrap();
    let trained = |model: &Decoder| {
        let names = model.parameters().into_iter().filter(|p| p.trainable).map(|p| p.name);
        names.filter(|name| !name.contains(".lora_")).collect::<Vec<_>>()
    };
    let classify = config(serde_json::json!({"task_type": "TOKEN_CLS", "r": 2,
        "target_modules": "all-linear"}));
    let mut model = load("token_qwen2");
    model.add_adapter("a", &classify, 1).unwrap();
    assert_eq!(trained(&model), ["score.weight", "score.bias"]);
    assert!(model.parameters().iter().all(|p| !p.name.starts_with("score.lora")));
    let mut model = load("qwen_prm");
    model.add_adapter("a", &classify, 1).unwrap();
    assert_eq!(
        trained(&model),
        ["score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias"]
    );
    // Without the task the head is named, or stays as it is.
    let mut model = load("skywork_prm");
    let named = serde_json::json!({"target_modules": ["q_proj"], "modules_to_save": ["v_head"]});
    model.add_adapter("a", &config(named), 1).unwrap();
    assert_eq!(trained(&model), ["v_head.summary.weight", "v_head.summary.bias"]);
    let mut model = load("sequence_llama");
    model.add_adapter("a", &LoraConfig::default(), 1).unwrap();
    assert!(trained(&model).is_empty());

    let mut model = Decoder::load(models().join("llama_gqa"), &device()).unwrap();
    let error = model.add_adapter("a", &classify, 1).unwrap_err().to_string();
    assert!(error.contains("`task_type`") && error.contains("`with_head`"), "{error}");
    let mut model = load("sequence_llama");
    let target = config(serde_json::json!({"target_modules": ["score"]}));
    let error = model.add_adapter("a", &target, 1).unwrap_err().to_string();
    assert!(error.contains("trains a norm or a score as a whole"), "{error}");
}

/// A trained embedding is not taken for the output matrix, which there is none of.
#[test]
fn embeddings_may_be_trained_under_a_head_that_scores() {
    let config = serde_json::json!({"target_modules": ["q_proj"], "task_type": "SEQ_CLS",
        "modules_to_save": ["embed_tokens"]});
    let config: LoraConfig = serde_json::from_value(config).unwrap();
    let mut model = load("sequence_qwen3");
    model.add_adapter("a", &config, 1).unwrap();
    assert!(model.lm_head.is_none());
    let saved = tempfile::tempdir().unwrap();
    let [_, weights] = model.save_adapter("a", saved.path(), &AdapterSave::default()).unwrap();
    assert!(weights.exists());
    let merged = model.merge_and_unload(&Merge::default()).unwrap();
    assert!(merged.lm_head.is_none() && merged.config().tie_word_embeddings);
}
