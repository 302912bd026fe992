//! Real and tiny configurations, read as transformers reads them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use posttrain_model::Error;
use posttrain_model::config::{Activation, Config, GenerationConfig};
use posttrain_model::rope::RopeScaling;
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models"))
}

fn json_file(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn read(json: &Value) -> Result<Config, Error> {
    Config::from_json(Path::new("config.json"), json)
}

fn error(json: &Value) -> String {
    read(json).unwrap_err().to_string()
}

#[test]
fn every_tiny_model_is_read() {
    let mut models = 0;
    for folder in children(&fixtures()) {
        if !folder.join("config.json").exists() {
            continue;
        }
        let config = Config::from_model(&folder).unwrap();
        let generation = GenerationConfig::from_model(&folder, &config).unwrap();
        assert_eq!(generation.eos_token_ids, [2], "{folder:?}");
        assert!(generation.unsupported.is_empty(), "{folder:?}: {:?}", generation.unsupported);
        assert!(generation.sampling().is_greedy());
        assert_eq!(config.dtype.as_deref(), Some("float32"));
        models += 1;
    }
    assert!(models >= 10, "{models}");
}

#[test]
fn released_configs_are_resolved_as_transformers_resolves_them() {
    let paths = children(&fixtures().join("old_configs"));
    let expected_name = |path: &Path| path.with_extension("expected.json");
    let inputs: Vec<_> = paths.iter().filter(|path| expected_name(path).exists()).collect();
    assert!(inputs.len() >= 20, "{}", inputs.len());
    for path in inputs {
        let config = Config::from_json(path, &json_file(path)).unwrap();
        let expected = json_file(&expected_name(path));
        let name = path.file_stem().unwrap().display();
        let sizes = [
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("num_key_value_heads", config.num_key_value_heads),
            ("head_dim", config.head_dim),
            ("intermediate_size", config.intermediate_size),
            ("vocab_size", config.vocab_size),
        ];
        for (key, found) in sizes {
            assert_eq!(expected[key], found, "{name}: {key}");
        }
        assert_eq!(expected["model_type"], config.architecture.model_type(), "{name}");
        assert_eq!(expected["tie_word_embeddings"], config.tie_word_embeddings, "{name}");
        assert_eq!(expected["rms_norm_eps"].as_f64().unwrap() as f32, config.rms_norm_eps);
        let activation = match expected["hidden_act"].as_str().unwrap() {
            "silu" => Activation::Silu,
            "gelu_pytorch_tanh" => Activation::GeluTanh,
            other => panic!("{name}: {other}"),
        };
        assert_eq!(activation, config.hidden_act, "{name}");
        assert_eq!(config.layers.len(), config.num_hidden_layers, "{name}");
        for (i, layer) in config.layers.iter().enumerate() {
            // Families without `layer_types` have a window on every layer or on none.
            let kind = expected["layer_types"].get(i).and_then(Value::as_str);
            let window = match kind {
                Some("full_attention") => None,
                _ => expected["sliding_window"].as_u64(),
            };
            assert_eq!(layer.sliding_window.map(|w| w as u64), window, "{name}: layer {i}");
            let Some(rope) = layer.rope else { continue };
            let table = &expected["rope"];
            let expected = table.get("all").or_else(|| table.get(kind?)).unwrap();
            let rope = &config.ropes[rope];
            let found = rope.inv_freq(1);
            assert_eq!(expected["count"], found.len(), "{name}");
            near(&found[..4], &expected["first"]);
            near(&found[found.len() - 4..], &expected["last"]);
            near(&[rope.attention_factor()], &json!([expected["attention_scaling"]]));
        }
    }
}

/// Within two units in the last place: the power functions of torch and of libm differ.
fn near(found: &[f32], expected: &Value) {
    let expected: Vec<_> =
        expected.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.to_bits().abs_diff(expected.to_bits()) <= 2, "{found} {expected}");
    }
}

#[test]
fn silent_files_take_the_defaults_of_their_class() {
    let config = |model_type: &str| read(&json!({ "model_type": model_type })).unwrap();
    let window = |config: &Config, i: usize| config.layers[i].sliding_window;

    let llama = config("llama");
    assert_eq!((llama.num_key_value_heads, llama.head_dim), (32, 128));
    assert_eq!(llama.eos_token_ids, [2]);
    assert_eq!(llama.attention_multiplier, 128f32.sqrt().recip());

    let mistral = config("mistral");
    assert_eq!((mistral.num_key_value_heads, window(&mistral, 31)), (8, Some(4096)));
    let null =
        json!({"model_type": "mistral", "sliding_window": null, "num_key_value_heads": null});
    let mistral = read(&null).unwrap();
    assert_eq!((mistral.num_key_value_heads, window(&mistral, 31)), (32, None));

    let qwen2 = config("qwen2");
    assert_eq!((window(&qwen2, 31), qwen2.eos_token_ids.len()), (None, 0));
    let used = read(&json!({"model_type": "qwen2", "use_sliding_window": true})).unwrap();
    assert_eq!((window(&used, 27), window(&used, 28)), (None, Some(4096)));
    assert_eq!(config("qwen3").head_dim, 128);

    let gemma2 = config("gemma2");
    assert_eq!((window(&gemma2, 0), window(&gemma2, 1)), (Some(4096), None));
    assert_eq!(gemma2.attn_logit_softcapping, Some(50.0));
    assert_eq!(gemma2.embedding_multiplier, 48.0);
    let uncapped = json!({"model_type": "gemma2", "final_logit_softcapping": null});
    assert_eq!(read(&uncapped).unwrap().final_logit_softcapping, None);

    let gemma3 = config("gemma3_text");
    assert_eq!((window(&gemma3, 4), window(&gemma3, 5)), (Some(4096), None));
    assert_eq!(gemma3.layers.iter().filter(|layer| layer.rope == Some(0)).count(), 4);
    assert_eq!((gemma3.ropes[0].theta, gemma3.ropes[1].theta), (1e6, 1e4));
    assert_eq!(gemma3.attn_logit_softcapping, None);

    let phi3 = json!({"model_type": "phi3", "partial_rotary_factor": 0.75});
    assert_eq!(read(&phi3).unwrap().ropes[0].dim, 72);
    assert_eq!(config("granite").attention_multiplier, 1.0);

    let smollm3 = config("smollm3");
    assert_eq!(smollm3.ropes[0].theta, 2e6);
    let no_rope: Vec<_> = (0..36).filter(|&i| smollm3.layers[i].rope.is_none()).collect();
    assert_eq!(no_rope, [3, 7, 11, 15, 19, 23, 27, 31, 35]);
}

/// All but the words in which it was said.
fn meaning(config: &Config) -> Config {
    Config { json: serde_json::Value::Null, ..config.clone() }
}

#[test]
fn both_spellings_of_rope_mean_the_same() {
    let old = json!({
        "model_type": "llama", "rope_theta": 5e5, "torch_dtype": "bfloat16",
        "rope_scaling": {"type": "yarn", "factor": 4, "finetuned": true},
    });
    let new = json!({
        "model_type": "llama", "dtype": "bfloat16",
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 500_000, "factor": 4.0, "beta_fast": 32,
            "beta_slow": 0, "original_max_position_embeddings": 2048,
        },
    });
    let (old, new) = (read(&old).unwrap(), read(&new).unwrap());
    assert_eq!(meaning(&old), meaning(&new));
    assert!(matches!(old.ropes[0].scaling, RopeScaling::Yarn { beta_slow: 1.0, .. }));

    let old = json!({
        "model_type": "gemma3_text", "rope_theta": 1e6, "rope_local_base_freq": 1e4,
        "sliding_window_pattern": 2, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "num_hidden_layers": 2,
    });
    let new = json!({
        "model_type": "gemma3_text", "num_hidden_layers": 2, "_sliding_window_pattern": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    });
    assert_eq!(meaning(&read(&old).unwrap()), meaning(&read(&new).unwrap()));
}

#[test]
fn unknown_fields_are_listed_together() {
    let strange = json!({
        "model_type": "llama", "hiden_size": 64, "num_experts": 8, "quantisation": null,
        "partial_rotary_factor": 0.5, "use_cache": true, "architectures": ["LlamaForCausalLM"],
        "rope_scaling": {"type": "linear", "factor": 2.0, "faktor": 3},
    });
    assert_eq!(
        error(&strange),
        "config.json: unknown fields that may change the result: \
         `rope_scaling.faktor` = 3 (did you mean `factor`?), \
         `hiden_size` = 64 (did you mean `hidden_size`?), `num_experts` = 8, \
         `partial_rotary_factor` = 0.5"
    );
}

#[test]
fn families_scalings_and_quantization_out_of_reach_are_named() {
    let families =
        "llama, mistral, qwen2, qwen3, gemma2, gemma3_text, phi3, olmo2, granite, smollm3";
    assert_eq!(
        error(&json!({"model_type": "mamba"})),
        format!("config.json: `model_type` is `mamba`, supported are {families}")
    );
    assert_eq!(
        error(&json!({"hidden_size": 4})),
        format!("config.json: `model_type` is absent, supported are {families}")
    );
    assert!(error(&json!({"model_type": "gemma3"})).contains("language model as `gemma3_text`"));
    assert_eq!(
        error(&json!({"model_type": "llama", "rope_scaling": {"type": "longrope"}})),
        "config.json: `rope_scaling.rope_type` is longrope, expected one of default, linear, \
         dynamic, llama3, yarn"
    );
    let phi3 = json!({"model_type": "phi3", "rope_parameters": {"rope_type": "su"}});
    assert_eq!(
        error(&phi3),
        "config.json: `rope_parameters.rope_type` is su, expected one of default"
    );
    let quantized = json!({"model_type": "llama", "quantization_config": {"quant_method": "awq"}});
    assert_eq!(
        error(&quantized),
        "config.json: `quantization_config` is {\"quant_method\":\"awq\"}, expected no \
         quantization: a checkpoint in float32, float16 or bfloat16"
    );
}

#[test]
fn fields_are_checked() {
    let with = |model_type: &str, key: &str, value: Value| {
        error(&json!({ "model_type": model_type, key: value }))
    };
    let message = |text: &str| format!("config.json: {text}");
    assert_eq!(
        with("llama", "hidden_size", json!("4096")),
        message("`hidden_size` is \"4096\", expected an integer of at least 0")
    );
    assert_eq!(
        with("llama", "vocab_size", json!(0)),
        message("`vocab_size` is 0, expected at least 1")
    );
    assert_eq!(
        with("llama", "num_key_value_heads", json!(5)),
        message("`num_key_value_heads` is 5, expected a divisor of num_attention_heads, 32")
    );
    assert_eq!(
        with("llama", "head_dim", json!(7)),
        message(
            "`head_dim` is 7, of which 7 are rotated, expected an even number of rotated \
             components, from 2 to head_dim"
        )
    );
    assert_eq!(
        with("llama", "hidden_size", json!(100)),
        message("`hidden_size` is 100, expected a multiple of num_attention_heads, 32")
    );
    assert_eq!(
        with("qwen3", "layer_types", json!(["full_attention"])),
        message("`layer_types` is 1 entries, expected as many as num_hidden_layers, 32")
    );
    let chunked = json!({
        "model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["chunked_attention"],
    });
    assert!(error(&chunked).contains("`layer_types` is chunked_attention, expected full_att"));
    let unused = json!({
        "model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["sliding_attention"],
    });
    assert!(error(&unused).starts_with("config.json: `sliding_window` is not set, expected a win"));
    assert!(with("mistral", "sliding_window", json!(0)).contains("expected at least 1"));
    assert!(with("llama", "hidden_act", json!("relu")).contains("expected one of silu"));
    assert!(with("gemma2", "hidden_act", json!("silu")).contains("that of hidden_activation"));
    assert!(with("gemma2", "use_bidirectional_attention", json!(true)).contains("unknown fields"));
    assert!(with("gemma3_text", "attn_logit_softcapping", json!(50)).contains("expected null"));
    assert!(with("smollm3", "no_rope_layers", json!([1])).contains("for each of 36 layers"));
    assert!(with("llama", "rope_scaling", json!({"type": "linear"})).contains("is absent"));
    let old_name = json!({"type": "linear", "factor": 8.0});
    assert!(with("gemma3_text", "rope_scaling", old_name).contains("`rope_scaling.rope_type` is"));
    let two = json!({
        "model_type": "llama", "rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5},
    });
    assert!(error(&two).contains("`rope_theta` is 10000, expected the 500000 of the nested"));
    assert!(error(&json!([])).contains("the top level"));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let missing = Config::from_model(Path::new("/no/such/folder")).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), "{").unwrap();
    let broken = Config::from_model(folder.path()).unwrap_err();
    assert!(matches!(broken, Error::Json { .. }), "{broken}");
}
