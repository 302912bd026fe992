//! Whether models that are merged row by row mean the same tokens.

use super::files;
use super::inputs::{Input, read_texts};
use super::tokenizer_json::TokenizerJson;
use super::vocabulary::Vocabulary;
use crate::Error;

/// Compares the vocabularies of all inputs that have one with the first that has: `None` where
/// every token has the same id, otherwise the first token that differs and the sizes. Rows of
/// matrices do not matter here.
///
/// # Errors
/// For a tokenizer that cannot be read, or that has no `tokenizer.json`.
pub fn vocabularies_differ(inputs: &[Input<'_>]) -> Result<Option<String>, Error> {
    let texts = read_texts(inputs)?;
    if texts.unique.len() < 2 {
        return Ok(None);
    }
    let mut parsed = Vec::new();
    for (model, text, _) in &texts.unique {
        let path = inputs[*model].path.join(files::TOKENIZER);
        parsed.push(TokenizerJson::read(text).map_err(Error::json(path))?);
    }
    let mut first: Option<Vocabulary<'_>> = None;
    for (json, (model, _, named)) in parsed.iter().zip(&texts.unique) {
        let path = inputs[*model].path.join(files::TOKENIZER);
        let vocabulary = Vocabulary::new(json, &named.tokens)
            .map_err(|reason| Error::checkpoint(path, reason))?;
        let Some(first) = &first else {
            first = Some(vocabulary);
            continue;
        };
        let (a, b) = (&first.tokens, &vocabulary.tokens);
        if a == b {
            continue;
        }
        let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let tell = |tokens: &[Option<&str>]| match tokens.get(same) {
            Some(Some(token)) => format!("`{token}`"),
            _ => "no token".to_owned(),
        };
        return Ok(Some(format!(
            "vocabularies differ: id {same} is {} in {} ({} ids) and {} in {} ({} ids)",
            tell(a),
            inputs[texts.unique[0].0].path.display(),
            a.len(),
            tell(b),
            inputs[*model].path.display(),
            b.len(),
        )));
    }
    Ok(None)
}
