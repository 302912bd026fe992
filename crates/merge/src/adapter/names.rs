//! What the names of a checkpoint's tensors say about their modules, and which names a configuration gets.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::write::NewAdapter;
use crate::checkpoint::Checkpoint;

/// Embeddings by the ends of their paths.
const EMBEDDINGS: &[&str] = &[
    "embed_tokens",
    "wte",
    "wpe",
    "embed_in",
    "embed_positions",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "tok_embeddings",
    "shared",
    "relative_attention_bias",
];
/// Embeddings of tokens, which a head may share, and its name.
const TIED: &[&str] = &["embed_tokens", "wte", "embed_in", "word_embeddings", "shared"];
const HEAD: &str = "lm_head.weight";
/// Linear layers over the vocabulary.
const HEADS: &[&str] = &["lm_head", "embed_out", "output_layer"];
/// Families whose layers are transformers' `Conv1D`, stored as (in, out), and the ends of their paths.
const CONV1D_FAMILIES: &[&str] =
    &["gpt2", "openai-gpt", "decision_transformer", "imagegpt", "ctrl"];
const CONV1D: &[&str] = &["c_attn", "q_attn", "c_proj", "c_fc"];

/// Whether a weight has a row for each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vocabulary {
    No,
    /// Looked up.
    Embedding,
    /// Multiplied by.
    Head,
}

/// The path of a tensor's module.
pub(super) fn module_of(tensor: &str) -> &str {
    tensor.rsplit_once('.').map_or(tensor, |(module, _)| module)
}

pub(super) fn vocabulary(tensor: &str, shape: &[usize], config: &Map<String, Value>) -> Vocabulary {
    let last = module_of(tensor).rsplit('.').next().unwrap_or(tensor);
    let size = config.get("vocab_size").or_else(|| config.get("text_config")?.get("vocab_size"));
    let rows = size.and_then(Value::as_u64).map(|size| size as usize);
    if HEADS.contains(&last) {
        Vocabulary::Head
    } else if EMBEDDINGS.contains(&last)
        || last.contains("embed") && rows.is_some() && shape.first() == rows.as_ref()
    {
        Vocabulary::Embedding
    } else {
        Vocabulary::No
    }
}

/// Whether a model has layers that are stored as (in, out).
pub(super) fn has_conv1d(config: &Map<String, Value>) -> bool {
    config
        .get("model_type")
        .and_then(Value::as_str)
        .is_some_and(|family| CONV1D_FAMILIES.contains(&family))
}

/// Whether a module of such a model is one.
pub(super) fn is_conv1d(module: &str) -> bool {
    module.rsplit('.').next().is_some_and(|last| CONV1D.contains(&last))
}

/// PEFT's name for what a model does.
pub(super) fn task_type(config: &Map<String, Value>) -> Option<String> {
    let class = config.get("architectures")?.get(0)?.as_str()?;
    let ends = [
        ("ForCausalLM", "CAUSAL_LM"),
        ("LMHeadModel", "CAUSAL_LM"),
        ("ForSequenceClassification", "SEQ_CLS"),
        ("ForTokenClassification", "TOKEN_CLS"),
        ("ForQuestionAnswering", "QUESTION_ANS"),
    ];
    ends.iter().find(|(end, _)| class.ends_with(end)).map(|(_, task)| (*task).to_owned())
}

/// Takes all tensors of the modules that are saved as a whole.
pub(super) fn save_whole(tuned: &Checkpoint, new: &mut NewAdapter) {
    new.modules_to_save.sort();
    new.modules_to_save.dedup();
    for (name, tensor) in tuned.tensors() {
        if new.modules_to_save.iter().any(|module| module == module_of(name)) {
            new.whole.insert(name.clone(), tensor.clone());
        }
    }
}

/// Short names for the configuration where they mean the same modules.
pub(super) fn choose(tuned: &Checkpoint, new: &mut NewAdapter) {
    let all: BTreeSet<&str> = tuned.tensors().keys().map(|name| module_of(name)).collect();
    let dotted = |path: &str, end: &str| path == end || path.ends_with(&format!(".{end}"));
    let adapted: Vec<&str> = new.modules.keys().map(String::as_str).collect();
    new.target_modules = shortened(&all, &adapted, dotted);
    // PEFT compares the ends of paths here, wherever a name begins.
    let saved: Vec<&str> = new.modules_to_save.iter().map(String::as_str).collect();
    let to_save = shortened(&all, &saved, |path, end| path.ends_with(end));
    new.modules_to_save = to_save;
    tie(tuned, new);
}

/// Whether the head of a checkpoint is the matrix of its embeddings, stored once.
pub(super) fn is_tied(checkpoint: &Checkpoint) -> bool {
    let tied = checkpoint.config().get("tie_word_embeddings").and_then(Value::as_bool);
    tied == Some(true) && !checkpoint.tensors().contains_key(HEAD)
}

/// Embeddings that are the head as well stand in the file twice, as PEFT writes them with
/// `ensure_weight_tying`.
fn tie(tuned: &Checkpoint, new: &mut NewAdapter) {
    if !is_tied(tuned) {
        return;
    }
    let is_embedding = |name: &&String| TIED.iter().any(|end| module_of(name).ends_with(end));
    if let Some(tensor) = new.whole.keys().find(is_embedding).map(|name| new.whole[name].clone()) {
        new.whole.insert(HEAD.to_owned(), tensor);
        new.ensure_weight_tying = true;
    }
}

fn shortened(
    all: &BTreeSet<&str>,
    chosen: &[&str],
    matches: impl Fn(&str, &str) -> bool,
) -> Vec<String> {
    let chosen: BTreeSet<&str> = chosen.iter().copied().collect();
    let mut names = BTreeSet::new();
    for path in &chosen {
        let last = path.rsplit('.').next().unwrap_or(path);
        let means_more = all.iter().any(|other| matches(other, last) && !chosen.contains(other));
        names.insert(if means_more { *path } else { last });
    }
    names.into_iter().map(str::to_owned).collect()
}
