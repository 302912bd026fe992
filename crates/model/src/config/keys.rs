//! Which keys change nothing, and which key a misspelt one was meant to be.

use serde_json::Value;

/// With which values a key changes nothing.
#[derive(Clone, Copy)]
enum Neutral {
    Any,
    False,
    True,
    Zero,
    One,
    Empty,
}

use Neutral::{Any, Empty, False, One, True, Zero};

/// Keys of `config.json` that no family needs: descriptions, and features that are absent here with
/// the value that switches them off. A family that knows one of them reads it before this list is
/// asked.
const CONFIG: &[(&str, Neutral)] = &[
    // Where the file comes from.
    ("_commit_hash", Any),
    ("_name_or_path", Any),
    ("architectures", Any),
    ("auto_map", Any),
    ("is_llama_config", True),
    ("name_or_path", Any),
    ("transformers.js_config", Any),
    ("transformers_version", Any),
    // How transformers runs the model, not what it computes.
    ("_attn_implementation", Any),
    ("_attn_implementation_autoset", Any),
    ("_attn_implementation_internal", Any),
    ("_experts_implementation_internal", Any),
    ("_flash_attn_2_enabled", Any),
    ("attn_implementation", Any),
    ("chunk_size_feed_forward", Any),
    ("experts_implementation", Any),
    ("gradient_checkpointing", Any),
    ("is_decoder", Any),
    ("pretraining_tp", Any),
    ("return_dict", Any),
    ("torchscript", Any),
    ("use_bfloat16", Any),
    ("use_return_dict", Any),
    // Initial weights, the tokenizer's business, classification heads.
    ("classifier_dropout", Any),
    ("finetuning_task", Any),
    ("id2label", Any),
    ("initializer_range", Any),
    ("label2id", Any),
    ("max_sequence_length", Any),
    ("num_labels", Any),
    ("prefix", Any),
    ("problem_type", Any),
    ("sep_token_id", Any),
    ("summary_dropout_prob", Any),
    ("task_specific_params", Any),
    ("tokenizer_class", Any),
    // Features.
    ("add_cross_attention", False),
    ("attention_bias", False),
    ("embd_pdrop", Zero),
    ("full_attn_mod", One),
    ("hidden_dropout", Zero),
    ("interpolate_factor", One),
    ("is_causal", True),
    ("is_encoder_decoder", False),
    ("lm_head_bias", False),
    ("mlp_bias", False),
    ("num_mtp_layers", Zero),
    ("num_nextn_predict_layers", Zero),
    ("partial_rotary_factor", One),
    ("pruned_heads", Empty),
    ("qk_layernorm", False),
    ("resid_pdrop", Zero),
    ("rope_interleaved", False),
    ("tie_encoder_decoder", False),
    ("use_bidirectional_attention", False),
    ("use_mrope", False),
    ("use_qk_norm", False),
];

/// Keys of `generation_config.json`. In a `config.json`, where old versions wrote them too, none
/// of them counts: transformers 5 drops them.
const GENERATION: &[(&str, Neutral)] = &[
    ("assistant_confidence_threshold", Any),
    ("assistant_lookbehind", Any),
    ("bad_words_ids", Empty),
    ("begin_suppress_tokens", Empty),
    ("cache_implementation", Any),
    ("decoder_start_token_id", Any),
    ("disable_compile", Any),
    ("diversity_penalty", Zero),
    ("do_sample", Any),
    ("early_stopping", Any),
    ("encoder_no_repeat_ngram_size", Zero),
    ("encoder_repetition_penalty", One),
    ("epsilon_cutoff", Zero),
    ("eta_cutoff", Zero),
    ("exponential_decay_length_penalty", Empty),
    ("forced_bos_token_id", Empty),
    ("forced_eos_token_id", Empty),
    ("guidance_scale", One),
    ("is_assistant", False),
    ("length_penalty", Any),
    ("max_length", Any),
    ("max_new_tokens", Any),
    ("min_length", Zero),
    ("min_new_tokens", Zero),
    ("no_repeat_ngram_size", Zero),
    ("num_assistant_tokens", Any),
    ("num_assistant_tokens_schedule", Any),
    ("num_beam_groups", One),
    ("num_beams", One),
    ("num_return_sequences", One),
    ("output_attentions", Any),
    ("output_hidden_states", Any),
    ("output_logits", Any),
    ("output_scores", Any),
    ("penalty_alpha", Zero),
    ("remove_invalid_values", Any),
    ("renormalize_logits", Any),
    ("repetition_penalty", Any),
    ("return_dict_in_generate", Any),
    ("suppress_tokens", Empty),
    ("target_lookbehind", Any),
    ("temperature", Any),
    ("token_healing", False),
    ("top_k", Any),
    ("top_p", Any),
    ("typical_p", One),
    ("use_cache", Any),
    ("use_mtp", False),
];

/// Whether this key with this value changes nothing in a `config.json`.
pub(super) fn is_harmless(key: &str, value: &Value) -> bool {
    is_neutral(CONFIG, key, value)
        || GENERATION.iter().any(|&(name, _)| name == key)
        || key.starts_with("unsloth_")
}

/// Whether this key with this value changes nothing in a `generation_config.json`.
pub(super) fn is_harmless_in_generation(key: &str, value: &Value) -> bool {
    let bookkeeping = ["_from_model_config", "bos_token_id", "pad_token_id"].contains(&key);
    bookkeeping
        || is_neutral(GENERATION, key, value)
        || ["_commit_hash", "_name_or_path", "transformers_version"].contains(&key)
}

fn is_neutral(table: &[(&str, Neutral)], key: &str, value: &Value) -> bool {
    table.iter().any(|&(name, neutral)| {
        name == key
            && match neutral {
                Any => true,
                False => value == &Value::Bool(false),
                True => value == &Value::Bool(true),
                Zero => value.as_f64() == Some(0.0),
                One => value.as_f64() == Some(1.0),
                Empty => ["[]", "{}"].contains(&value.to_string().as_str()),
            }
    })
}

/// The key among `asked` and this file's that is at most two edits away, nearest first.
pub(super) fn nearest(key: &str, asked: &[&'static str]) -> Option<&'static str> {
    let tables = CONFIG.iter().chain(GENERATION).map(|pair| pair.0);
    let near = asked.iter().copied().chain(tables).map(|name| (edits(key, name), name));
    // Two edits lead from a short name to anything, hence the last bound.
    let near = near.filter(|&(edits, name)| (1..=2).contains(&edits) && edits * 3 <= name.len());
    near.min_by_key(|&(edits, _)| edits).map(|(_, name)| name)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("rope_teta", "rope_theta"), 1);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
    }

    #[test]
    fn suggestions_are_near_and_never_the_key_itself() {
        assert_eq!(nearest("rope_teta", &["rope_theta", "rope_type"]), Some("rope_theta"));
        assert_eq!(nearest("temprature", &[]), Some("temperature"));
        assert_eq!(nearest("experts", &["rope_theta"]), None);
    }

    #[test]
    fn only_the_neutral_value_is_harmless() {
        assert!(is_harmless("partial_rotary_factor", &json!(1)));
        assert!(is_harmless("partial_rotary_factor", &json!(1.0)));
        assert!(!is_harmless("partial_rotary_factor", &json!(0.5)));
        assert!(!is_harmless("is_causal", &json!(false)));
        assert!(is_harmless("pruned_heads", &json!({})));
        assert!(!is_harmless("pruned_heads", &json!({"0": [1]})));
        assert!(is_harmless("unsloth_version", &json!("2025.1")));
        assert!(is_harmless("num_beams", &json!(4)));
        assert!(!is_harmless_in_generation("num_beams", &json!(4)));
        assert!(is_harmless_in_generation("num_beams", &json!(1)));
    }
}
