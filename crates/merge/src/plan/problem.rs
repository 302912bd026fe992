//! What does not fit, all of it at once.

use std::fmt::{self, Write as _};

/// Something that keeps a merge from being carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of thing does not fit.
    pub kind: ProblemKind,
    /// The tensor of the output, where it is about one.
    pub tensor: Option<String>,
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
        Self { kind, tensor: None, text: text.into() }
    }

    /// The same about a tensor of the output.
    pub(crate) fn of(self, tensor: &str) -> Self {
        Self { tensor: Some(tensor.into()), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tensor {
            Some(tensor) => write!(f, "tensor `{tensor}`: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Problems as one text: all kinds, and of each kind the first few with the number of the rest. What is said
/// of several tensors is said once.
pub(crate) fn listed(problems: &[Problem]) -> String {
    const OF_A_KIND: usize = 12;
    let mut kinds: Vec<ProblemKind> = problems.iter().map(|problem| problem.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut text = match problems.len() {
        1 => "a problem, nothing was written:".to_owned(),
        count => format!("{count} problems, nothing was written:"),
    };
    for kind in kinds {
        let mut said: Vec<(&Problem, usize)> = Vec::new();
        for problem in problems.iter().filter(|problem| problem.kind == kind) {
            match said.iter_mut().find(|(known, _)| known.text == problem.text) {
                Some((_, times)) => *times += 1,
                None => said.push((problem, 1)),
            }
        }
        for (problem, times) in said.iter().take(OF_A_KIND) {
            let more = match times {
                1 => String::new(),
                _ => format!(" (so for {} more tensors)", times - 1),
            };
            let _ = write!(text, "\n  {problem}{more}");
        }
        if said.len() > OF_A_KIND {
            let _ = write!(text, "\n  and {} more of this kind", said.len() - OF_A_KIND);
        }
    }
    text
}
