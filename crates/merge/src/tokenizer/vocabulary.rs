//! The tokens of one `tokenizer.json` with the ids that they get when it is loaded.
//!
//! The `tokenizers` library does not read the `id` of an added token: a token that the model's
//! vocabulary has takes that id, every other one the next free number after the vocabulary, in the
//! order of the file. transformers then adds the tokens that only `tokenizer_config.json` names.

use std::collections::HashMap;

use super::tokenizer_json::{AddedToken, Pieces, TokenizerJson};

/// Unused ids beyond twice the number of tokens are taken for damage when there are more.
const MAX_UNUSED: usize = 1 << 16;

/// Tokens and ids.
#[derive(Debug)]
pub(super) struct Vocabulary<'t> {
    pub json: &'t TokenizerJson<'t>,
    /// By id; `None` where no token has the id.
    pub tokens: Vec<Option<&'t str>>,
    /// By id: whether the model's vocabulary has the token, or only the added tokens.
    pub in_model: Vec<bool>,
    /// With the ids of above, ascending.
    pub added: Vec<AddedToken>,
    ids: HashMap<&'t str, u32>,
    /// Added tokens whose file says another id: content, id of the file, id when loaded.
    pub renumbered: Vec<(&'t str, u32, u32)>,
}

impl<'t> Vocabulary<'t> {
    /// `named` are the tokens of `tokenizer_config.json`, of which those that the file lacks count.
    /// The error is the reason without the path.
    pub(super) fn new(
        json: &'t TokenizerJson<'t>,
        named: &'t [AddedToken],
    ) -> Result<Self, String> {
        let mut all = Self {
            json,
            tokens: Vec::with_capacity(json.len() + json.added.len()),
            in_model: Vec::new(),
            added: Vec::new(),
            ids: HashMap::with_capacity(json.len() + json.added.len()),
            renumbered: Vec::new(),
        };
        match &json.pieces {
            Pieces::Ids(ids) => {
                for (token, id) in ids {
                    all.place(&token.0, *id)?;
                }
            }
            Pieces::Scores(scores) => {
                for (id, (token, _)) in (0..).zip(scores) {
                    all.place(&token.0, id)?;
                }
            }
        }
        all.in_model = all.tokens.iter().map(Option::is_some).collect();
        let mut next = json.len() as u32;
        let mut added: HashMap<&str, AddedToken> = HashMap::new();
        let unnamed = named.iter().map(|token| (false, token));
        for (in_file, token) in json.added.iter().map(|token| (true, token)).chain(unnamed) {
            let content = token.content.as_str();
            let known = all.ids.get(content).copied();
            if content.is_empty() || (!in_file && known.is_some()) {
                continue;
            }
            let id = if let Some(id) = known {
                id
            } else {
                all.place(content, next)?;
                next += 1;
                next - 1
            };
            if id != token.id && in_file {
                all.renumbered.push((content, token.id, id));
            }
            added.insert(content, AddedToken { id, ..token.clone() });
        }
        all.in_model.resize(all.tokens.len(), false);
        all.added = added.into_values().collect();
        all.added.sort_unstable_by_key(|token| token.id);
        Ok(all)
    }

    fn place(&mut self, token: &'t str, id: u32) -> Result<(), String> {
        let at = id as usize;
        let limit = 2 * (self.json.len() + self.json.added.len()) + MAX_UNUSED;
        if at >= limit {
            return Err(format!("token `{token}` has the id {id}, expected less than {limit}"));
        }
        if at >= self.tokens.len() {
            self.tokens.resize(at + 1, None);
        }
        if let Some(other) = self.tokens[at].replace(token) {
            return Err(format!("tokens `{other}` and `{token}` both have the id {id}"));
        }
        match self.ids.insert(token, id) {
            None => Ok(()),
            Some(other) => Err(format!("token `{token}` has the ids {other} and {id}")),
        }
    }

    /// The id of a token.
    pub(super) fn id_of(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// As [`id_of`](Self::id_of), quicker where the token has the id `guess`.
    pub(super) fn id_near(&self, token: &str, guess: usize) -> Option<u32> {
        match self.tokens.get(guess) {
            Some(Some(there)) if *there == token => Some(guess as u32),
            _ => self.id_of(token),
        }
    }
}

/// One input model: its tokens as far as its embedding matrix has rows for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'v, 't> {
    pub vocabulary: &'v Vocabulary<'t>,
    /// Rows of the embedding matrix.
    pub rows: usize,
}

impl<'v, 't> Member<'v, 't> {
    /// The row of a token.
    pub(super) fn row(self, token: &str, guess: usize) -> Option<u32> {
        self.vocabulary.id_near(token, guess).filter(|id| (*id as usize) < self.rows)
    }

    /// The tokens that have rows, by id, without a tail of unused ids.
    pub(super) fn tokens(self) -> &'v [Option<&'t str>] {
        let tokens = &self.vocabulary.tokens[..self.vocabulary.tokens.len().min(self.rows)];
        let used = tokens.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        &tokens[..used]
    }

    /// The tokens beyond the last row.
    pub(super) fn without_rows(self) -> impl Iterator<Item = (u32, &'t str)> {
        let tokens = self.vocabulary.tokens.iter().enumerate().skip(self.rows);
        tokens.filter_map(|(id, token)| token.map(|token| (id as u32, token)))
    }

    /// The added tokens that have rows.
    pub(super) fn added(self) -> impl Iterator<Item = &'v AddedToken> {
        self.vocabulary.added.iter().filter(move |token| (token.id as usize) < self.rows)
    }
}
