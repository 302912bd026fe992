//! The model that the bench programs train.

use std::path::Path;

use posttrain_model::config::Config;
use posttrain_model::{Decoder, device};

/// A Llama of 32 million parameters with random weights, on the CPU.
pub(crate) fn llama_32m() -> Decoder {
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 512,
        "intermediate_size": 1408,
        "max_position_embeddings": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": 8,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
        "vocab_size": 8192,
    });
    let config = Config::from_json(Path::new("config.json"), &json).unwrap();
    Decoder::random(&config, 0.02, 1, &device::open("flex").unwrap()).unwrap()
}
