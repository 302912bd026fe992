//! What is trained: the checkpoint, its type, and which of its weights.

use std::path::PathBuf;

use posttrain_model::checkpoint::Dtype;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The settings of the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelArguments {
    /// A checkpoint folder or a name on the Hugging Face hub.
    pub model: Option<String>,
    /// The same under TRL's name.
    pub model_name_or_path: Option<String>,
    /// The type of the weights: `auto` is f32, but the checkpoint's own for a frozen base.
    pub dtype: DtypeChoice,
    /// A chat template instead of the checkpoint's: a Jinja file or a model folder.
    pub chat_template_path: Option<PathBuf>,
    /// A PEFT adapter folder to go on with.
    pub adapter: Option<PathBuf>,
    /// Regular expressions, matched anywhere in a parameter's name: only these are trained.
    pub trainable: Option<Vec<String>>,
    /// Regular expressions, matched anywhere in a parameter's name: these are not trained.
    pub frozen: Vec<String>,
}

/// The type of the weights in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtypeChoice {
    /// f32 for what is trained, the checkpoint's own for a frozen base.
    #[default]
    Auto,
    /// f32.
    Float32,
    /// bf16; optimizers keep an f32 master of what they train.
    BFloat16,
    /// f16; optimizers keep an f32 master of what they train.
    Float16,
}

impl DtypeChoice {
    /// The type to load; `None` is the checkpoint's own.
    pub fn to_load(self, frozen_base: bool) -> Option<Dtype> {
        match self {
            Self::Auto if frozen_base => None,
            Self::Auto | Self::Float32 => Some(Dtype::F32),
            Self::BFloat16 => Some(Dtype::BF16),
            Self::Float16 => Some(Dtype::F16),
        }
    }
}

impl ModelArguments {
    /// The checkpoint that is named.
    ///
    /// # Errors
    /// [`Error::Config`] when none is, or two are.
    pub fn name(&self) -> Result<&str, Error> {
        match (&self.model, &self.model_name_or_path) {
            (Some(name), None) | (None, Some(name)) => Ok(name),
            (None, None) => Err(Error::config("model", "missing", "a checkpoint folder")),
            (Some(_), Some(_)) => {
                let expected = "one of the two";
                Err(Error::config("model", "given beside `model_name_or_path`", expected))
            }
        }
    }
}
