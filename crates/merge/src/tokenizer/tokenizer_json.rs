//! `tokenizer.json` as the `tokenizers` library writes it, borrowed from the text of the file: a
//! quarter of a million tokens and as many merges are read without an allocation for each.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};

/// A string that is borrowed unless it has escapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Text<'de>;
            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Strings)
    }
}

/// The kinds of models that the `tokenizers` library has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bpe,
    Unigram,
    WordPiece,
    WordLevel,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bpe => "BPE",
            Self::Unigram => "Unigram",
            Self::WordPiece => "WordPiece",
            Self::WordLevel => "WordLevel",
        }
    }
}

/// The vocabulary of a model in the order of the file.
#[derive(Debug)]
pub(super) enum Pieces<'a> {
    /// Token and id.
    Ids(Vec<(Text<'a>, u32)>),
    /// Token and score; the position is the id.
    Scores(Vec<(Text<'a>, f64)>),
}

/// A pair of tokens that become one.
pub(super) type Merge<'a> = (Cow<'a, str>, Cow<'a, str>);

/// A token that is found in the text before the model sees it.
#[expect(clippy::struct_excessive_bools, reason = "the fields of the file")]
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(super) struct AddedToken {
    pub id: u32,
    pub content: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    pub normalized: bool,
    pub special: bool,
}

impl AddedToken {
    /// As the `tokenizers` library makes one of a bare string.
    pub(super) fn plain(content: &str, id: u32) -> Self {
        Self {
            id,
            content: content.to_owned(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: true,
            special: false,
        }
    }

    /// Whether both are found in a text in the same way.
    pub(super) fn same_settings(&self, other: &Self) -> bool {
        let flags = |t: &Self| (t.single_word, t.lstrip, t.rstrip, t.normalized, t.special);
        self.content == other.content && flags(self) == flags(other)
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct TokenizerJson<'a> {
    pub kind: Kind,
    pub pieces: Pieces<'a>,
    /// Of BPE, the first has the highest rank.
    pub merges: Vec<Merge<'a>>,
    /// Whether merges are pairs, or strings with a space in between as older versions wrote them.
    pub merges_are_pairs: bool,
    pub added: Vec<AddedToken>,
    /// The other keys of `model`: flags, prefixes, the unknown token.
    pub model: Map<String, Value>,
    /// The other keys of the file: normalizer, pre-tokenizer, post-processor, decoder.
    pub rest: Map<String, Value>,
}

#[derive(serde::Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    model: Model<'a>,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(serde::Deserialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: Option<Kind>,
    #[serde(borrow)]
    vocab: Pieces<'a>,
    #[serde(borrow)]
    merges: Option<Merges<'a>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

struct Merges<'a> {
    pairs: Vec<Merge<'a>>,
    are_pairs: bool,
}

impl<'a> TokenizerJson<'a> {
    /// The file's content.
    pub(super) fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        let Head { model, added_tokens, rest } = serde_json::from_str(text)?;
        let Model { kind, vocab, merges, rest: model } = model;
        // Old files do not say their kind.
        let kind = kind.unwrap_or(match &vocab {
            _ if merges.is_some() => Kind::Bpe,
            Pieces::Scores(_) => Kind::Unigram,
            Pieces::Ids(_) if model.contains_key("max_input_chars_per_word") => Kind::WordPiece,
            Pieces::Ids(_) => Kind::WordLevel,
        });
        if (kind == Kind::Unigram) != matches!(vocab, Pieces::Scores(_)) {
            let wanted = if kind == Kind::Unigram { "list" } else { "map" };
            let reason = format!("the vocabulary of a {} model is not a {wanted}", kind.name());
            return Err(serde_json::Error::custom(reason));
        }
        let merges = merges.unwrap_or(Merges { pairs: Vec::new(), are_pairs: true });
        Ok(Self {
            kind,
            pieces: vocab,
            merges: merges.pairs,
            merges_are_pairs: merges.are_pairs,
            added: added_tokens,
            model,
            rest,
        })
    }

    /// How many tokens the model has without the added ones.
    pub(super) fn len(&self) -> usize {
        match &self.pieces {
            Pieces::Ids(ids) => ids.len(),
            Pieces::Scores(scores) => scores.len(),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pieces<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Both;
        impl<'de> Visitor<'de> for Both {
            type Value = Pieces<'de>;
            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a map of tokens to ids or a list of tokens with scores")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut ids = Vec::new();
                while let Some(entry) = map.next_entry::<Text<'de>, u32>()? {
                    ids.push(entry);
                }
                Ok(Pieces::Ids(ids))
            }
            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
                let mut scores = Vec::new();
                while let Some(entry) = seq.next_element::<(Text<'de>, f64)>()? {
                    scores.push(entry);
                }
                Ok(Pieces::Scores(scores))
            }
        }
        deserializer.deserialize_any(Both)
    }
}

/// One merge in either form.
enum Pair<'a> {
    Joined(Text<'a>),
    Apart(Text<'a>, Text<'a>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Pair<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Pair<'de>;
            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("two tokens, as a list or with a space in between")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Pair::Joined(Text(Cow::Borrowed(text))))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Pair::Joined(Text(Cow::Owned(text.to_owned()))))
            }
            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
                let mut part = |at| match seq.next_element::<Text<'de>>()? {
                    Some(text) => Ok(text),
                    None => Err(S::Error::invalid_length(at, &"two tokens")),
                };
                let (a, b) = (part(0)?, part(1)?);
                match seq.next_element::<serde::de::IgnoredAny>()? {
                    None => Ok(Pair::Apart(a, b)),
                    Some(_) => Err(S::Error::invalid_length(3, &"two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Merges<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Merges<'de>;
            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a list of merges")
            }
            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
                let mut merges = Merges { pairs: Vec::new(), are_pairs: true };
                while let Some(pair) = seq.next_element::<Pair<'de>>()? {
                    match pair {
                        Pair::Apart(a, b) => merges.pairs.push((a.0, b.0)),
                        Pair::Joined(text) => {
                            merges.are_pairs = false;
                            if text.0.starts_with("#version") {
                                continue;
                            }
                            merges.pairs.push(split(text.0).ok_or_else(|| {
                                S::Error::custom(format!(
                                    "merge {} is not two tokens with one space in between",
                                    merges.pairs.len()
                                ))
                            })?);
                        }
                    }
                }
                Ok(merges)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

fn split(joined: Cow<'_, str>) -> Option<Merge<'_>> {
    match joined {
        Cow::Borrowed(text) => {
            let (a, b) = text.split_once(' ')?;
            (!b.contains(' ')).then_some((Cow::Borrowed(a), Cow::Borrowed(b)))
        }
        Cow::Owned(text) => {
            let (a, b) = text.split_once(' ')?;
            (!b.contains(' ')).then(|| (Cow::Owned(a.to_owned()), Cow::Owned(b.to_owned())))
        }
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Text::deserialize(deserializer)?;
        let all = [Self::Bpe, Self::Unigram, Self::WordPiece, Self::WordLevel];
        all.into_iter().find(|kind| kind.name() == name.0).ok_or_else(|| {
            D::Error::unknown_variant(&name.0, &["BPE", "Unigram", "WordPiece", "WordLevel"])
        })
    }
}

/// What a merged tokenizer writes: the same file with other tokens.
#[derive(Debug)]
pub(super) struct Output<'t> {
    /// Of the tokenizer whose normalizer, pre-tokenizer and decoder are kept.
    pub rest: &'t Map<String, Value>,
    /// Of that tokenizer's model.
    pub model: &'t Map<String, Value>,
    pub kind: Kind,
    pub pieces: OutputPieces<'t>,
    pub merges: Vec<(&'t str, &'t str)>,
    pub merges_are_pairs: bool,
    pub added: &'t [AddedToken],
}

/// The vocabulary of the model.
#[derive(Debug)]
pub(super) enum OutputPieces<'t> {
    Ids(Vec<(&'t str, u32)>),
    Scores(Vec<(&'t str, f64)>),
}

impl Serialize for Output<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const BEFORE: [&str; 3] = ["version", "truncation", "padding"];
        let mut map = serializer.serialize_map(None)?;
        for key in BEFORE {
            if let Some(value) = self.rest.get(key) {
                map.serialize_entry(key, value)?;
            }
        }
        map.serialize_entry("added_tokens", self.added)?;
        for (key, value) in self.rest.iter().filter(|(key, _)| !BEFORE.contains(&key.as_str())) {
            map.serialize_entry(key, value)?;
        }
        map.serialize_entry("model", &OutputModel(self))?;
        map.end()
    }
}

struct OutputModel<'o>(&'o Output<'o>);

impl Serialize for OutputModel<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", self.0.kind.name())?;
        for (key, value) in self.0.model {
            map.serialize_entry(key, value)?;
        }
        match &self.0.pieces {
            OutputPieces::Ids(ids) => map.serialize_entry("vocab", &InOrder(ids))?,
            OutputPieces::Scores(scores) => map.serialize_entry("vocab", scores)?,
        }
        if self.0.kind == Kind::Bpe {
            if self.0.merges_are_pairs {
                map.serialize_entry("merges", &self.0.merges)?;
            } else {
                map.serialize_entry("merges", &JoinedMerges(&self.0.merges))?;
            }
        }
        map.end()
    }
}

struct InOrder<'o>(&'o [(&'o str, u32)]);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

struct JoinedMerges<'o>(&'o [(&'o str, &'o str)]);

impl Serialize for JoinedMerges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for (a, b) in self.0 {
            list.serialize_element(&format_args!("{a} {b}"))?;
        }
        list.end()
    }
}
