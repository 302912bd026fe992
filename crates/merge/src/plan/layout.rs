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

/// A tower of a model, what connects two of them, or the whole of a model with one stack.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    /// How configurations name it.
    pub(crate) name: String,
    /// What its tensors' names begin with; the longest of all modules' decides.
    prefixes: Vec<String>,
    pub(crate) stack: Option<Stack>,
}

/// The last parts of the names of stacks.
const STACKS: [&str; 7] =
    ["layers", "layer", "h", "block", "blocks", "resblocks", "transformer_blocks"];
/// Words of names of what connects a tower with the language model.
const CONNECTORS: [&str; 3] = ["merger", "projector", "connector"];
/// mergekit's name for it.
const PROJECTOR: &str = "multi_modal_projector";

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
        if stacks.len() < 2 {
            let stack = stacks.into_iter().next();
            let name = "default".to_owned();
            return Self { modules: vec![Module { name, prefixes: vec![String::new()], stack }] };
        }
        let mut modules: Vec<Module> = stacks
            .iter()
            .map(|stack| {
                let prefix = distinguishing(stack, &stacks);
                Module { name: prefix.clone(), prefixes: vec![prefix], stack: Some(stack.clone()) }
            })
            .collect();
        modules.swap(0, main);
        // What connects the towers is a module of its own, inside of a tower or beside it; so is, by its
        // first name, what belongs to no tower and is no part of the language model.
        let mut connectors: BTreeSet<String> = BTreeSet::new();
        let mut rest: BTreeSet<String> = BTreeSet::new();
        let layout = Self { modules: modules.clone() };
        for name in checkpoint.tensors().keys() {
            if let Some(prefix) = connector(name) {
                connectors.insert(prefix.into());
            } else if layout.tower(name).is_none() && !of_language(name) {
                rest.insert(own_module(name).into());
            }
        }
        if !connectors.is_empty() {
            let prefixes = connectors.into_iter().collect();
            modules.push(Module { name: PROJECTOR.into(), prefixes, stack: None });
        }
        let rest = rest.into_iter().map(|prefix| Module {
            name: prefix.clone(),
            prefixes: vec![prefix],
            stack: None,
        });
        modules.extend(rest);
        Self { modules }
    }

    /// The module with the longest fitting prefix.
    fn tower(&self, name: &str) -> Option<usize> {
        let fits = |module: &Module| {
            let prefixes = module.prefixes.iter().filter(|prefix| within(name, prefix));
            prefixes.map(String::len).max()
        };
        let fitting = self.modules.iter().enumerate().filter_map(|(i, m)| Some((fits(m)?, i)));
        fitting.max().map(|(_, index)| index)
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

    /// The module that a configuration names: by its name, by the last part of it, or by what mergekit
    /// calls such modules.
    pub(crate) fn module(&self, name: &str) -> Option<usize> {
        let find = |test: &dyn Fn(&Module) -> bool| self.modules.iter().position(test);
        let last = |module: &Module| module.name.rsplit('.').next() == Some(name);
        let has = |words: &[&str]| {
            find(&|module: &Module| words.iter().any(|word| module.name.contains(word)))
        };
        find(&|module| module.name == name).or_else(|| find(&last)).or_else(|| match name {
            "text_decoder" | "language_model" | "text_model" if self.modules.len() > 1 => Some(0),
            "vision_tower" | "vision_encoder" | "vision_model" => has(&["vis", "vit"]),
            "audio_tower" | "audio_encoder" => has(&["audio", "speech"]),
            _ => None,
        })
    }

    /// What the modules are called.
    pub(crate) fn module_names(&self) -> Vec<String> {
        self.modules.iter().map(|module| module.name.clone()).collect()
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
        .filter(|(prefix, _)| prefix.rsplit('.').next().is_some_and(|last| STACKS.contains(&last)))
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

/// The beginning of a name up to the part that says that it connects a tower with the language model.
fn connector(name: &str) -> Option<&str> {
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if CONNECTORS.iter().any(|word| part.contains(word)) {
            return Some(&name[..end]);
        }
        end += 1;
    }
    None
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
