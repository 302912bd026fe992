//! The family of optimizers: how each changes a weight, and what it remembers of it.
//!
//! A member is one file with its settings, the tensors it keeps ([`Part`]) and its step. A step
//! runs as loops over the numbers themselves on the CPU, in place and in parallel, and as tensor
//! operations elsewhere.

use burn::tensor::{Int, Tensor};
use posttrain_model::Parameter;

use super::adafactor::Adafactor;
use super::adamw::AdamW;
use super::lion::Lion;
use super::muon::Muon;
use super::sgd::Sgd;
use super::{adamw8, muon};

/// How one parameter is changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    AdamW(AdamW),
    AdamW8Bit(AdamW),
    Adafactor(Adafactor),
    Lion(Lion),
    /// With the settings of AdamW for what Muon is not for.
    Muon(Muon, AdamW),
    Sgd(Sgd),
}

/// A tensor that a rule keeps for a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// PyTorch's name for it: `exp_avg`.
    pub(super) name: &'static str,
    pub(super) shape: [usize; 2],
    /// Codes of one byte rather than numbers in f32.
    pub(super) codes: bool,
}

impl Part {
    pub(super) fn numbers(name: &'static str, shape: [usize; 2]) -> Self {
        Self { name, shape, codes: false }
    }

    pub(super) fn codes(name: &'static str, shape: [usize; 2]) -> Self {
        Self { name, shape, codes: true }
    }

    pub(super) fn count(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    pub(super) fn bytes(&self) -> usize {
        if self.codes { self.count() } else { 4 * self.count() }
    }
}

/// The tensor of a [`Part`].
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Numbers(Tensor<2>),
    Codes(Tensor<2, Int>),
}

/// What a step is told beside weight, gradient and state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// η, the learning rate of this parameter.
    pub(super) rate: f64,
    /// λ, its weight decay.
    pub(super) decay: f64,
    /// t, from 1 on.
    pub(super) count: u64,
}

/// A weight with what is remembered of it.
pub(super) type Stepped = (Tensor<2>, Vec<Kept>);

impl Rule {
    /// The rule of a parameter, where it depends on the parameter.
    pub(super) fn of(self, parameter: &Parameter) -> Self {
        match self {
            Self::Muon(_, adamw) if !muon::is_for(parameter) => Self::AdamW(adamw),
            Self::AdamW8Bit(adamw) if !adamw8::is_for(parameter) => Self::AdamW(adamw),
            rule => rule,
        }
    }

    /// Whether the learning rate that a step is told is not used.
    pub(super) fn has_its_own_rate(&self) -> bool {
        matches!(self, Self::Adafactor(rule) if rule.has_its_own_rate())
    }

    /// What is kept of a parameter of this shape, all zero before the first step.
    pub(super) fn parts(&self, shape: &[usize]) -> Vec<Part> {
        let matrix = matrix(shape);
        match self {
            Self::AdamW(_) => AdamW::parts(matrix),
            Self::AdamW8Bit(_) => adamw8::parts(matrix),
            Self::Adafactor(rule) => rule.parts(matrix, shape.len() > 1),
            Self::Lion(_) => Lion::parts(matrix),
            Self::Muon(..) => Muon::parts(matrix),
            Self::Sgd(rule) => rule.parts(matrix),
        }
    }

    /// One step. `kept` is in the order of [`Rule::parts`]; weight and gradient are in f32 and of
    /// one shape.
    pub(super) fn step(
        &self,
        weight: Tensor<2>,
        gradient: Tensor<2>,
        kept: Vec<Kept>,
        step: Step,
    ) -> Stepped {
        match self {
            Self::AdamW(rule) => rule.step(weight, gradient, numbers(kept), step),
            Self::AdamW8Bit(rule) => adamw8::step(*rule, weight, gradient, kept, step),
            Self::Adafactor(rule) => rule.step(weight, gradient, kept, step),
            Self::Lion(rule) => rule.step(weight, gradient, numbers(kept), step),
            Self::Muon(rule, _) => rule.step(weight, gradient, numbers(kept), step),
            Self::Sgd(rule) => rule.step(weight, gradient, kept, step),
        }
    }
}

/// Vectors are matrices of one row here.
pub(super) fn matrix(shape: &[usize]) -> [usize; 2] {
    let columns = shape.last().copied().unwrap_or(1);
    [shape.iter().product::<usize>() / columns.max(1), columns]
}

/// The kept tensors of a rule that keeps `N` of numbers.
pub(super) fn numbers<const N: usize>(kept: Vec<Kept>) -> [Tensor<2>; N] {
    let numbers: Vec<Tensor<2>> = kept
        .into_iter()
        .filter_map(|kept| match kept {
            Kept::Numbers(numbers) => Some(numbers),
            Kept::Codes(_) => None,
        })
        .collect();
    numbers.try_into().expect("as many tensors as the rule has parts")
}

/// The opposite of [`numbers`].
pub(super) fn keep<const N: usize>(numbers: [Tensor<2>; N]) -> Vec<Kept> {
    numbers.map(Kept::Numbers).into()
}
