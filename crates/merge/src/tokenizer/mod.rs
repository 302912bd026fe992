//! Merged vocabularies: mergekit's `tokenizer_source`, `tokenizer` and `chat_template`.
//!
//! [`merge_tokenizers`] decides which tokens the output has and writes its tokenizer;
//! [`MergedTokenizer::row_maps`] says which rows of the inputs become the rows of a merged embedding
//! or head matrix; [`MergedTokenizer::update_config`] moves the special ids of configurations.
//!
//! Rows of padding in the inputs' matrices (rows that no token has, as in Qwen) are not carried over;
//! `pad_to_multiple_of` makes new ones. Tokens without a row are left out with a warning.

use std::collections::HashMap;

use rayon::prelude::*;

mod chat_template;
mod differ;
mod files;
mod inputs;
mod output;
mod rows;
mod settings;
mod special_ids;
mod tokenizer_json;
mod vocabulary;

pub use chat_template::{BUILTIN_TEMPLATES, ChatTemplate, set_chat_template};
pub use differ::vocabularies_differ;
pub use files::{Files, tokenizer_files};
pub use inputs::Input;
pub use rows::{Row, RowMaps};
pub use settings::{Source, TokenRef, TokenSetting, TokenSource, TokenizerSettings};
pub use special_ids::ConfigChange;

use crate::Error;
use files::Named;
use tokenizer_json::TokenizerJson;
use vocabulary::Vocabulary;

/// The tokenizer of a merged model.
#[derive(Clone, Debug)]
pub struct MergedTokenizer {
    /// Rows of the merged matrices, padding included: `vocab_size`.
    pub rows: usize,
    /// All files of the tokenizer. They are the donor's, byte for byte, where its vocabulary did
    /// not change.
    pub files: Files,
    /// Conflicts between the inputs and what was decided, in whole sentences.
    pub warnings: Vec<String>,
    /// By row; `None` for ids that no token has.
    tokens: Vec<Option<Box<str>>>,
    /// By model and output row: the model's row, or [`rows::NONE`].
    own: Vec<Vec<u32>>,
    /// By output row: the rules of the configuration.
    rules: HashMap<usize, TokenSetting>,
    /// By model: its own ids of the tokens that the rules name.
    rule_ids: Vec<HashMap<String, u32>>,
    /// By model: the rows of its matrix.
    input_rows: Vec<usize>,
    /// Such as `eos_token`, with the id in the output.
    roles: Vec<(String, u32)>,
    /// The inputs' folders, for messages.
    names: Vec<String>,
}

impl MergedTokenizer {
    /// Rows up to the last token. The rest of [`rows`](Self::rows) is padding.
    pub fn token_rows(&self) -> usize {
        self.tokens.len()
    }

    /// The token of an output row.
    pub fn token(&self, row: usize) -> Option<&str> {
        self.tokens.get(row)?.as_deref()
    }

    fn id_in(
        &self,
        model: usize,
        token: &TokenRef,
        key: impl Fn() -> String,
    ) -> Result<u32, Error> {
        match token {
            TokenRef::Id(id) if (*id as usize) < self.input_rows[model] => Ok(*id),
            TokenRef::Id(id) => Err(Error::value(
                key(),
                format!("token {id} of {}", self.names[model]),
                format!("less than its {} rows", self.input_rows[model]),
            )),
            TokenRef::Text(text) => self.rule_ids[model].get(text).copied().ok_or_else(|| {
                let found = format!("token `{text}` of {}", self.names[model]);
                Error::value(key(), found, "a token of that model with a row of its own")
            }),
        }
    }
}

/// Merges the tokenizers of `inputs`. `base` is the position of the base model; without one the
/// first input takes its place.
///
/// # Errors
/// For files that are missing or broken, for vocabularies whose union has no meaning, and for
/// settings that name models, tokens or ids which are not there.
pub fn merge_tokenizers(
    inputs: &[Input<'_>],
    base: Option<usize>,
    settings: &TokenizerSettings,
) -> Result<MergedTokenizer, Error> {
    settings.check(inputs.len(), base)?;
    let names: Vec<String> = inputs.iter().map(|input| input.path.display().to_string()).collect();
    let base = base.unwrap_or(0);
    let donor = match settings.source {
        Source::Model(model) => model,
        Source::Union | Source::Base => base,
    };
    let texts = inputs::read_texts(inputs)?;
    for wanted in [base, donor] {
        if texts.of[wanted].is_none() {
            return Err(inputs::without_tokenizer(inputs[wanted].path));
        }
    }
    let parsed: Vec<TokenizerJson<'_>> = (texts.unique.par_iter())
        .map(|(model, text, _)| {
            let path = inputs[*model].path.join(files::TOKENIZER);
            TokenizerJson::read(text).map_err(Error::json(path))
        })
        .collect::<Result<_, _>>()?;
    let vocabularies: Vec<Vocabulary<'_>> = (parsed.par_iter().zip(&texts.unique))
        .map(|(json, (model, _, named))| {
            let path = inputs[*model].path.join(files::TOKENIZER);
            let vocabulary = Vocabulary::new(json, &named.tokens);
            vocabulary.map_err(|reason| Error::checkpoint(path, reason))
        })
        .collect::<Result<_, _>>()?;

    let mut warnings = Vec::new();
    let members = inputs::members(inputs, &names, &texts.of, &vocabularies, base, &mut warnings)?;
    let extra: Vec<&str> = settings.tokens.iter().map(|(token, _)| token.as_str()).collect();
    let union = settings.source == Source::Union;
    let path = inputs[donor].path.join(files::TOKENIZER);
    let because = |reason| Error::checkpoint(&path, reason);
    let out =
        output::merge(&members, &names, donor, union, &extra, &mut warnings).map_err(because)?;

    let own: Vec<Vec<u32>> = (members.par_iter())
        .map(|member| {
            let row = |(row, token): (usize, &Option<_>)| {
                let token: &Option<std::borrow::Cow<'_, str>> = token;
                token.as_ref().and_then(|token| member.row(token, row)).unwrap_or(rows::NONE)
            };
            out.tokens.iter().enumerate().map(row).collect()
        })
        .collect();
    let ids: HashMap<&str, usize> = (settings.tokens.iter())
        .filter_map(|(token, _)| {
            let known = members[donor].row(token, 0).map(|id| id as usize);
            let found = || out.tokens.iter().position(|there| there.as_deref() == Some(token));
            Some((token.as_str(), known.or_else(found)?))
        })
        .collect();
    let rules = (settings.tokens.iter())
        .filter_map(|(token, setting)| Some((*ids.get(token.as_str())?, setting.clone())))
        .collect();
    let mut rule_ids = vec![HashMap::new(); inputs.len()];
    for (_, setting) in &settings.tokens {
        if let Some(TokenSource::ModelToken { model, token: TokenRef::Text(text) }) =
            &setting.source
            && let Some(id) = members[*model].row(text, 0)
        {
            rule_ids[*model].insert(text.clone(), id);
        }
    }

    let mut output_files = tokenizer_files(inputs[donor].path)?;
    let named = files::named(inputs[donor].path)?;
    let id_of = |token: &str| {
        let known = members[donor].row(token, 0);
        known.or_else(|| Some(out.added.iter().find(|added| added.content == token)?.id))
    };
    if !out.unchanged {
        let json = output::tokenizer_json(&out, &members).map_err(because)?;
        if let Some(id) = output::missing_in_post_processor(&out, &json) {
            return Err(because(format!(
                "the post-processor adds token {id}, for which the model has no embedding"
            )));
        }
        output_files.insert(files::TOKENIZER.to_owned(), files::pretty(&json));
        let folder = inputs[donor].path;
        files::update(
            &mut output_files,
            folder,
            &out.added,
            |t| id_of(t).is_some(),
            &mut warnings,
        )?;
    }
    warn_of_roles(inputs, &names, donor, &named, &mut warnings)?;
    let pad = settings.pad_to_multiple_of.unwrap_or(1);
    Ok(MergedTokenizer {
        rows: out.tokens.len().next_multiple_of(pad),
        files: output_files,
        warnings,
        tokens: out.tokens.iter().map(|token| token.as_deref().map(Box::from)).collect(),
        own,
        rules,
        rule_ids,
        input_rows: members.iter().map(|member| member.rows).collect(),
        roles: named
            .roles
            .into_iter()
            .filter_map(|(role, token)| Some((role, id_of(&token)?)))
            .collect(),
        names,
    })
}

/// The same role with different tokens: the output can follow only one.
fn warn_of_roles(
    inputs: &[Input<'_>],
    names: &[String],
    donor: usize,
    own: &Named,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    for (model, input) in inputs.iter().enumerate().filter(|(model, _)| *model != donor) {
        for (role, token) in files::named(input.path)?.roles {
            match own.roles.iter().find(|(of, _)| *of == role) {
                Some((_, kept)) if *kept != token => warnings.push(format!(
                    "`{role}` is `{token}` in {} and `{kept}` in {}: the latter is kept",
                    names[model], names[donor]
                )),
                _ => {}
            }
        }
    }
    Ok(())
}
