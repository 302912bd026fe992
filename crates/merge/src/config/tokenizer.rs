//! Which tokenizer the merged model has, and where the embeddings of its tokens come from.

use super::ModelRef;

/// Whose vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerSource {
    /// The tokens of all models.
    Union,
    /// The base model's.
    Base,
    /// That of one model.
    Model(ModelRef),
}

/// The section `tokenizer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// Whose vocabulary; the union where the section does not say.
    pub source: TokenizerSource,
    /// Tokens with an embedding of their own choice, in the order of the file. One that is not in the
    /// vocabulary is added.
    pub tokens: Vec<(String, TokenConfig)>,
    /// Embeddings are padded to a multiple of this many rows; at least 1.
    pub pad_to_multiple_of: Option<usize>,
}

/// One token of [`TokenizerConfig::tokens`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenConfig {
    /// Where the embedding comes from where a model has none of its own.
    pub source: Option<TokenSource>,
    /// Whether it comes from there for models that have the token too.
    pub force: bool,
}

/// Where a token's embedding comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// The same token of that model.
    Model(ModelRef),
    /// A token of that model: `{kind: model_token, model, token}` or `{..., token_id}`.
    ModelToken {
        /// The model.
        model: ModelRef,
        /// The token.
        token: TokenName,
    },
    /// Zeros: `{kind: zero}`.
    Zero,
}

/// A token by its text or its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenName {
    /// `token: <|end|>`
    Text(String),
    /// `token_id: 2`
    Id(u32),
}
