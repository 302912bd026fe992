//! A merge before a byte of it is written: every tensor of the output and where it comes from, what is read
//! and written, and everything that does not fit.
//!
//! Only headers and configurations are read for it.

mod check;
mod companions;
mod coverage;
mod estimate;
mod fingerprint;
mod input;
mod layers;
pub(crate) mod layout;
mod output;
mod pieces;
mod problem;
pub(crate) mod quantised;
mod show;
mod tensor;
mod vocabulary;

pub use companions::Companions;
pub use coverage::{Coverage, Fate};
pub use estimate::Estimate;
pub use input::Input;
pub use output::{Origin, Output};
pub(crate) use problem::listed;
pub use problem::{Problem, ProblemKind};

use crate::Error;
use crate::config::{MergeConfig, ModelRef};
use crate::methods::Registry;
use tensor::Context;

/// How a plan is made of a configuration.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// What random numbers depend on.
    pub seed: u64,
    /// The type that arithmetic is done in.
    pub arithmetic: Arithmetic,
    /// What happens to a tensor that some of the inputs lack.
    pub missing: Missing,
    /// The methods that configurations may name.
    pub registry: Registry,
}

/// The type that arithmetic is done in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32, whatever the inputs are; rounded once, at the end.
    #[default]
    Float32,
    /// The type of the inputs, every intermediate result rounded to it, as mergekit does for most methods.
    Input,
}

impl Arithmetic {
    /// As manifests have it: `float32` or `input`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Input => "input",
        }
    }
}

/// What happens to a tensor that some of the inputs lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// It is a problem.
    #[default]
    Error,
    /// It is merged of the inputs that have it; copied where only one has it.
    Union,
    /// It is left out.
    Intersection,
}

/// A merge that can be carried out.
///
/// ```no_run
/// use std::path::Path;
/// use posttrain_merge::config::MergeConfig;
/// use posttrain_merge::{Execution, Plan, PlanOptions, execute};
///
/// let config = MergeConfig::read("merge.yaml")?;
/// let plan = Plan::new(&config, PlanOptions::default())?;
/// println!("{plan}");
/// execute(&plan, Path::new("merged"), &Execution::default(), &|_| true)?;
/// # Ok::<(), posttrain_merge::Error>(())
/// ```
#[derive(Debug)]
pub struct Plan {
    config: MergeConfig,
    options: PlanOptions,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    coverage: Vec<Coverage>,
    companions: Companions,
    warnings: Vec<String>,
}

impl Plan {
    /// Plans what a configuration asks for.
    ///
    /// # Errors
    /// [`Error::Problems`] with everything that does not fit: models that cannot be read, architectures,
    /// parameters, layer ranges, shapes, types, missing tensors and such that would go nowhere.
    pub fn new(config: &MergeConfig, options: PlanOptions) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let method = check::method(config, &options.registry, &mut problems, &mut warnings)?;
        let inputs = open_inputs(config, &mut problems);
        if !problems.is_empty() {
            return Err(Error::Problems { problems });
        }
        let donor = donor(config, &inputs);
        check::architectures(&inputs, &mut problems);
        let vocabulary = vocabulary::Vocabulary::new(config, &inputs)?;
        let sections = pieces::sections(config, &inputs, &inputs[donor].layout, &mut problems);
        for section in &sections {
            for slice in section.slices() {
                check::slice(slice, method, &inputs, &mut problems);
            }
        }
        if !problems.is_empty() {
            return Err(Error::Problems { problems });
        }
        let (outputs, coverage, layers) = {
            let mut all = Vec::new();
            let mut layers = Vec::new();
            for section in &sections {
                let (pieces, taken) = section.pieces(&inputs, &inputs[donor].layout, &mut problems);
                all.extend(pieces);
                layers.extend(taken);
            }
            pieces::in_order(&mut all);
            let context = Context {
                config,
                inputs: &inputs,
                method,
                options: &options,
                vocabulary: vocabulary.as_ref(),
            };
            let outputs: Vec<Output> =
                all.iter().filter_map(|piece| context.output(piece, &mut problems)).collect();
            let coverage = coverage::of(&inputs, &outputs, &all, &options, &mut problems);
            (outputs, coverage, layers)
        };
        if outputs.is_empty() && problems.is_empty() {
            problems.push(Problem::new(ProblemKind::Layers, "the merge has no tensors"));
        }
        if !problems.is_empty() {
            return Err(Error::Problems { problems });
        }
        let companions =
            Companions::new(config, &inputs, donor, &outputs, &layers, vocabulary.as_ref())?;
        warnings.extend(companions.warnings().iter().cloned());
        drop(sections);
        let config = config.clone();
        Ok(Self { config, options, inputs, outputs, coverage, companions, warnings })
    }

    /// The configuration.
    pub fn config(&self) -> &MergeConfig {
        &self.config
    }

    /// What random numbers depend on.
    pub fn seed(&self) -> u64 {
        self.options.seed
    }

    /// How the plan was made.
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// The inputs, the base among them, in the order in which the configuration names them.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The tensors of the output, in the order in which they are written.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// What becomes of every tensor of every input.
    pub fn coverage(&self) -> &[Coverage] {
        &self.coverage
    }

    /// Configuration, tokenizer and other files that go with the weights.
    pub fn companions(&self) -> &Companions {
        &self.companions
    }

    /// What deserves attention and keeps nothing from being done.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Opens every model once, in the order of the configuration.
fn open_inputs(config: &MergeConfig, problems: &mut Vec<Problem>) -> Vec<Input> {
    let mut references: Vec<&ModelRef> = Vec::new();
    for model in config.models() {
        if !references.contains(&model) {
            references.push(model);
        }
    }
    let mut inputs = Vec::new();
    for reference in references {
        match Input::open(reference) {
            Ok(input) => inputs.push(input),
            Err(error) => {
                let quantised = error.to_string().contains("quantised with");
                let kind = if quantised { ProblemKind::Quantised } else { ProblemKind::Model };
                problems.push(Problem::new(kind, format!("model {reference}: {error}")));
            }
        }
    }
    inputs
}

/// The model whose configuration and tokenizer the output has: the base, or the first.
fn donor(config: &MergeConfig, inputs: &[Input]) -> usize {
    let base = config.base_model.as_ref();
    base.and_then(|base| inputs.iter().position(|input| input.reference == *base)).unwrap_or(0)
}
