//! What a merge configuration asks of the tokenizer: mergekit's `tokenizer_source` and `tokenizer`.

use crate::Error;

/// The `tokenizer` section of a merge configuration. Models are positions in the list of inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenizerSettings {
    /// Whose vocabulary the merged model has.
    pub source: Source,
    /// Tokens with a rule of their own, in the order of the configuration. Tokens that the
    /// vocabulary does not have are added to it in this order.
    pub tokens: Vec<(String, TokenSetting)>,
    /// The rows of the output matrices are rounded up to a multiple of this.
    pub pad_to_multiple_of: Option<usize>,
}

impl TokenizerSettings {
    /// Whether all models that are named exist, and the other values are possible.
    pub(super) fn check(&self, inputs: usize, base: Option<usize>) -> Result<(), Error> {
        let expected = format!("one of the {inputs} inputs");
        let known = |key: &str, model: usize| {
            if model < inputs {
                return Ok(());
            }
            Err(Error::value(key, format!("input {model}"), expected.as_str()))
        };
        known("base_model", base.unwrap_or(0))?;
        if let Source::Model(model) = self.source {
            known("tokenizer.source", model)?;
        }
        for (at, (token, setting)) in self.tokens.iter().enumerate() {
            let key = format!("tokenizer.tokens.{token}");
            if token.is_empty() {
                return Err(Error::value(key, "an empty token", "a token"));
            }
            if self.tokens[..at].iter().any(|(other, _)| other == token) {
                return Err(Error::value(key, "there twice", "each token once"));
            }
            match setting.source {
                Some(TokenSource::Model(model) | TokenSource::ModelToken { model, .. }) => {
                    known(&format!("{key}.source"), model)?;
                }
                Some(TokenSource::Zero) | None => {}
            }
        }
        match self.pad_to_multiple_of {
            Some(pad) if !(1..=1 << 20).contains(&pad) => {
                Err(Error::value("tokenizer.pad_to_multiple_of", pad, "from 1 to 1048576"))
            }
            _ => Ok(()),
        }
    }
}

/// Whose vocabulary the merged model has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The base model's tokens with their ids, then all further tokens of the other models.
    #[default]
    Union,
    /// The base model's, or the first model's where there is no base.
    Base,
    /// That of one input.
    Model(usize),
}

/// The rule for one token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSetting {
    /// Where models without the token take its embedding from. Without it the rules for every
    /// other token hold.
    pub source: Option<TokenSource>,
    /// Whether models that do have the token take that embedding too.
    pub force: bool,
}

/// Where the embedding of a token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// The same token in this input.
    Model(usize),
    /// Another token of an input.
    ModelToken {
        /// The input.
        model: usize,
        /// The token in that input.
        token: TokenRef,
    },
    /// Zeros.
    Zero,
}

/// A token of a model by its text or by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRef {
    /// As it stands in the vocabulary, such as `<|im_end|>` or `Ġthe`.
    Text(String),
    /// The row of the embedding matrix.
    Id(u32),
}
