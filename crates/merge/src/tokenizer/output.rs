//! The merged vocabulary and its `tokenizer.json`.
//!
//! Ids are those of mergekit: the donor's tokens (the base model's, for a union) keep theirs. A
//! union then appends, model by model in the order of their ids, the tokens that the donor lacks;
//! then the added tokens that any model has and the donor lacks; then tokens of the configuration.
//!
//! Encoding: mergekit makes every appended token an added token, which is found as literal text
//! before any merge, in the middle of words that the base model would have encoded otherwise. Here
//! the appended tokens of a model become tokens of the vocabulary, and for BPE their merges follow
//! all merges of the donor: a text is encoded as the donor would, and then further pairs become one
//! where another model has a token for them. `WordPiece` takes the longest piece of the union,
//! Unigram the likeliest pieces of the union with each piece's score in its own model.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::tokenizer_json::{AddedToken, Kind, Merge, Output, OutputPieces, Pieces};
use super::vocabulary::Member;

/// The tokens of the output.
#[derive(Debug)]
pub(super) struct MergedVocabulary<'v, 't> {
    /// By id.
    pub tokens: Vec<Option<Cow<'v, str>>>,
    /// Ascending by id.
    pub added: Vec<AddedToken>,
    /// Appended tokens of the models' vocabularies: token, id, position of the model.
    pub pieces: Vec<(&'t str, u32, usize)>,
    /// The model whose file the output keeps.
    pub donor: usize,
    /// Whether the donor's file holds exactly these tokens.
    pub unchanged: bool,
}

/// The donor's vocabulary, the other models' tokens for a `union`, and `extra` tokens.
///
/// The error is the reason without the path. Tokens whose settings differ are told in `warnings`.
pub(super) fn merge<'v, 't>(
    members: &[Member<'v, 't>],
    names: &[String],
    donor: usize,
    union: bool,
    extra: &'v [&'v str],
    warnings: &mut Vec<String>,
) -> Result<MergedVocabulary<'v, 't>, String> {
    let own = members[donor];
    let mut out = MergedVocabulary {
        tokens: own.tokens().iter().map(|token| token.map(Cow::Borrowed)).collect(),
        added: own.added().cloned().collect(),
        pieces: Vec::new(),
        donor,
        unchanged: own.without_rows().next().is_none(),
    };
    let mut appended: HashMap<&str, u32> = HashMap::new();
    if union {
        // The donor first, so that its settings win.
        let others = (0..members.len()).filter(|model| *model != donor);
        let order: Vec<usize> = std::iter::once(donor).chain(others).collect();
        let added = all_added(members, names, &order, warnings);
        let contents: HashSet<&str> = added.iter().map(|t| t.content.as_str()).collect();
        for &model in &order[1..] {
            let tokens = members[model].tokens().iter().enumerate();
            for (id, token) in tokens.filter_map(|(id, token)| Some((id, (*token)?))) {
                if own.row(token, id).is_none()
                    && !appended.contains_key(token)
                    && !contents.contains(token)
                {
                    compatible(members, names, donor, model, token)?;
                    let id = out.tokens.len() as u32;
                    out.tokens.push(Some(Cow::Borrowed(token)));
                    out.pieces.push((token, id, model));
                    appended.insert(token, id);
                }
            }
        }
        let known: HashSet<&str> = own.added().map(|token| token.content.as_str()).collect();
        for token in added.iter().filter(|token| !known.contains(token.content.as_str())) {
            let id = own.row(&token.content, token.id as usize).unwrap_or_else(|| {
                out.tokens.push(Some(Cow::Borrowed(&token.content)));
                out.tokens.len() as u32 - 1
            });
            appended.insert(&token.content, id);
            out.added.push(AddedToken { id, ..(*token).clone() });
        }
        warn_of_pipelines(members, names, &out, warnings);
    }
    for &token in extra {
        if own.row(token, 0).is_none() && !appended.contains_key(token) {
            let id = out.tokens.len() as u32;
            out.tokens.push(Some(Cow::Borrowed(token)));
            out.added.push(AddedToken::plain(token, id));
            appended.insert(token, id);
        }
    }
    out.unchanged &= out.pieces.is_empty() && out.added.len() == own.added().count();
    out.added.sort_by_key(|token| token.id);
    Ok(out)
}

/// Every model's added tokens in the order in which they appear, each once with its first settings.
fn all_added<'v>(
    members: &[Member<'v, '_>],
    names: &[String],
    order: &[usize],
    warnings: &mut Vec<String>,
) -> Vec<&'v AddedToken> {
    let mut all: Vec<&AddedToken> = Vec::new();
    let mut first: HashMap<&str, (&AddedToken, usize)> = HashMap::new();
    for &model in order {
        for token in members[model].added() {
            let (kept, of) = *first.entry(&token.content).or_insert_with(|| {
                all.push(token);
                (token, model)
            });
            if !kept.same_settings(token) {
                warnings.push(format!(
                    "added token `{}` has other settings in {} ({}) than in {} ({}): the latter \
                     are kept",
                    token.content,
                    names[model],
                    flags(token),
                    names[of],
                    flags(kept),
                ));
            }
        }
    }
    for token in &all {
        for &model in order {
            let vocabulary = members[model].vocabulary;
            let plain = members[model].row(&token.content, token.id as usize).is_some_and(|id| {
                vocabulary.added.binary_search_by_key(&id, |added| added.id).is_err()
            });
            if plain {
                warnings.push(format!(
                    "`{}` is an added token ({}) in {} and plain text in {}: it is an added token \
                     of the output",
                    token.content,
                    flags(token),
                    names[first[token.content.as_str()].1],
                    names[model],
                ));
            }
        }
    }
    all
}

fn flags(token: &AddedToken) -> String {
    let all = [
        ("special", token.special),
        ("normalized", token.normalized),
        ("single_word", token.single_word),
        ("lstrip", token.lstrip),
        ("rstrip", token.rstrip),
    ];
    let set: Vec<&str> = all.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    if set.is_empty() { "no flags".into() } else { set.join(", ") }
}

/// Whether a token of one model's vocabulary means something in the donor's.
fn compatible(
    members: &[Member<'_, '_>],
    names: &[String],
    donor: usize,
    model: usize,
    token: &str,
) -> Result<(), String> {
    let (own, other) = (members[donor].vocabulary.json, members[model].vocabulary.json);
    if own.kind != other.kind {
        return Err(format!(
            "a union of {} and {} vocabularies has no meaning: {} has `{token}`, {} does not; \
             use `base` or one of the models as the source of the tokenizer",
            own.kind.name(),
            other.kind.name(),
            names[model],
            names[donor],
        ));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        let [a, b] = [own, other].map(|json| json.model.get(key).filter(|value| !value.is_null()));
        if a != b {
            return Err(format!(
                "no union: `{key}` is {} in {} and {} in {}",
                a.unwrap_or(&serde_json::Value::Null),
                names[donor],
                b.unwrap_or(&serde_json::Value::Null),
                names[model],
            ));
        }
    }
    Ok(())
}

/// Tokens of a model that splits texts otherwise than the donor may not be found in any text.
fn warn_of_pipelines(
    members: &[Member<'_, '_>],
    names: &[String],
    out: &MergedVocabulary<'_, '_>,
    warnings: &mut Vec<String>,
) {
    let own = members[out.donor].vocabulary.json;
    let mut counts: Vec<(usize, usize, &str)> = Vec::new();
    for (token, _, model) in &out.pieces {
        match counts.iter_mut().find(|(of, ..)| of == model) {
            Some((_, count, _)) => *count += 1,
            None => counts.push((*model, 1, token)),
        }
    }
    for (model, count, token) in counts {
        let other = members[model].vocabulary.json;
        let parts = ["normalizer", "pre_tokenizer", "decoder"].into_iter();
        let mut differ: Vec<&str> =
            parts.filter(|k| own.rest.get(*k) != other.rest.get(*k)).collect();
        let flags = ["byte_fallback", "ignore_merges", "fuse_unk"].into_iter();
        differ.extend(flags.filter(|k| own.model.get(*k) != other.model.get(*k)));
        if !differ.is_empty() {
            warnings.push(format!(
                "{} adds {count} tokens to the vocabulary (the first is `{token}`), but its {} \
                 differ from those of {}, which the output keeps: the tokens may not be found in \
                 texts, or be spelled otherwise",
                names[model],
                differ.join(", "),
                names[out.donor],
            ));
        }
    }
}

/// The merged `tokenizer.json`. The error is the reason without the path.
pub(super) fn tokenizer_json<'o>(
    out: &'o MergedVocabulary<'_, '_>,
    members: &[Member<'o, '_>],
) -> Result<Output<'o>, String> {
    let own = members[out.donor];
    let json = own.vocabulary.json;
    let mut ids: Vec<(&str, u32)> = Vec::with_capacity(out.tokens.len());
    for (id, token) in own.tokens().iter().enumerate() {
        if let (Some(token), true) = (token, own.vocabulary.in_model[id]) {
            ids.push((token, id as u32));
        }
    }
    ids.extend(out.pieces.iter().map(|(token, id, _)| (*token, *id)));
    if !loads_as_meant(&ids, &out.added) {
        // With their ids in the vocabulary, the order of the added tokens decides nothing.
        let known: HashSet<u32> = ids.iter().map(|(_, id)| *id).collect();
        let missing = out.added.iter().filter(|token| !known.contains(&token.id));
        ids.extend(missing.map(|token| (token.content.as_str(), token.id)));
    }
    ids.sort_unstable_by_key(|(_, id)| *id);
    let pieces = match &json.pieces {
        Pieces::Ids(_) => OutputPieces::Ids(ids),
        Pieces::Scores(scores) => {
            let least = scores.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
            let appended: HashMap<u32, f64> = out
                .pieces
                .iter()
                .map(|(token, id, model)| (*id, score(members[*model], token, least)))
                .collect();
            let score_of = |id: u32| match scores.get(id as usize) {
                Some((_, score)) if (id as usize) < own.rows => *score,
                // Added tokens are found before the model looks; their score only must not be less
                // than the others, from which the score of unknown text is derived.
                _ => appended.get(&id).copied().unwrap_or(least),
            };
            if let Some((at, (token, id))) =
                ids.iter().enumerate().find(|(at, (_, id))| *at != *id as usize)
            {
                return Err(format!(
                    "token `{token}` has the id {id} and no token has the id {at}: a Unigram \
                     vocabulary has no gaps"
                ));
            }
            OutputPieces::Scores(ids.iter().map(|(token, id)| (*token, score_of(*id))).collect())
        }
    };
    Ok(Output {
        rest: &json.rest,
        model: &json.model,
        kind: json.kind,
        pieces,
        merges_are_pairs: json.merges_are_pairs
            || out.pieces.iter().any(|(token, ..)| token.contains(' ')),
        merges: merges(out, members),
        added: &out.added,
    })
}

fn score(member: Member<'_, '_>, token: &str, least: f64) -> f64 {
    match (&member.vocabulary.json.pieces, member.row(token, 0)) {
        (Pieces::Scores(scores), Some(id)) => {
            scores.get(id as usize).map_or(least, |(_, score)| *score)
        }
        _ => least,
    }
}

/// Whether the `tokenizers` library gives the added tokens the ids that they shall have.
fn loads_as_meant(pieces: &[(&str, u32)], added: &[AddedToken]) -> bool {
    let known: HashSet<u32> = pieces.iter().map(|(_, id)| *id).collect();
    let new = added.iter().filter(|token| !known.contains(&token.id));
    (pieces.len() as u32..).zip(new).all(|(next, token)| next == token.id)
}

/// The donor's merges whose tokens are left, then those of the other models that use or make a
/// token that the donor lacks.
fn merges<'o>(
    out: &MergedVocabulary<'_, '_>,
    members: &[Member<'o, '_>],
) -> Vec<(&'o str, &'o str)> {
    let own = members[out.donor];
    let json = own.vocabulary.json;
    let prefix = json.model.get("continuing_subword_prefix").and_then(serde_json::Value::as_str);
    let prefix = prefix.unwrap_or_default();
    let mut made = String::new();
    let new: HashSet<&str> = out.pieces.iter().map(|(token, ..)| *token).collect();
    // Whether all three tokens of a merge exist, and, if asked, whether one of them is new.
    let mut fits = |a: &str, b: &str, some_new: bool| {
        made.clear();
        made.push_str(a);
        made.push_str(b.strip_prefix(prefix).unwrap_or(b));
        let three = [a, b, made.as_str()];
        let exist = |token: &&str| own.row(token, 0).is_some() || new.contains(token);
        (!some_new || three.iter().any(|token| new.contains(token))) && three.iter().all(exist)
    };
    let pairs = |merges: &'o [Merge<'_>]| merges.iter().map(|(a, b)| (a.as_ref(), b.as_ref()));
    let whole = own.without_rows().next().is_none();
    let mut merges: Vec<(&str, &str)> =
        pairs(&json.merges).filter(|(a, b)| whole || fits(a, b, false)).collect();
    if new.is_empty() {
        return merges;
    }
    // Inputs with the same file share what was read of it.
    let mut files = if whole { vec![std::ptr::from_ref(json)] } else { Vec::new() };
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for other in members.iter().map(|member| member.vocabulary.json) {
        if other.kind != Kind::Bpe || files.contains(&std::ptr::from_ref(other)) {
            continue;
        }
        files.push(other);
        for (a, b) in pairs(&other.merges) {
            if fits(a, b, true) && seen.insert((a, b)) {
                merges.push((a, b));
            }
        }
    }
    merges
}

/// Ids that the post-processor adds to every text although no token has them.
pub(super) fn missing_in_post_processor(
    out: &MergedVocabulary<'_, '_>,
    json: &Output<'_>,
) -> Option<u64> {
    let mut ids = Vec::new();
    if let Some(post_processor) = json.rest.get("post_processor") {
        post_processor_ids(post_processor, &mut ids);
    }
    ids.into_iter().find(|id| !matches!(out.tokens.get(*id as usize), Some(Some(_))))
}

fn post_processor_ids(value: &serde_json::Value, ids: &mut Vec<u64>) {
    for key in ["sep", "cls"] {
        ids.extend(value.get(key).and_then(|pair| pair.get(1)?.as_u64()));
    }
    if let Some(special) = value.get("special_tokens").and_then(serde_json::Value::as_object) {
        let lists = special.values().filter_map(|token| token.get("ids")?.as_array());
        ids.extend(lists.flatten().filter_map(serde_json::Value::as_u64));
    }
    for inner in value.get("processors").and_then(serde_json::Value::as_array).into_iter().flatten()
    {
        post_processor_ids(inner, ids);
    }
}
