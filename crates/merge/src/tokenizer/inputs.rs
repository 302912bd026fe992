//! Reading the tokenizers of the inputs.

use std::path::Path;

use serde_json::{Map, Value};

use super::files::{self, Named};
use super::special_ids;
use super::vocabulary::{Member, Vocabulary};
use crate::Error;

/// One input model.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its folder.
    pub path: &'a Path,
    /// Its `config.json`, read from the folder where not given.
    pub config: Option<&'a Map<String, Value>>,
    /// Rows of its embedding matrix; the `vocab_size` of `config.json` where not given, and without
    /// that as many as the tokenizer has tokens.
    pub rows: Option<usize>,
}

/// The contents of the inputs' tokenizer files, equal ones once.
pub(super) struct Texts {
    /// The first model that has it, `tokenizer.json`, and what the companions name.
    pub unique: Vec<(usize, String, Named)>,
    /// By model: a position in `unique`.
    pub of: Vec<Option<usize>>,
}

pub(super) fn read_texts(inputs: &[Input<'_>]) -> Result<Texts, Error> {
    let mut texts = Texts { unique: Vec::new(), of: Vec::new() };
    for (model, input) in inputs.iter().enumerate() {
        let path = input.path.join(files::TOKENIZER);
        let Some(bytes) = files::read(&path)? else {
            if files::OTHER_FORMATS.iter().any(|name| input.path.join(name).exists()) {
                return Err(without_tokenizer(input.path));
            }
            texts.of.push(None);
            continue;
        };
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Error::checkpoint(&path, format!("byte {at} is not UTF-8, expected JSON"))
        })?;
        let named = files::named(input.path)?;
        let same =
            |(_, other, of): &(usize, String, Named)| *other == text && of.tokens == named.tokens;
        let at = texts.unique.iter().position(same).unwrap_or_else(|| {
            texts.unique.push((model, text, named));
            texts.unique.len() - 1
        });
        texts.of.push(Some(at));
    }
    Ok(texts)
}

pub(super) fn without_tokenizer(folder: &Path) -> Error {
    let others: Vec<&str> =
        files::OTHER_FORMATS.into_iter().filter(|name| folder.join(name).exists()).collect();
    let found = if others.is_empty() { "nothing".to_owned() } else { others.join(", ") };
    Error::checkpoint(
        folder,
        format!(
            "found {found}, expected {}; transformers converts the tokenizer: \
             `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`",
            files::TOKENIZER
        ),
    )
}

/// Each input's vocabulary with the number of rows that it has.
pub(super) fn members<'v, 't>(
    inputs: &[Input<'_>],
    names: &[String],
    of: &[Option<usize>],
    vocabularies: &'v [Vocabulary<'t>],
    base: usize,
    warnings: &mut Vec<String>,
) -> Result<Vec<Member<'v, 't>>, Error> {
    let mut members = Vec::new();
    let base_vocabulary = &vocabularies[of[base].unwrap_or(0)];
    let base_rows = rows_of(&inputs[base])?;
    for (model, input) in inputs.iter().enumerate() {
        let rows = rows_of(input)?;
        let vocabulary = if let Some(at) = of[model] {
            &vocabularies[at]
        } else if rows == base_rows {
            warnings.push(format!(
                "{} has no tokenizer: it is taken to have that of {}",
                names[model], names[base]
            ));
            base_vocabulary
        } else {
            return Err(without_tokenizer(input.path));
        };
        let member = Member { vocabulary, rows: rows.unwrap_or(vocabulary.tokens.len()) };
        if let Some((id, token)) = member.without_rows().next() {
            warnings.push(format!(
                "{} has {} rows of embeddings for {} tokens: {} tokens without a row are left out, \
                 the first is `{token}` with id {id}",
                names[model],
                member.rows,
                vocabulary.tokens.len(),
                member.without_rows().count(),
            ));
        }
        if of[model].is_some_and(|at| !of[..model].contains(&Some(at))) {
            for (token, file, id) in &vocabulary.renumbered {
                warnings.push(format!(
                    "{}: added token `{token}` has the id {file} in {}, but is loaded with the id \
                     {id}, which is taken here too",
                    names[model],
                    files::TOKENIZER,
                ));
            }
        }
        members.push(member);
    }
    Ok(members)
}

fn rows_of(input: &Input<'_>) -> Result<Option<usize>, Error> {
    if input.rows.is_some() {
        return Ok(input.rows);
    }
    let read;
    let config = if let Some(config) = input.config {
        config
    } else {
        read = files::object(input.path, "config.json")?;
        &read
    };
    let Some(size) = special_ids::vocab_size(config) else { return Ok(None) };
    let rows = size.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    let reason = || format!("`vocab_size` is {size}, expected a number of tokens");
    rows.map(Some).ok_or_else(|| Error::checkpoint(input.path.join("config.json"), reason()))
}
