//! What does not fit, all of it at once.

use std::fmt;

/// Something that keeps a merge from being carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of thing does not fit.
    pub kind: ProblemKind,
    /// The thing, what was found, what was expected.
    pub text: String,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A model cannot be read.
    Model,
    /// The models are of different architectures.
    Architecture,
    /// A model is quantised in a way that is not read.
    Quantised,
    /// The method, or how many inputs it takes.
    Method,
    /// A parameter is missing, unknown or out of range.
    Parameter,
    /// A layer range, a slice or a module.
    Layers,
    /// A tensor has another shape in another input.
    Shape,
    /// A tensor has a type that cannot be merged.
    Dtype,
    /// A tensor is missing from an input.
    Missing,
    /// A tensor of an input goes nowhere.
    Unused,
    /// The vocabularies do not fit.
    Vocabulary,
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Problems as one text: all kinds, and of each kind the first few with the number of the rest.
pub(crate) fn listed(problems: &[Problem]) -> String {
    const OF_A_KIND: usize = 12;
    let mut text = format!(
        "{} problem{}, nothing was written:",
        problems.len(),
        if problems.len() == 1 { "" } else { "s" }
    );
    let mut kinds: Vec<ProblemKind> = problems.iter().map(|problem| problem.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of_kind: Vec<&Problem> =
            problems.iter().filter(|problem| problem.kind == kind).collect();
        for problem in of_kind.iter().take(OF_A_KIND) {
            text += &format!("\n  {problem}");
        }
        if of_kind.len() > OF_A_KIND {
            text += &format!("\n  and {} more of this kind", of_kind.len() - OF_A_KIND);
        }
    }
    text
}
