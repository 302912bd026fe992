//! A configuration as mergekit's keys name its parts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use super::{ModelRef, Parameters, TokenizerConfig, TokenizerSource};
use crate::dtype::Dtype;

/// One merge: what a YAML document says. Two configurations are equal if they say the same, wherever
/// they stand.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeConfig {
    /// The name by which other documents of the same file use the result.
    pub name: Option<String>,
    /// The name of the method, such as `ties`; whether it is one is the planner's to say.
    pub merge_method: String,
    /// The inputs.
    pub body: Body,
    /// The model that task vectors start from.
    pub base_model: Option<ModelRef>,
    /// Parameters of all tensors.
    pub parameters: Parameters,
    /// The type that inputs are converted to.
    pub dtype: Option<Dtype>,
    /// The type of the output.
    pub out_dtype: Option<Dtype>,
    /// Short form of [`tokenizer`](Self::tokenizer); never both.
    pub tokenizer_source: Option<TokenizerSource>,
    /// Vocabulary and embeddings.
    pub tokenizer: Option<TokenizerConfig>,
    /// `auto`, the name of a built-in template, or a Jinja text.
    pub chat_template: Option<String>,
    pub(crate) origin: Origin,
}

/// The inputs of a merge. Lists are never empty.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Whole models.
    Models(Vec<InputModel>),
    /// Layers, one slice of the output after the other.
    Slices(Vec<OutputSlice>),
    /// The modules of a model with several, by name in the order of the file.
    Modules(Vec<(String, OutputModule)>),
}

/// One module of the output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputModule {
    /// Its inputs.
    pub body: ModuleBody,
    /// Parameters of its tensors.
    pub parameters: Parameters,
}

/// The inputs of a module. Lists are never empty.
#[derive(Clone, Debug, PartialEq)]
pub enum ModuleBody {
    /// Whole modules.
    Models(Vec<InputModel>),
    /// Layers, one slice of the output after the other.
    Slices(Vec<OutputSlice>),
}

/// A whole model as an input.
#[derive(Clone, Debug, PartialEq)]
pub struct InputModel {
    /// The model.
    pub model: ModelRef,
    /// Its own parameters.
    pub parameters: Parameters,
}

/// Some layers of the output. The ranges of its sources are equally long, and no model is there twice.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputSlice {
    /// The layers that are merged.
    pub sources: Vec<InputSlice>,
    /// Instead of the configuration's base model.
    pub base_model: Option<ModelRef>,
    /// Read and without effect, as in mergekit.
    pub residual_weight: Option<f64>,
    /// Parameters of its tensors.
    pub parameters: Parameters,
}

/// Some layers of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSlice {
    /// The model.
    pub model: ModelRef,
    /// From the first layer to before the end; it may be empty.
    pub layer_range: Range<usize>,
    /// Its own parameters.
    pub parameters: Parameters,
}

/// Where a configuration stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) file: PathBuf,
    /// Key paths with their lines.
    pub(crate) lines: BTreeMap<String, usize>,
}

/// Where it stands is no part of what a configuration says.
impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
