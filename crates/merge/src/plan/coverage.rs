//! Every tensor of every input is accounted for: merged, copied, or left behind for a reason.

use std::collections::BTreeSet;

use super::input::Input;
use super::layout::Position;
use super::output::{Origin, Output};
use super::pieces::Piece;
use super::problem::{Problem, ProblemKind};
use super::{Missing, PlanOptions, quantised};
use serde::{Deserialize, Serialize};

/// What becomes of a tensor of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is merged into this many tensors of the output.
    Merged(usize),
    /// It is copied as it is to this many tensors of the output.
    Copied(usize),
    /// It is left behind, for this reason.
    Left(String),
}

/// What becomes of the tensors of one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The input's name.
    pub input: String,
    /// Every stored tensor with its fate.
    pub tensors: Vec<(String, Fate)>,
}

impl Coverage {
    /// How many tensors are merged, copied and left behind.
    pub fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for (_, fate) in &self.tensors {
            counts[match fate {
                Fate::Merged(_) => 0,
                Fate::Copied(_) => 1,
                Fate::Left(_) => 2,
            }] += 1;
        }
        counts
    }
}

/// The fate of every tensor; a tensor that would be lost without a reason is a problem.
pub(super) fn of(
    inputs: &[Input],
    outputs: &[Output],
    pieces: &[Piece<'_, '_>],
    options: &PlanOptions,
    problems: &mut Vec<Problem>,
) -> Vec<Coverage> {
    let mut merged: Vec<std::collections::HashMap<&str, [usize; 2]>> =
        vec![std::collections::HashMap::new(); inputs.len()];
    for output in outputs {
        let kind = usize::from(matches!(output.origin, Origin::Copy { .. }));
        for (input, tensor) in output.stored() {
            if let Some(name) = inputs[input].name_of(tensor) {
                merged[input].entry(name).or_default()[kind] += 1;
            }
        }
    }
    // A piece that became no output: its problem has been told already, or it was left out on request.
    let written: BTreeSet<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
    let asked: BTreeSet<(usize, &str)> = pieces
        .iter()
        .filter(|piece| !written.contains(piece.name.as_str()))
        .flat_map(|piece| {
            piece
                .slice
                .sources
                .iter()
                .zip(&piece.names)
                .map(|(source, name)| (source.input, name.as_str()))
        })
        .collect();
    // Of which modules, as each input has them, the configuration chooses layers.
    let mut sliced: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); inputs.len()];
    for piece in pieces {
        for (source, name) in piece.slice.sources.iter().zip(&piece.names) {
            if source.is_sliced() {
                let (module, _) = inputs[source.input].layout.position(name);
                sliced[source.input].insert(module);
            }
        }
    }
    let used = |input: usize| {
        pieces.iter().any(|piece| piece.slice.sources.iter().any(|source| source.input == input))
    };
    let identical = |name: &str| {
        // Bytes that every input has the same are taken from the first.
        outputs
            .iter()
            .find(|output| output.name == name)
            .is_some_and(|output| matches!(output.origin, Origin::Copy { .. }))
    };
    let fate = |index: usize, input: &Input, name: &str| -> Result<Fate, ()> {
        match merged[index].get(name) {
            Some([0, copied]) => return Ok(Fate::Copied(*copied)),
            Some([merged, copied]) => return Ok(Fate::Merged(merged + copied)),
            None => {}
        }
        let left = |reason: &str| Ok(Fate::Left(reason.into()));
        if let Some(reason) = quantised::role(name, input.checkpoint()) {
            return left(reason);
        }
        if !used(index) {
            return left("the model gives its tokenizer or single embeddings only");
        }
        if asked.contains(&(index, name)) {
            return left(match options.missing {
                Missing::Intersection => "not in all inputs (`missing: intersection`)",
                _ => "see the problems",
            });
        }
        if identical(name) {
            return left(
                "the output has the bytes of another input here, which this method copies",
            );
        }
        if input.replaced(name) {
            return left("the adapter brings another in its place");
        }
        let (module, position) = input.layout.position(name);
        if sliced[index].contains(&module) {
            return left(match position {
                Position::Layer(..) => "its layer is in no slice",
                Position::Before => "what stands before the layers comes from the first slice",
                Position::After => "what stands behind the layers comes from the last slice",
            });
        }
        Err(())
    };
    inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let tensors = input.stored().iter().map(|(name, _)| {
                let fate = fate(index, input, name).unwrap_or_else(|()| {
                    let text = format!("tensor `{name}` of {} would go nowhere", input.name);
                    problems.push(Problem::new(ProblemKind::Unused, text));
                    Fate::Left("lost".into())
                });
                (name.clone(), fate)
            });
            Coverage { input: input.name.clone(), tensors: tensors.collect() }
        })
        .collect()
}
