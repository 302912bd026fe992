//! The configuration of a decoder, independent of the family it comes from.
//!
//! Each family of [`Architecture`] translates its `config.json` into one [`Config`], with the
//! defaults of transformers 5.23 and in the spellings of transformers 4 and 5. One decoder reads
//! the result. Fields keep their Hugging Face names where they mean the same.

mod generation;
mod head;
mod keys;
mod layers;
mod reader;
mod rope;
mod validate;

use std::path::Path;

use serde_json::Value;

use crate::arch::Architecture;
use crate::error::Error;
use crate::rope::Rope;

pub use generation::GenerationConfig;
pub use head::Head;
pub(crate) use head::initializer_range;
pub(crate) use layers::{LayerType, layer_types, windowed};
pub(crate) use reader::{Field, Reader, TokenId, TokenIds, shown};
pub(crate) use rope::{RopeFields, RopeRules, flat_rope, rope_from};

/// What one decoder-only transformer computes.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a key of the file or a trait of a family"
)]
pub struct Config {
    /// The family (`model_type`), which also names the tensors.
    pub architecture: Architecture,
    /// Rows of the embedding and of the output head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward network.
    pub intermediate_size: usize,
    /// Number of layers; `layers` has as many entries.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; each serves as many query heads (grouped-query attention, Ainslie et
    /// al. 2023, arXiv:2305.13245).
    pub num_key_value_heads: usize,
    /// Width of one head; not always `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// The context length the model was made for.
    pub max_position_embeddings: usize,
    /// Activation of the gate.
    pub hidden_act: Activation,
    /// Added to the mean square in every norm (Zhang and Sennrich 2019, arXiv:1910.07467).
    pub rms_norm_eps: f32,
    /// Whether norms scale by `1 + weight` (Gemma) instead of `weight`. Gemma multiplies in single
    /// precision before it rounds to the model's type, and so does `OLMo` 2 with its `weight`; the
    /// others round first.
    pub norm_unit_offset: bool,
    /// Where a layer normalizes.
    pub norms: NormPlacement,
    /// How queries and keys are normalized before the rotation.
    pub qk_norm: QkNorm,
    /// Which attention projections have biases.
    pub attention_bias: AttentionBias,
    /// Whether the three feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Whether the checkpoint stores `qkv_proj` (q, k, v rows in this order) and `gate_up_proj`
    /// (gate, up) as single tensors (Phi-3).
    pub fused_projections: bool,
    /// What stands above the last norm.
    pub head: Head,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Scale of the embeddings: 1, Granite's field, or Gemma's `sqrt(hidden_size)`. Transformers
    /// rounds Gemma's, and only Gemma's, to the type of the weights: in bfloat16 the 55.4256 of a
    /// hidden size of 3072 become 55.5.
    pub embedding_multiplier: f32,
    /// Scale of the attention scores: `head_dim^-0.5`, Gemma's `query_pre_attn_scalar^-0.5`, or
    /// Granite's field.
    pub attention_multiplier: f32,
    /// Scale of what attention and feed-forward add to the residual stream: 1, or Granite's field.
    pub residual_multiplier: f32,
    /// The logits are divided by this: 1, or Granite's field.
    pub logits_scaling: f32,
    /// Bounds the scaled attention scores, before the mask: `cap * tanh(scores / cap)`.
    pub attn_logit_softcapping: Option<f32>,
    /// Bounds the logits: `cap * tanh(logits / cap)`.
    pub final_logit_softcapping: Option<f32>,
    /// Dropout of the attention weights during training; inference has none.
    pub attention_dropout: f32,
    /// What differs between layers.
    pub layers: Vec<Layer>,
    /// The rotary embeddings that `layers` refer to.
    pub ropes: Vec<Rope>,
    /// Tokens that end a text; see also [`GenerationConfig`].
    pub eos_token_ids: Vec<u32>,
    /// The token that starts a text.
    pub bos_token_id: Option<u32>,
    /// The token that fills short rows of a batch.
    pub pad_token_id: Option<u32>,
    /// The type of the weights, as the file names it (`bfloat16`).
    pub dtype: Option<String>,
    /// The file as it was read, to be written back when the model is saved.
    pub json: Value,
}

/// What differs between the layers of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// With a window `W`, the query at position `i` sees the keys `j` with `i - W < j <= i`: itself
    /// and the `W - 1` before it. Without one it sees every `j <= i`.
    pub sliding_window: Option<usize>,
    /// Index into [`Config::ropes`]; `None` for a layer without positions.
    pub rope: Option<usize>,
}

/// Activation of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Phi(x)`, with the error function.
    Gelu,
    /// GELU's approximation `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
}

impl Field for Activation {
    const EXPECTED: &'static str =
        "one of silu, swish, gelu, gelu_python, gelu_new, gelu_pytorch_tanh, gelu_python_tanh";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "silu" | "swish" => Some(Self::Silu),
            "gelu" | "gelu_python" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Some(Self::GeluTanh),
            _ => None,
        }
    }
}

/// Where a layer normalizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// `x + f(norm(x))`: `input_layernorm` before the attention, `post_attention_layernorm` before
    /// the feed-forward network.
    Pre,
    /// `x + norm(f(norm(x)))` (Gemma 2 and 3): `input_layernorm` and `post_attention_layernorm`
    /// around the attention, `pre_feedforward_layernorm` and `post_feedforward_layernorm` around
    /// the feed-forward network.
    Sandwich,
    /// `x + norm(f(x))` (`OLMo` 2): `post_attention_layernorm` after the attention,
    /// `post_feedforward_layernorm` after the feed-forward network.
    Post,
}

/// How queries and keys are normalized, after the projection and before the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Not at all.
    None,
    /// Each head on its own, with one weight of `head_dim` for all (Qwen3, Gemma 3).
    PerHead,
    /// All heads together, with a weight as wide as the projection (`OLMo` 2).
    WholeProjection,
}

/// Which attention projections have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionBias {
    /// `q_proj`, `k_proj` and `v_proj`.
    pub qkv: bool,
    /// `o_proj`.
    pub o: bool,
}

impl AttentionBias {
    /// All four projections, or none.
    pub const fn all(bias: bool) -> Self {
        Self { qkv: bias, o: bias }
    }
}

impl Config {
    /// The longest text the model is made for, in tokens: `max_position_embeddings`, times the
    /// factor of a rotary scaling that stretches it.
    pub fn context_length(&self) -> usize {
        let stretched =
            self.ropes.iter().map(|rope| rope.scaling.reach(self.max_position_embeddings));
        stretched.max().unwrap_or(0).max(self.max_position_embeddings)
    }

    /// Whether a token is rotated otherwise in a longer text (dynamic scaling), so that nothing that
    /// texts begin with is the same in all of them.
    pub fn rotates_by_length(&self) -> bool {
        self.ropes.iter().any(Rope::depends_on_length)
    }

    /// Reads `config.json` of a model's folder.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Json`] when the file cannot be read, otherwise as
    /// [`Config::from_json`].
    pub fn from_model(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("config.json");
        let json = read_json(&path)?;
        Self::from_json(&path, &json)
    }

    /// Reads the content of a `config.json`; the path is for errors only.
    ///
    /// # Errors
    /// [`Error::UnsupportedArchitecture`] for another `model_type`, [`Error::ConfigField`] for a
    /// field that is ill-typed, out of range or not supported, [`Error::UnknownConfigFields`] with
    /// every field that might change the result and is not known here.
    pub fn from_json(path: &Path, json: &Value) -> Result<Self, Error> {
        let mut r = Reader::new(path, json)?;
        for key in ["quantization_config", "compression_config"] {
            if let Some(value) = r.raw(key).filter(|value| !value.is_null()) {
                let expected = "no quantization: a checkpoint in float32, float16 or bfloat16";
                return Err(r.error(key, shown(value), expected));
            }
        }
        let architecture = Architecture::read(&mut r)?;
        let mut config = architecture.config(&mut r)?;
        config.head = Head::read(&mut r, architecture)?;
        r.finish()?;
        config.validate(path)?;
        Ok(config)
    }
}

fn read_json(path: &Path) -> Result<Value, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Io { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|source| Error::Json { path: path.to_owned(), source })
}
