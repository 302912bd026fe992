//! The adapters of a model: what each one is, and where its tensors are.

use std::collections::BTreeMap;

use super::config::LoraConfig;
use super::matching::{Kind, Target};
use super::switch::Aside;
use super::{Initial, Low};
use crate::decoder::{AnyTensor, Decoder};

/// All adapters of a model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Adapters {
    pub(crate) known: BTreeMap<String, Adapter>,
    /// The one whose tensors are in the layers.
    pub(crate) active: Option<Active>,
}

/// The adapter in use.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) name: String,
    /// What it replaces.
    pub(crate) base: Aside,
    /// Whether a tied head was given a layer of its own.
    pub(crate) untied: bool,
}

/// One adapter.
#[derive(Clone, Debug)]
pub(crate) struct Adapter {
    /// With `target_modules` made explicit.
    pub(crate) config: LoraConfig,
    pub(crate) targets: Vec<Target>,
    /// Names of the tensors that are trained as a whole.
    pub(crate) whole: Vec<String>,
    /// Whether a head that is the embedding matrix is trained as a whole with it.
    pub(crate) together: bool,
    /// What an initialisation took out of the matrices, by path.
    pub(crate) initial: BTreeMap<String, Initial>,
    /// The tensors by name, while the adapter is not active.
    pub(crate) tensors: BTreeMap<String, AnyTensor>,
}

impl Adapter {
    pub(crate) fn target(&self, path: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.path == path)
    }

    /// Names and shapes of its tensors in a model without an active adapter.
    pub(crate) fn expected(&self, model: &Decoder) -> Vec<(String, Vec<usize>)> {
        let shapes = model.shapes();
        let mut expected = Vec::new();
        for Target { path, kind, rank, .. } in &self.targets {
            let shape = &shapes[&format!("{path}.weight")];
            let (a, b) = names(path, *kind);
            let (out, inner) = match kind {
                Kind::Embedding => (shape[1], shape[0]),
                _ => (shape[0], shape[1]),
            };
            expected.push((a, vec![*rank, inner]));
            expected.push((b, vec![out, *rank]));
            if self.config.use_dora {
                expected.push((magnitude(path), vec![out]));
            }
        }
        expected.extend(self.whole.iter().map(|name| (name.clone(), shapes[name].clone())));
        expected
    }

    /// What the layer of a target keeps besides its factors.
    pub(crate) fn low(&self, target: &Target) -> Low {
        let Target { path, scale, .. } = target;
        Low { name: path.clone(), scale: *scale, dropout: self.config.lora_dropout }
    }

    /// Whether a head that is the embedding matrix has to become a layer of its own: because the
    /// adapter changes one of both.
    pub(crate) fn parts_head_from_embeddings(&self) -> bool {
        let whole = |name: &str| self.whole.iter().any(|whole| whole == name);
        self.target("lm_head").is_some()
            || whole("lm_head.weight")
            || whole("model.embed_tokens.weight") && !self.together
    }
}

/// The names of A and B of a module.
pub(crate) fn names(path: &str, kind: Kind) -> (String, String) {
    if kind == Kind::Embedding {
        (format!("{path}.lora_embedding_A"), format!("{path}.lora_embedding_B"))
    } else {
        (format!("{path}.lora_A.weight"), format!("{path}.lora_B.weight"))
    }
}

/// The name of the magnitudes of a module.
pub(crate) fn magnitude(path: &str) -> String {
    format!("{path}.lora_magnitude_vector")
}
