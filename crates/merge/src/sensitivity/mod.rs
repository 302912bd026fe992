//! What merging these models would meet: how far each went from the base, whether they went the same way, where
//! their signs disagree, and how much of what they changed lies in a few elements.
//!
//! With `x_i` a model, `b` the base and `d_i = x_i - b`: distances `||d_i|| / ||b||`, cosines between the task
//! vectors `d_i` (Ilharco et al. 2022, arXiv 2212.04089), conflicts of their signs (TIES, Yadav et al. 2023,
//! arXiv 2306.01708), the share that the largest elements hold, and stable ranks. For each tensor, each layer, each
//! kind of module and everything. The models are read from mapped files block by block.

mod heat_map;
mod html;
mod inputs;
mod measures;
mod number;
mod style;
mod suggest;
mod sums;
mod tables;
mod tensor;

use std::path::PathBuf;

use serde::Serialize;

use inputs::Inputs;
pub use inputs::{LeftOut, Place};
pub use measures::{Measures, OfModel, OfPair, Signs};
pub use suggest::Suggestion;
use sums::Sums;

use crate::{Checkpoint, Error};

/// How to measure. None of it but `ranks` changes a number.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads; `None` for one on each core.
    pub threads: Option<usize>,
    /// Whether to estimate the stable rank of each matrix's deltas: reads base and model six times more.
    pub ranks: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: None, ranks: true }
    }
}

/// What was measured of models that somebody thinks of merging.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// The base model's folder or file.
    pub base: Option<PathBuf>,
    /// The models, in the order in which they were given.
    pub models: Vec<Model>,
    /// All tensors as one vector.
    pub overall: Measures,
    /// Each layer.
    pub layers: Vec<Part>,
    /// Each kind of module, over all layers; each tensor outside of the layers.
    pub kinds: Vec<Part>,
    /// Each kind of module in each layer: several tensors where there are experts.
    pub cells: Vec<Part>,
    /// Each tensor, in the order of the model.
    pub tensors: Vec<Tensor>,
    /// Tensors that were not compared.
    pub left_out: Vec<LeftOut>,
    /// What the numbers suggest, by rules of thumb.
    pub suggestions: Vec<Suggestion>,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Model {
    /// The name of its folder or file; the whole path where two have the same.
    pub name: String,
    /// Its folder or file.
    pub path: PathBuf,
}

/// Tensors that were measured as one vector.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// The stack of layers; `None` for what is outside of all.
    pub stack: Option<String>,
    /// The layer; `None` for all of them and outside.
    pub layer: Option<usize>,
    /// The kind of module; `None` for all of a layer.
    pub kind: Option<String>,
    /// How many tensors.
    pub tensors: usize,
    /// What was measured.
    pub measures: Measures,
}

/// A tensor that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Where it stands.
    pub place: Place,
    /// What was measured.
    pub measures: Measures,
}

/// How far the measuring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Elements of one model that are measured.
    pub done: u64,
    /// All of them.
    pub total: u64,
}

/// Measures models against a base, or against each other without one.
///
/// Tensors that some of the models lack, of differing shapes, or of whole numbers are not compared but listed in
/// [`left_out`](Sensitivity::left_out). `observe` hears how far it is.
///
/// ```no_run
/// use posttrain_merge::Checkpoint;
/// use posttrain_merge::sensitivity::{Options, measure};
///
/// let (base, a, b) = (Checkpoint::open("base")?, Checkpoint::open("a")?, Checkpoint::open("b")?);
/// let report = measure(Some(&base), &[&a, &b], &Options::default(), &|_| ())?;
/// println!("cosine of the task vectors: {:?}", report.overall.pairs[0].cosine);
/// std::fs::write("report.html", report.to_html()).expect("a place to write");
/// # Ok::<(), posttrain_merge::Error>(())
/// ```
///
/// # Errors
/// [`Error::Value`] for too few models (one with a base, two without); [`Error::Checkpoint`] for values that are
/// NaN or infinite, for quantised models that are not read, and if nothing can be compared; [`Error::Tensor`] for
/// a difference beyond f32.
pub fn measure(
    base: Option<&Checkpoint>,
    models: &[&Checkpoint],
    options: &Options,
    observe: &(dyn Fn(Progress) + Sync),
) -> Result<Sensitivity, Error> {
    let least = if base.is_some() { 1 } else { 2 };
    if models.len() < least {
        let expected = if base.is_some() { "at least one" } else { "at least two without a base" };
        return Err(Error::value("models", models.len(), expected));
    }
    let names = names(models);
    let (compared, left_out) = Inputs { base, models, names: &names }.compare()?;
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = options.threads.unwrap_or_else(cores).max(1);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::value("threads", threads, error.to_string()))?;
    let total = compared.iter().map(|tensor| tensor.models[0].numel() as u64).sum();
    // One tensor after the other, each on all threads: only one has buffers at a time.
    let sums = pool.install(|| {
        let mut done = 0;
        compared
            .iter()
            .map(|tensor| {
                let sums = tensor::measure(tensor, options.ranks)?;
                done += sums.elements;
                observe(Progress { done, total });
                Ok(sums)
            })
            .collect::<Result<Vec<Sums>, Error>>()
    })?;

    let places: Vec<(&Place, &Sums)> =
        compared.iter().zip(&sums).map(|(tensor, sums)| (&tensor.place, sums)).collect();
    let layered = places.iter().copied().filter(|(place, _)| place.layer.is_some());
    let overall = parts(places.iter().copied(), |_| (None, None, None)).remove(0).measures;
    let mut sensitivity = Sensitivity {
        base: base.map(|base| base.path().to_owned()),
        models: names
            .into_iter()
            .zip(models)
            .map(|(name, model)| Model { name, path: model.path().to_owned() })
            .collect(),
        overall,
        layers: parts(layered, |place| (place.stack.as_ref(), place.layer, None)),
        kinds: parts(places.iter().copied(), |place| {
            (place.stack.as_ref(), None, Some(&place.kind))
        }),
        cells: parts(places.iter().copied(), |place| {
            (place.stack.as_ref(), place.layer, Some(&place.kind))
        }),
        tensors: compared
            .iter()
            .zip(&sums)
            .map(|(tensor, sums)| Tensor {
                name: tensor.name.clone(),
                shape: tensor.models[0].shape().to_vec(),
                place: tensor.place.clone(),
                measures: Measures::of(sums),
            })
            .collect(),
        left_out,
        suggestions: Vec::new(),
    };
    sensitivity.suggestions = suggest::suggestions(&sensitivity);
    Ok(sensitivity)
}

/// The last part of each path; whole paths where two are the same.
fn names(models: &[&Checkpoint]) -> Vec<String> {
    let short = |model: &Checkpoint| {
        let name = model.path().file_name();
        name.map_or_else(|| model.path().display().to_string(), |n| n.to_string_lossy().into())
    };
    let all: Vec<String> = models.iter().map(|model| short(model)).collect();
    let unique = |name: &String| all.iter().filter(|other| *other == name).count() == 1;
    let name = |(name, model): (&String, &&Checkpoint)| {
        if unique(name) { name.clone() } else { model.path().display().to_string() }
    };
    all.iter().zip(models).map(name).collect()
}

type Key<'a> = (Option<&'a String>, Option<usize>, Option<&'a String>);

/// The sums of the tensors of each key, in the order in which keys appear.
fn parts<'a>(
    tensors: impl Iterator<Item = (&'a Place, &'a Sums)>,
    key: impl Fn(&'a Place) -> Key<'a>,
) -> Vec<Part> {
    let mut found: Vec<(Key<'a>, usize, Sums)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (place, sums) in tensors {
        let key = key(place);
        if let Some(at) = places.get(&key) {
            let (_, count, total): &mut (_, usize, Sums) = &mut found[*at];
            *count += 1;
            total.add(sums);
        } else {
            places.insert(key, found.len());
            found.push((key, 1, sums.clone()));
        }
    }
    let part = |((stack, layer, kind), tensors, sums): (Key<'_>, usize, Sums)| Part {
        stack: stack.cloned(),
        layer,
        kind: kind.cloned(),
        tensors,
        measures: Measures::of(&sums),
    };
    found.into_iter().map(part).collect()
}
