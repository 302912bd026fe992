//! An input of a merge: a checkpoint, with an adapter folded in where one is named, as logical tensors.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::layout::{Layout, Stack};
use super::quantised;
use crate::adapter::{Adapter, fold_into};
use crate::checkpoint::Tensor;
use crate::config::ModelRef;
use crate::source::Source;
use crate::{Checkpoint, Error};

/// A tensor of a file, by its name there. Empty tensors may share their bytes' place.
type Place = (PathBuf, String);

/// An input of a merge.
#[derive(Debug)]
pub struct Input {
    /// As the configuration names it.
    pub name: String,
    pub(crate) reference: ModelRef,
    pub(crate) path: PathBuf,
    pub(crate) lora: Option<PathBuf>,
    pub(crate) checkpoint: Checkpoint,
    /// The tensors as a method sees them: dequantised, with the adapter.
    pub(crate) sources: BTreeMap<String, Source>,
    pub(crate) layout: Layout,
    /// Stored tensors by their files and names: adapters' behind the checkpoint's own.
    stored: Vec<(String, Tensor)>,
    by_place: HashMap<Place, usize>,
}

impl Input {
    /// Opens the model that a configuration names.
    pub(super) fn open(reference: &ModelRef) -> Result<Self, Error> {
        let path = reference.path.clone();
        if !path.exists() {
            let reason =
                "no such folder or file; models are read from the disk, so download it first";
            return Err(Error::checkpoint(path, reason));
        }
        let checkpoint = Checkpoint::open(&path)?;
        let mut sources = quantised::sources(&checkpoint)?;
        let mut stored: Vec<(String, Tensor)> = checkpoint
            .tensors()
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        let lora = reference.lora.as_ref().map(|lora| lora.path.clone());
        if let Some(lora) = &lora {
            let adapter = Adapter::open(lora)?;
            let file = Checkpoint::open(lora.join("adapter_model.safetensors"))?;
            let tensors = file.tensors().iter();
            stored
                .extend(tensors.map(|(name, tensor)| (format!("adapter:{name}"), tensor.clone())));
            sources = fold_into(&checkpoint, sources, &adapter)?;
        }
        let by_place =
            stored.iter().enumerate().map(|(index, (_, tensor))| (place(tensor), index)).collect();
        let layout = Layout::of(&checkpoint);
        Ok(Self {
            name: reference.to_string(),
            reference: reference.clone(),
            path,
            lora,
            checkpoint,
            sources,
            layout,
            stored,
            by_place,
        })
    }

    /// The folder or file of the model.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its checkpoint, without the adapter.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// `config.json`.
    pub(crate) fn config(&self) -> &Map<String, Value> {
        self.checkpoint.config()
    }

    /// Every stored tensor; those of an adapter as `adapter:NAME`.
    pub(crate) fn stored(&self) -> &[(String, Tensor)] {
        &self.stored
    }

    /// The name of a stored tensor of this input.
    pub(crate) fn name_of(&self, tensor: &Tensor) -> Option<&str> {
        self.by_place.get(&place(tensor)).map(|index| self.stored[*index].0.as_str())
    }

    /// Its stack in the output's module; that of its only module for a model of one.
    pub(super) fn stack(&self, module: usize) -> Option<&Stack> {
        let own = if self.layout.modules.len() == 1 { 0 } else { module };
        self.layout.modules.get(own)?.stack.as_ref()
    }

    /// The rests of the names of one layer.
    pub(super) fn layer(&self, module: usize, layer: usize) -> impl Iterator<Item = &str> {
        let prefix = self.stack(module).map(|stack| format!("{}.{layer}.", stack.prefix));
        self.sources.keys().filter_map(move |name| name.strip_prefix(prefix.as_deref()?))
    }

    /// The output's name of a tensor of this input: where the language model hangs elsewhere (a text model
    /// merged into the text tower of a vision-language model), below the output's name for it.
    pub(super) fn outer_name(&self, name: &str, donor: &Layout) -> String {
        moved(name, self.trunk(), trunk(donor))
    }

    /// The name in this input of a tensor of the output.
    pub(super) fn inner_name(&self, name: &str, donor: &Layout) -> String {
        moved(name, trunk(donor), self.trunk())
    }

    /// Whether an adapter brings another tensor in the place of a stored one.
    pub(super) fn replaced(&self, name: &str) -> bool {
        self.lora.is_some()
            && self.sources.get(name).is_some_and(|source| {
                source.stored().iter().all(|tensor| self.name_of(tensor) != Some(name))
            })
    }

    /// The token embeddings.
    pub(super) fn embeddings(&self) -> Option<(&String, &Source)> {
        const EMBEDDINGS: [&str; 4] =
            ["embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight"];
        EMBEDDINGS.iter().find_map(|ending| {
            self.sources.iter().find(|(name, _)| {
                name.ends_with(ending) && !["vis", "audio"].iter().any(|word| name.contains(word))
            })
        })
    }

    /// The rows of the token embeddings: `vocab_size`, padding included.
    pub(super) fn vocabulary_rows(&self) -> Option<usize> {
        self.embeddings().and_then(|(_, source)| source.shape().first().copied())
    }

    /// Whether the rows of a tensor belong to tokens.
    pub(super) fn is_vocabulary(&self, name: &str, source: &Source) -> bool {
        const WORDS: [&str; 9] = [
            "embed_tokens",
            "wte",
            "word_embeddings",
            "embed_in",
            "lm_head",
            "embed_out",
            "output.weight",
            "predictions",
            "shared",
        ];
        self.vocabulary_rows().is_some_and(|rows| source.shape().first() == Some(&rows))
            && WORDS.iter().any(|word| name.contains(word))
    }

    fn trunk(&self) -> Option<&str> {
        trunk(&self.layout)
    }
}

/// What the names of the language model's tensors begin with: the name of its stack but for the last part.
fn trunk(layout: &Layout) -> Option<&str> {
    let stack = layout.modules.first()?.stack.as_ref()?;
    Some(stack.prefix.rsplit_once('.').map_or("", |(trunk, _)| trunk))
}

fn moved(name: &str, from: Option<&str>, to: Option<&str>) -> String {
    let (Some(from), Some(to)) = (from, to) else { return name.into() };
    if from == to || !super::layout::within(name, from) {
        return name.into();
    }
    let rest = name[from.len()..].trim_start_matches('.');
    if to.is_empty() { rest.into() } else { format!("{to}.{rest}") }
}

fn place(tensor: &Tensor) -> Place {
    (tensor.file.clone(), tensor.name.clone())
}
