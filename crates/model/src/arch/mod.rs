//! The supported families. Start here: one line of [`Architecture`] and one file per family.
//!
//! Llama (`llama.rs`) is the base; the file of another family says what it does differently and
//! how its `config.json` says so. Nothing outside this module asks which family a model is of,
//! except to name tensors: everything else is in [`Config`].

mod gemma2;
mod gemma3;
mod granite;
mod llama;
mod mistral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod smollm3;

use std::fmt;

use crate::config::{Config, Reader, shown};
use crate::error::Error;

/// A family of decoder models; [`Architecture::model_type`] is its name in `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama 1 to 3 and all that share its form: `TinyLlama`, SmolLM 1 and 2, Yi, `DeepSeek-R1-Distill-Llama`.
    Llama,
    /// Mistral 7B, Mistral Nemo, Mistral Small (text).
    Mistral,
    /// Qwen2, Qwen2.5, `QwQ`, `DeepSeek-R1-Distill-Qwen`.
    Qwen2,
    /// Qwen3 (dense).
    Qwen3,
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, text models.
    Gemma3,
    /// Phi-3 and Phi-4, without `LongRoPE`.
    Phi3,
    /// `OLMo` 2.
    Olmo2,
    /// Granite 3 (dense).
    Granite,
    /// `SmolLM3`.
    SmolLm3,
}

impl Architecture {
    /// Every supported family.
    pub const ALL: &'static [Self] = &[
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma2,
        Self::Gemma3,
        Self::Phi3,
        Self::Olmo2,
        Self::Granite,
        Self::SmolLm3,
    ];

    /// The `model_type` of `config.json`.
    pub const fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3_text",
            Self::Phi3 => "phi3",
            Self::Olmo2 => "olmo2",
            Self::Granite => "granite",
            Self::SmolLm3 => "smollm3",
        }
    }

    /// The family of a `model_type`.
    pub fn from_model_type(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|architecture| architecture.model_type() == name)
    }

    /// The class of transformers 5.23 that scores whole texts, where the family has one.
    pub const fn sequence_class(self) -> Option<&'static str> {
        Some(match self {
            Self::Llama => "LlamaForSequenceClassification",
            Self::Mistral => "MistralForSequenceClassification",
            Self::Qwen2 => "Qwen2ForSequenceClassification",
            Self::Qwen3 => "Qwen3ForSequenceClassification",
            Self::Gemma2 => "Gemma2ForSequenceClassification",
            Self::Gemma3 => "Gemma3TextForSequenceClassification",
            Self::Phi3 => "Phi3ForSequenceClassification",
            Self::Olmo2 => "Olmo2ForSequenceClassification",
            Self::SmolLm3 => "SmolLM3ForSequenceClassification",
            Self::Granite => return None,
        })
    }

    /// The class of transformers 5.23 that scores tokens, where the family has one.
    pub const fn token_class(self) -> Option<&'static str> {
        Some(match self {
            Self::Llama => "LlamaForTokenClassification",
            Self::Mistral => "MistralForTokenClassification",
            Self::Qwen2 => "Qwen2ForTokenClassification",
            Self::Qwen3 => "Qwen3ForTokenClassification",
            Self::Gemma2 => "Gemma2ForTokenClassification",
            Self::Phi3 => "Phi3ForTokenClassification",
            Self::SmolLm3 => "SmolLM3ForTokenClassification",
            Self::Gemma3 | Self::Olmo2 | Self::Granite => return None,
        })
    }

    /// Reads `model_type`.
    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        let value = r.raw("model_type");
        let name = value.and_then(serde_json::Value::as_str);
        if let Some(architecture) = name.and_then(Self::from_model_type) {
            return Ok(architecture);
        }
        let found = match (name, value) {
            (Some("gemma3"), _) => {
                "`gemma3` (text and images; extract its language model as `gemma3_text`)".into()
            }
            (Some(name), _) => format!("`{name}`"),
            (None, Some(value)) => shown(value),
            (None, None) => "absent".into(),
        };
        let supported: Vec<_> = Self::ALL.iter().map(|known| known.model_type()).collect();
        let (path, field) = (r.path().to_owned(), "model_type");
        Err(Error::UnsupportedArchitecture { path, field, found, supported: supported.join(", ") })
    }

    /// Translates the family's `config.json`.
    pub(crate) fn config(self, r: &mut Reader<'_>) -> Result<Config, Error> {
        match self {
            Self::Llama => llama::config(r),
            Self::Mistral => mistral::config(r),
            Self::Qwen2 => qwen2::config(r),
            Self::Qwen3 => qwen3::config(r),
            Self::Gemma2 => gemma2::config(r),
            Self::Gemma3 => gemma3::config(r),
            Self::Phi3 => phi3::config(r),
            Self::Olmo2 => olmo2::config(r),
            Self::Granite => granite::config(r),
            Self::SmolLm3 => smollm3::config(r),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_its_own_name() {
        for &architecture in Architecture::ALL {
            assert_eq!(
                Architecture::from_model_type(architecture.model_type()),
                Some(architecture)
            );
        }
        assert_eq!(Architecture::from_model_type("gemma3"), None);
    }
}
