//! Where two checkpoints differ, and what an adapter can have of it.

use std::collections::BTreeSet;

use rayon::prelude::*;
use regex::Regex;

use super::extract::{Embeddings, ExtractOptions, Others, same_bytes};
use super::names;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::{Error, dtype};

/// What a tensor that differs becomes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Factors.
    LowRank,
    /// Its module is saved as a whole.
    Whole,
    /// A trained bias.
    Bias,
    /// Nothing, for this reason.
    Left(String),
}

/// A tensor that differs.
#[derive(Clone, Debug)]
pub(super) struct Difference<'a> {
    pub(super) name: &'a str,
    /// Absent where the shapes differ.
    pub(super) base: Option<&'a Tensor>,
    pub(super) tuned: &'a Tensor,
    pub(super) kind: Kind,
    vocabulary: names::Vocabulary,
}

impl Difference<'_> {
    /// The path of its module.
    pub(super) fn module(&self) -> &str {
        names::module_of(self.name)
    }

    pub(super) fn is_embedding(&self) -> bool {
        self.vocabulary == names::Vocabulary::Embedding
    }

    pub(super) fn resized(&self) -> bool {
        self.base.is_none()
    }
}

/// What of two checkpoints differs.
#[derive(Debug)]
pub(super) struct Differences<'a> {
    pub(super) changed: Vec<Difference<'a>>,
    pub(super) unchanged: usize,
    pub(super) uncovered: Vec<(String, String)>,
}

/// Compares two checkpoints, tensor by tensor.
pub(super) fn differences<'a>(
    base: &'a Checkpoint,
    tuned: &'a Checkpoint,
    options: &ExtractOptions,
) -> Result<Differences<'a>, Error> {
    let include = expressions("include", &options.include)?;
    let exclude = expressions("exclude", &options.exclude)?;
    let only = |one: &Checkpoint, other: &Checkpoint| -> Vec<(String, String)> {
        let reason = format!("only in {}", one.path().display());
        let names = one.tensors().keys().filter(|name| !other.tensors().contains_key(*name));
        names.map(|name| (name.clone(), reason.clone())).collect()
    };
    let mut uncovered = only(base, tuned);
    uncovered.extend(only(tuned, base));
    let pairs: Vec<(&String, &Tensor, &Tensor)> = tuned
        .tensors()
        .iter()
        .filter_map(|(name, tensor)| Some((name, base.tensors().get(name)?, tensor)))
        .collect();
    let same: Vec<bool> = pairs.par_iter().map(|(_, a, b)| same_bytes(a, b)).collect();
    let unchanged = same.iter().filter(|same| **same).count();

    let mut problems = Vec::new();
    let mut changed = Vec::new();
    for ((name, before, after), _) in pairs.into_iter().zip(same).filter(|(_, same)| !same) {
        let vocabulary = names::vocabulary(name, after.shape(), tuned.config());
        let module = names::module_of(name);
        let left_out = !include.is_empty() && !include.iter().any(|regex| regex.is_match(module))
            || exclude.iter().any(|regex| regex.is_match(module));
        let mut difference =
            Difference { name, base: Some(before), tuned: after, kind: Kind::Whole, vocabulary };
        if left_out {
            difference.kind = Kind::Left("left out by `include` or `exclude`".into());
            difference.base = difference.base.filter(|_| before.shape() == after.shape());
        } else if before.shape() != after.shape() {
            let grown =
                vocabulary != names::Vocabulary::No && before.shape()[1..] == after.shape()[1..];
            if !grown || options.embeddings != Embeddings::Whole {
                let how = if grown {
                    ": the vocabulary has another size, save embeddings as a whole"
                } else {
                    ""
                };
                let (a, b) = (before.shape(), after.shape());
                problems.push(format!(
                    "tensor `{name}` is {a:?} in the base and {b:?} in the tuned model{how}"
                ));
            }
            difference.base = None;
        } else {
            difference.kind = kind(name, after, vocabulary, options);
        }
        if difference.kind == Kind::LowRank && difference.is_embedding() && names::is_tied(tuned) {
            problems.push(format!(
                "tensor `{name}` is the head as well (tie_word_embeddings): factors would change only one of the \
                 two, save embeddings as a whole"
            ));
        }
        changed.push(difference);
    }
    if !problems.is_empty() {
        return Err(Error::Adapter { path: tuned.path().to_owned(), problems });
    }
    keep_apart(&mut changed);
    Ok(Differences { changed, unchanged, uncovered })
}

fn kind(
    name: &str,
    tensor: &Tensor,
    vocabulary: names::Vocabulary,
    options: &ExtractOptions,
) -> Kind {
    let whole = |kind: Kind, what: &str| match options.others {
        Others::Whole => kind,
        Others::Leave => Kind::Left(format!("{what}: has no factors")),
    };
    let shape = tensor.shape();
    let end = name.rsplit('.').next().unwrap_or(name);
    if !dtype::is_float(tensor.dtype()) {
        return Kind::Left(format!("{:?} is no floating-point number", tensor.dtype()));
    }
    match (end, shape.len(), vocabulary) {
        ("weight", 2, names::Vocabulary::No) => Kind::LowRank,
        ("weight", 2, _) if options.embeddings == Embeddings::LowRank => Kind::LowRank,
        ("weight", 2, _) => Kind::Whole,
        ("weight", ..) => whole(Kind::Whole, &format!("{} dimensions", shape.len())),
        ("bias", ..) => whole(Kind::Bias, "a bias"),
        _ => Kind::Left(format!("`{end}` is neither a weight nor a bias of a module")),
    }
}

/// Modules that are saved as a whole have no adapted modules inside, and their biases go with them.
fn keep_apart(changed: &mut [Difference<'_>]) {
    let adapted: Vec<String> =
        changed.iter().filter(|d| d.kind == Kind::LowRank).map(|d| d.module().to_owned()).collect();
    let mut whole = BTreeSet::new();
    for difference in changed.iter_mut().filter(|d| d.kind == Kind::Whole) {
        let inside = format!("{}.", difference.module());
        if adapted.iter().any(|module| module.starts_with(&inside)) {
            difference.kind = Kind::Left("its module has adapted modules inside".into());
        } else {
            whole.insert(difference.module().to_owned());
        }
    }
    for difference in changed.iter_mut().filter(|d| d.kind == Kind::Bias) {
        if whole.contains(difference.module()) {
            difference.kind = Kind::Whole;
        }
    }
}

fn expressions(key: &str, patterns: &[String]) -> Result<Vec<Regex>, Error> {
    let compile = |pattern: &String| {
        Regex::new(pattern)
            .map_err(|error| Error::value(key, format!("`{pattern}`"), error.to_string()))
    };
    patterns.iter().map(compile).collect()
}
