//! The merged vocabulary of a plan, and the matrices whose rows are its tokens.

use std::sync::{Arc, OnceLock};

use super::input::Input;
use crate::Error;
use crate::config::{self, MergeConfig, ModelRef};
use crate::source::{Row, Rows, Source};
use crate::tokenizer::{self, MergedTokenizer, TokenizerSettings, merge_tokenizers};

/// A merged vocabulary.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pub(super) tokenizer: MergedTokenizer,
    base: Option<usize>,
}

/// The inputs as the tokenizers' part sees them.
pub(super) fn tokenizer_inputs(inputs: &[Input]) -> Vec<tokenizer::Input<'_>> {
    inputs
        .iter()
        .map(|input| tokenizer::Input {
            path: input.path(),
            config: Some(input.config()),
            rows: input.vocabulary_rows(),
        })
        .collect()
}

impl Vocabulary {
    /// What the configuration says of the tokenizer; `None` where it says nothing.
    pub(super) fn new(config: &MergeConfig, inputs: &[Input]) -> Result<Option<Self>, Error> {
        let Some(section) = config.tokenizer_section() else { return Ok(None) };
        let find = |model: &ModelRef| {
            inputs.iter().position(|input| input.reference == *model).ok_or_else(|| {
                Error::value("tokenizer", model.to_string(), "one of the models of this merge")
            })
        };
        let source = match &section.source {
            config::TokenizerSource::Union => tokenizer::Source::Union,
            config::TokenizerSource::Base => tokenizer::Source::Base,
            config::TokenizerSource::Model(model) => tokenizer::Source::Model(find(model)?),
        };
        let mut tokens = Vec::new();
        for (token, setting) in &section.tokens {
            let source = match &setting.source {
                None => None,
                Some(config::TokenSource::Zero) => Some(tokenizer::TokenSource::Zero),
                Some(config::TokenSource::Model(model)) => {
                    Some(tokenizer::TokenSource::Model(find(model)?))
                }
                Some(config::TokenSource::ModelToken { model, token }) => {
                    Some(tokenizer::TokenSource::ModelToken {
                        model: find(model)?,
                        token: match token {
                            config::TokenName::Text(text) => {
                                tokenizer::TokenRef::Text(text.clone())
                            }
                            config::TokenName::Id(id) => tokenizer::TokenRef::Id(*id),
                        },
                    })
                }
            };
            tokens.push((token.clone(), tokenizer::TokenSetting { source, force: setting.force }));
        }
        let pad_to_multiple_of = section.pad_to_multiple_of;
        let settings = TokenizerSettings { source, tokens, pad_to_multiple_of };
        let base = config.base_model.as_ref().map(find).transpose()?;
        let tokenizer = merge_tokenizers(&tokenizer_inputs(inputs), base, &settings)?;
        Ok(Some(Self { tokenizer, base }))
    }

    /// The matrices of these inputs with the rows of the merged vocabulary.
    pub(super) fn mapped(&self, parts: &[(usize, Source)]) -> Result<Vec<Source>, String> {
        let models: Vec<usize> = parts.iter().map(|(input, _)| *input).collect();
        let base = self.base.filter(|base| models.contains(base));
        let maps = self.tokenizer.row_maps(&models, base).map_err(|error| error.to_string())?;
        let place = |model: usize| -> Result<u32, String> {
            let found = models.iter().position(|input| *input == model);
            found.map(|place| place as u32).ok_or_else(|| "a row of a model without it".to_owned())
        };
        let sources: Vec<Source> = parts.iter().map(|(_, source)| source.clone()).collect();
        let mut mapped = Vec::new();
        for (position, (_, source)) in parts.iter().enumerate() {
            if maps.is_identity(position, source.shape()[0]) {
                mapped.push(source.clone());
                continue;
            }
            let row = |row: usize| -> Result<Row, String> {
                Ok(match maps.row(position, row) {
                    tokenizer::Row::Own(row) => Row::Of { source: position as u32, row },
                    tokenizer::Row::FromModel { model, row } => {
                        Row::Of { source: place(model)?, row }
                    }
                    tokenizer::Row::Mean(rows) => Row::Mean(
                        rows.iter()
                            .map(|(model, row)| Ok((place(*model)?, *row)))
                            .collect::<Result<_, String>>()?,
                    ),
                    tokenizer::Row::Zero => Row::Zero,
                    tokenizer::Row::MeanOfAll => Row::Average,
                })
            };
            let rows: Vec<Row> = (0..maps.len()).map(row).collect::<Result<_, _>>()?;
            let mut shape = source.shape().to_vec();
            shape[0] = rows.len();
            let average = OnceLock::new();
            mapped.push(Source::Rows(Arc::new(Rows {
                sources: sources.clone(),
                order: rows,
                shape,
                average,
            })));
        }
        Ok(mapped)
    }
}
