//! How the tensors of a model are arranged: stacks of layers, the parts around them, the modules of a
//! model with several towers. Read off the names, so that any architecture will do.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::Checkpoint;

/// Layers with one name and a number: `model.layers.0` to `model.layers.31`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    /// The name before the number, without the dot: `model.layers`.
    pub(crate) prefix: String,
    /// How many layers.
    pub(crate) layers: usize,
}

/// Where a tensor stands in its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// In front of the layers: embeddings.
    Before,
    /// In a layer, with the rest of its name.
    Layer(usize, String),
    /// Behind the layers: norms, heads, and what stands nowhere else.
    After,
}

/// The arrangement of a model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// The modules; each has at most one stack. The first is the language model, or the only one.
    pub(crate) modules: Vec<Module>,
}

/// A tower of a model, or the whole of a model with one stack.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    /// What its tensors' names begin with; empty for a model of one module.
    pub(crate) prefix: String,
    pub(crate) stack: Option<Stack>,
}

/// Words of names that stand in front of the layers.
const BEFORE: [&str; 7] =
    ["embed", "wte", "wpe", "tok_embeddings", "patch", "position_ids", "class_token"];
/// Keys of `config.json` that say how many layers there are.
pub(super) const LAYER_KEYS: [&str; 13] = [
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "depth",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
    "num_encoder_layers",
    "n_encoder_layers",
    "n_decoder_layers",
    "num_blocks",
    "vision_layers",
];

impl Layout {
    pub(crate) fn of(checkpoint: &Checkpoint) -> Self {
        let stacks = stacks(checkpoint);
        let main = main_stack(&stacks, checkpoint.config());
        let single = Module { prefix: String::new(), stack: stacks.get(main).cloned() };
        if stacks.len() < 2 {
            return Self { modules: vec![single] };
        }
        let mut modules: Vec<Module> = stacks
            .iter()
            .map(|stack| Module {
                prefix: distinguishing(stack, &stacks),
                stack: Some(stack.clone()),
            })
            .collect();
        modules.swap(0, main);
        // What belongs to no tower and is no part of the language model is a module of its own, by its
        // first name: `multi_modal_projector`.
        let layout = Self { modules: modules.clone() };
        let rest: BTreeSet<&str> = checkpoint
            .tensors()
            .keys()
            .filter(|name| layout.tower(name).is_none() && !of_language(name))
            .map(|name| own_module(name))
            .collect();
        let rest = rest.into_iter().map(|prefix| Module { prefix: prefix.into(), stack: None });
        modules.extend(rest);
        Self { modules }
    }

    fn tower(&self, name: &str) -> Option<usize> {
        self.modules.iter().position(|module| within(name, &module.prefix))
    }

    /// The module of a tensor and its position there.
    pub(crate) fn position(&self, name: &str) -> (usize, Position) {
        let module = self.tower(name).unwrap_or(0);
        let stack = self.modules.get(module).and_then(|module| module.stack.as_ref());
        let in_layer = stack.and_then(|stack| layer_of(name, &stack.prefix));
        let position = match in_layer {
            Some((layer, rest)) => Position::Layer(layer, rest.into()),
            None if BEFORE.iter().any(|word| name.contains(word)) => Position::Before,
            None => Position::After,
        };
        (module, position)
    }

    /// The module that a configuration names: by its prefix, by the last part of it, or by what such
    /// modules are called in mergekit.
    pub(crate) fn module(&self, name: &str) -> Option<usize> {
        let last = |module: &Module| module.prefix.rsplit('.').next() == Some(name);
        let find = |test: &dyn Fn(&Module) -> bool| self.modules.iter().position(test);
        let has = |words: &[&str]| {
            find(&|module: &Module| words.iter().any(|word| module.prefix.contains(word)))
        };
        if let Some(found) = find(&|module| module.prefix == name).or_else(|| find(&last)) {
            return Some(found);
        }
        match name {
            "default" if self.modules.len() == 1 => Some(0),
            "text_decoder" | "language_model" | "text_model" | "text" => Some(0),
            "vision_tower" | "vision_encoder" | "vision_model" | "vision" | "visual" => {
                has(&["vision", "visual", "vit"])
            }
            "audio_tower" | "audio_encoder" | "audio" => has(&["audio", "speech"]),
            "multi_modal_projector" | "multimodal_projector" | "projector" | "connector" => {
                has(&["projector", "connector", "merger"])
            }
            _ => None,
        }
    }

    /// What the modules may be called.
    pub(crate) fn module_names(&self) -> Vec<String> {
        let name = |module: &Module| {
            if module.prefix.is_empty() { "default".to_owned() } else { module.prefix.clone() }
        };
        self.modules.iter().map(name).collect()
    }
}

/// Whether the name is the prefix or below it.
pub(crate) fn within(name: &str, prefix: &str) -> bool {
    prefix.is_empty()
        || name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The number and the rest of a name in a stack.
fn layer_of<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let rest = name.strip_prefix(prefix)?.strip_prefix('.')?;
    let (number, rest) = rest.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// Names with a number in them whose numbers go from 0 to what the configuration says.
fn stacks(checkpoint: &Checkpoint) -> Vec<Stack> {
    let mut layers: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for name in checkpoint.tensors().keys() {
        let mut at = 0;
        for part in name.split('.') {
            if let Ok(number) = part.parse::<usize>()
                && at > 0
            {
                layers.entry(&name[..at - 1]).or_default().insert(number);
                break;
            }
            at += part.len() + 1;
        }
    }
    let mut counts = BTreeSet::new();
    layer_counts(checkpoint.config(), &mut counts);
    layers
        .into_iter()
        .filter(|(_, numbers)| numbers.last() == Some(&(numbers.len() - 1)))
        .filter(|(_, numbers)| counts.contains(&numbers.len()))
        .map(|(prefix, numbers)| Stack { prefix: prefix.into(), layers: numbers.len() })
        .collect()
}

fn layer_counts(config: &Map<String, Value>, counts: &mut BTreeSet<usize>) {
    for (key, value) in config {
        match value {
            Value::Object(nested) => layer_counts(nested, counts),
            Value::Number(number) if LAYER_KEYS.contains(&key.as_str()) => {
                counts.extend(number.as_u64().map(|count| count as usize));
            }
            _ => {}
        }
    }
}

/// The stack of the language model: of as many layers as the text configuration says, and of those the
/// one that is not a vision or audio tower's.
fn main_stack(stacks: &[Stack], config: &Map<String, Value>) -> usize {
    let text = ["text_config", "llm_config", "language_config"];
    let text = text.iter().find_map(|key| config.get(*key)?.as_object()).unwrap_or(config);
    let mut counts = BTreeSet::new();
    layer_counts(text, &mut counts);
    let other = |stack: &Stack| {
        ["vis", "vit", "audio", "encoder"].iter().any(|word| stack.prefix.contains(word))
    };
    let score = |stack: &Stack| (counts.contains(&stack.layers), !other(stack), stack.layers);
    (0..stacks.len()).max_by_key(|index| score(&stacks[*index])).unwrap_or(0)
}

/// The shortest beginning of a stack's name that no other stack's name has.
fn distinguishing(stack: &Stack, stacks: &[Stack]) -> String {
    let ends = stack.prefix.match_indices('.').map(|(at, _)| at);
    for end in ends {
        let prefix = &stack.prefix[..end];
        let shared = |other: &Stack| other != stack && within(&other.prefix, prefix);
        if !stacks.iter().any(shared) {
            return prefix.into();
        }
    }
    stack.prefix.clone()
}

/// Whether a tensor outside of all towers belongs to the language model.
fn of_language(name: &str) -> bool {
    ["lm_head", "embed", "norm", "head", "wte", "shared"].iter().any(|word| name.contains(word))
        && !["vis", "projector", "audio", "image"].iter().any(|word| name.contains(word))
}

/// The module of a tensor outside of all towers: its name up to the first part that says what it is.
fn own_module(name: &str) -> &str {
    let skip = if name.starts_with("model.") { "model.".len() } else { 0 };
    let end = name[skip..].find('.').map_or(name.len(), |at| skip + at);
    &name[..end]
}

/// Orders names as people do: `layers.2` before `layers.10`.
pub(crate) fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let parts = |name: &str| -> Vec<(u64, String)> {
        name.split('.')
            .map(|part| (part.parse().map_or(u64::MAX, |number: u64| number), part.to_owned()))
            .collect()
    };
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_by_their_numbers() {
        let mut names = ["model.layers.10.b", "model.layers.2.a", "model.norm", "lm_head"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["lm_head", "model.layers.2.a", "model.layers.10.b", "model.norm"]);
    }

    #[test]
    fn a_prefix_ends_at_a_dot() {
        assert!(
            within("model.layers.1", "model.layers") && !within("model.layers2", "model.layers")
        );
        assert_eq!(layer_of("model.layers.12.mlp.w", "model.layers"), Some((12, "mlp.w")));
        assert_eq!(layer_of("model.layers.norm", "model.layers"), None);
    }
}
