//! From a tree to the tokenizer.

use super::key_path::key;
use super::node::{Node, Yaml};
use super::parameter::Scalar;
use super::read_model::{MODEL, model};
use super::reader::{At, Problems};
use super::tokenizer::{TokenConfig, TokenName, TokenSource, TokenizerConfig, TokenizerSource};

/// `union`, `base` or a model.
pub(crate) fn source(at: &At<'_>, problems: &mut Problems) -> Option<TokenizerSource> {
    match &at.node.yaml {
        Yaml::Text(text) if text == "union" => Some(TokenizerSource::Union),
        Yaml::Text(text) if text == "base" => Some(TokenizerSource::Base),
        Yaml::Text(_) | Yaml::Map(_) => model(at, problems).map(TokenizerSource::Model),
        _ => {
            problems.text(at, "`union`, `base` or a model");
            None
        }
    }
}

/// The section `tokenizer`.
pub(crate) fn tokenizer(at: &At<'_>, problems: &mut Problems) -> Option<TokenizerConfig> {
    let known = ["source", "tokens", "pad_to_multiple_of"];
    let fields =
        problems.fields(at, &known, "a mapping of source, tokens and pad_to_multiple_of")?;
    let source = match fields.get("source") {
        Some(at) => source(&at, problems),
        None => Some(TokenizerSource::Union),
    };
    let tokens = match fields.optional("tokens") {
        Some(at) => tokens(&at, problems),
        None => Vec::new(),
    };
    let pad_to_multiple_of = fields.optional("pad_to_multiple_of").and_then(|at| {
        let rows = |scalar: &Scalar| scalar.integer().and_then(|rows| usize::try_from(rows).ok());
        problems.scalar(&at, "a whole number from 1 on", |rows_of| rows(rows_of).filter(|n| *n > 0))
    });
    Some(TokenizerConfig { source: source?, tokens, pad_to_multiple_of })
}

fn tokens(at: &At<'_>, problems: &mut Problems) -> Vec<(String, TokenConfig)> {
    let expected = "a mapping from tokens to {source, force}";
    let entries: &[(String, usize, Node)] = problems.entries(at, expected).unwrap_or_default();
    let mut tokens = Vec::new();
    for (token, _, node) in entries {
        let at = At { path: key(&at.path, token), node };
        let known = ["source", "force"];
        let Some(fields) = problems.fields(&at, &known, "a mapping of source and force") else {
            continue;
        };
        let source = fields.optional("source").and_then(|at| token_source(&at, problems));
        let force = fields
            .get("force")
            .and_then(|at| problems.scalar(&at, "true or false", Scalar::boolean))
            .unwrap_or_default();
        tokens.push((token.clone(), TokenConfig { source, force }));
    }
    tokens
}

fn token_source(at: &At<'_>, problems: &mut Problems) -> Option<TokenSource> {
    let Yaml::Map(entries) = &at.node.yaml else {
        return model(at, problems).map(TokenSource::Model);
    };
    let of_a_token = ["kind", "token", "token_id"];
    if !entries.iter().any(|(name, ..)| of_a_token.contains(&&**name)) {
        return model(at, problems).map(TokenSource::Model);
    }
    let kinds = "`model_token` or `zero`";
    let known = ["kind", "model", "token", "token_id"];
    let fields = problems.fields(at, &known, "a mapping with `kind`")?;
    let at_kind = fields.required(problems, "kind", kinds)?;
    match &*problems.text(&at_kind, kinds)? {
        "zero" => {
            for name in &known[1..] {
                if let Some(at) = fields.get(name) {
                    problems.wrong(&at, "no such key with `kind: zero`");
                }
            }
            Some(TokenSource::Zero)
        }
        "model_token" => {
            let model =
                fields.required(problems, "model", MODEL).and_then(|at| self::model(&at, problems));
            let token = match (fields.optional("token"), fields.optional("token_id")) {
                (Some(at), None) => problems.text(&at, "a token").map(TokenName::Text),
                (None, Some(at)) => {
                    let id =
                        |scalar: &Scalar| scalar.integer().and_then(|id| u32::try_from(id).ok());
                    problems.scalar(&at, "the id of a token", id).map(TokenName::Id)
                }
                (found, _) => {
                    let found = if found.is_some() { "both" } else { "none" };
                    let problem = format!(
                        "`{}` has {found} of `token` and `token_id`, expected one",
                        at.path
                    );
                    problems.add(at.node.line, problem);
                    None
                }
            };
            Some(TokenSource::ModelToken { model: model?, token: token? })
        }
        other => {
            let near = super::suggestion::did_you_mean(other, ["model_token", "zero"]);
            problems.wrong(&at_kind, &format!("{kinds}{near}"));
            None
        }
    }
}
