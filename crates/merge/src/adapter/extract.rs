//! An adapter from the difference of a fine-tuned checkpoint and its base: for each weight the best
//! approximation `B A` of `D = W_tuned - W_base`, by randomised SVD, with its error.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use safetensors::Dtype;

use super::difference::{Difference, Kind, differences};
use super::folded::matrix;
use super::low_rank::transpose;
use super::names;
use super::randomized::{COLUMNS, Svd, Tiles, truncated, width};
use super::write::{NewAdapter, NewModule, check_free};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::philox::Stream;
use crate::source::Source;
use crate::{Error, dtype, ops};

/// How a difference becomes an adapter.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// The largest rank.
    pub max_rank: usize,
    /// The rank of each module.
    pub rank: RankRule,
    /// Regular expressions, searched for in the paths of modules: only modules that one finds. Empty for all.
    pub include: Vec<String>,
    /// Regular expressions: no modules that one finds.
    pub exclude: Vec<String>,
    /// Embeddings and the head.
    pub embeddings: Embeddings,
    /// Norms, biases, and whatever else is no matrix.
    pub others: Others,
    /// `sqrt S` in both factors; otherwise all of it in A.
    pub distribute_scale: bool,
    /// For the random matrices.
    pub seed: u64,
    /// Columns of the random matrices beyond the rank; a few more make a multiple of 16.
    pub oversampling: usize,
    /// Power iterations: each reads both checkpoints twice and brings the error closer to the least.
    pub power_iterations: usize,
    /// The type of the factors: `F32`, `BF16` or `F16`.
    pub dtype: Dtype,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self {
            max_rank: 32,
            rank: RankRule::Fixed,
            include: Vec::new(),
            exclude: Vec::new(),
            embeddings: Embeddings::Whole,
            others: Others::Whole,
            distribute_scale: true,
            seed: 0,
            oversampling: 10,
            power_iterations: 2,
            dtype: Dtype::F32,
        }
    }
}

/// How large a rank a module gets, up to the largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RankRule {
    /// The largest.
    Fixed,
    /// The least that misses at most this part of the energy, `||D - B A||^2 <= epsilon ||D||^2`.
    Energy(f64),
    /// The number of singular values above this one (mergekit's `sv_epsilon`).
    Above(f64),
}

/// What is made of embeddings and the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Embeddings {
    /// They are in `modules_to_save`; only so can the vocabulary have another size.
    Whole,
    /// Factors, as of other matrices.
    LowRank,
}

/// What is made of tensors that have no factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They are in `modules_to_save`, or trained biases.
    Whole,
    /// They are left out, and listed.
    Leave,
}

/// What became of one module.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtractedModule {
    /// Its path.
    pub name: String,
    /// The dimensions of its weight.
    pub shape: Vec<usize>,
    /// Its rank.
    pub rank: usize,
    /// `||D - B A|| / ||D||` in the Frobenius norm, of the factors as they are written.
    pub error: f64,
    /// The share of the energy that is kept, `1 - error^2`.
    pub energy: f64,
}

/// What an extraction made.
#[derive(Clone, Debug, PartialEq)]
pub struct Extracted {
    /// The modules with factors, by path.
    pub modules: Vec<ExtractedModule>,
    /// Tensors that are saved as a whole.
    pub whole: Vec<String>,
    /// How many tensors are the same in both.
    pub unchanged: usize,
    /// Tensors that differ and that the adapter does not have, with the reason.
    pub uncovered: Vec<(String, String)>,
    /// `||D - B A|| / ||D||` over all tensors of the same shape: what is whole has no error, what is uncovered
    /// is all error.
    pub error: f64,
}

/// Extracts an adapter into `folder`, which appears when it is complete. `progress` hears how many modules of how
/// many are done. Memory: the new adapter, and for each thread (m + n)(rank + oversampling) numbers.
///
/// # Errors
/// [`Error::Value`] for an option out of range; [`Error::Adapter`] with all tensors whose shapes differ, where they
/// may not; [`Error::Tensor`] for a difference that is not finite; [`Error::Checkpoint`] for a folder that exists
/// and for checkpoints that are the same; [`Error::Io`].
pub fn extract(
    base: &Checkpoint,
    tuned: &Checkpoint,
    options: &ExtractOptions,
    folder: impl AsRef<Path>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Extracted, Error> {
    let folder = folder.as_ref();
    check_free(folder)?;
    check(options)?;
    let differences = differences(base, tuned, options)?;
    let is_new = |difference: &&Difference<'_>| difference.kind == Kind::LowRank;
    let total = differences.changed.iter().filter(is_new).count();
    let done = AtomicUsize::new(0);
    let conv1d = names::has_conv1d(tuned.config());
    let extracted: Vec<One> = differences
        .changed
        .par_iter()
        .map(|difference| {
            let one = of_difference(difference, options, conv1d);
            if difference.kind == Kind::LowRank {
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            }
            one
        })
        .collect::<Result<_, _>>()?;

    let mut report = Extracted {
        modules: Vec::new(),
        whole: Vec::new(),
        unchanged: differences.unchanged,
        uncovered: differences.uncovered,
        error: 0.0,
    };
    let mut new = NewAdapter {
        base_model: Some(base.path().display().to_string()),
        task_type: names::task_type(tuned.config()),
        fan_in_fan_out: conv1d,
        ..NewAdapter::default()
    };
    let (mut missed, mut whole) = (0.0, 0.0);
    for (difference, one) in differences.changed.iter().zip(extracted) {
        (missed, whole) = (missed + one.missed, whole + one.norm);
        let module = difference.module().to_owned();
        // Of two types, with the same values.
        let same =
            one.norm == 0.0 && !difference.resized() && dtype::is_float(difference.tuned.dtype());
        match (&difference.kind, one.module) {
            _ if same => report.unchanged += 1,
            (Kind::LowRank, Some(made)) => {
                let error = (one.missed / one.norm).sqrt();
                report.modules.push(ExtractedModule {
                    name: module.clone(),
                    shape: difference.tuned.shape().to_vec(),
                    rank: made.rank,
                    error,
                    energy: 1.0 - error * error,
                });
                new.modules.insert(module, made);
            }
            (Kind::LowRank, None) => {
                let reason = "no singular value above the limit".to_owned();
                report.uncovered.push((difference.name.to_owned(), reason));
            }
            (Kind::Whole, _) => new.modules_to_save.push(module),
            (Kind::Bias, _) => {
                new.trains_bias = true;
                new.whole.insert(difference.name.to_owned(), difference.tuned.clone());
            }
            (Kind::Left(reason), _) => {
                report.uncovered.push((difference.name.to_owned(), reason.clone()));
            }
        }
    }
    names::save_whole(tuned, &mut new);
    report.whole = new.whole.keys().cloned().collect();
    report.uncovered.sort();
    report.error = if whole > 0.0 { (missed / whole).sqrt() } else { 0.0 };
    if new.modules.is_empty() && new.whole.is_empty() {
        let reason = format!(
            "nothing to extract: {} tensors are those of {}, {} are left out",
            report.unchanged,
            base.path().display(),
            report.uncovered.len()
        );
        return Err(Error::checkpoint(tuned.path(), reason));
    }
    names::choose(tuned, &mut new);
    new.write(folder, options.dtype)?;
    Ok(report)
}

fn check(options: &ExtractOptions) -> Result<(), Error> {
    if options.max_rank == 0 {
        return Err(Error::value("max_rank", 0, "at least 1"));
    }
    match options.rank {
        RankRule::Energy(epsilon) if !(0.0..1.0).contains(&epsilon) => {
            return Err(Error::value("rank.energy", epsilon, "at least 0 and below 1"));
        }
        RankRule::Above(limit) if !(limit.is_finite() && limit >= 0.0) => {
            return Err(Error::value("rank.above", limit, "a number of at least 0"));
        }
        _ => {}
    }
    if !dtype::is_written(options.dtype) {
        return Err(Error::value(
            "dtype",
            dtype::name(options.dtype),
            "float32, bfloat16 or float16",
        ));
    }
    Ok(())
}

/// What one difference gives.
struct One {
    module: Option<NewModule>,
    /// `||D - B A||^2`
    missed: f64,
    /// `||D||^2`
    norm: f64,
}

fn of_difference(
    difference: &Difference<'_>,
    options: &ExtractOptions,
    conv1d: bool,
) -> Result<One, Error> {
    let Some(base) = difference
        .base
        .filter(|_| !difference.resized() && dtype::is_float(difference.tuned.dtype()))
    else {
        return Ok(One { module: None, missed: 0.0, norm: 0.0 });
    };
    let (of_base, of_tuned) =
        (Source::Stored(base.clone()), Source::Stored(difference.tuned.clone()));
    let read = |start: usize, out: &mut [f32]| {
        let mut before = [0.0; COLUMNS];
        let before = &mut before[..out.len()];
        of_base.read(start, before);
        of_tuned.read(start, out);
        ops::sub_from(out, before);
    };
    let (rows, columns) = matrix(difference.tuned.shape());
    let tiles = Tiles { rows, columns, read: &read };
    let norm = tiles.distance(&[], &[], 0);
    if !norm.is_finite() {
        return Err(Error::tensor(
            difference.name,
            "the difference is not finite, expected numbers",
        ));
    }
    match difference.kind {
        Kind::LowRank if norm > 0.0 => {}
        Kind::Left(_) => return Ok(One { module: None, missed: norm, norm }),
        _ => return Ok(One { module: None, missed: 0.0, norm }),
    }
    let most = options.max_rank.min(rows).min(columns);
    let random = Stream::new(options.seed, difference.name, 0);
    let Svd { u, s, v } =
        tiles.decompose(width(most, options.oversampling), options.power_iterations, random);
    let rank = rank_of(&s[..most], options.rank, norm);
    if rank == 0 {
        return Ok(One { module: None, missed: norm, norm });
    }
    let transposed = difference.is_embedding() || conv1d && names::is_conv1d(difference.module());
    // A is the right factor of B A: of the weight, or of its transpose.
    let (of_a, of_b) = if transposed { (&u, &v) } else { (&v, &u) };
    let (mut a, mut left) = if options.distribute_scale {
        truncated(of_b, &s, of_a, rank, true)
    } else {
        let (left, a) = truncated(of_a, &s, of_b, rank, false);
        (a, left)
    };
    dtype::round(options.dtype, &mut a);
    dtype::round(options.dtype, &mut left);
    let (m, n) = (left.len() / rank, a.len() / rank);
    let missed = if transposed {
        tiles.distance(&left, &transpose(&a, rank, n), rank)
    } else {
        tiles.distance(&a, &transpose(&left, rank, m), rank)
    };
    let module = NewModule {
        a,
        b: transpose(&left, rank, m),
        rank,
        embedding: difference.is_embedding(),
        kernel: vec![n],
        bias: None,
    };
    Ok(One { module: Some(module), missed, norm })
}

/// The rank of a module from its largest singular values.
fn rank_of(s: &[f64], rule: RankRule, norm: f64) -> usize {
    match rule {
        RankRule::Fixed => s.len(),
        RankRule::Above(limit) => s.iter().filter(|s| **s > limit).count(),
        RankRule::Energy(epsilon) => {
            let mut missed = norm;
            let enough = s.iter().position(|s| {
                missed -= s * s;
                missed <= epsilon * norm
            });
            enough.map_or(s.len(), |place| place + 1)
        }
    }
}

/// Whether two tensors are the same, to the byte.
pub(super) fn same_bytes(a: &Tensor, b: &Tensor) -> bool {
    a.dtype() == b.dtype() && a.shape() == b.shape() && a.bytes() == b.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Energies 16, 4, 1 of 21, and 0.21 beyond.
    #[test]
    fn ranks_by_hand() {
        let s = [4.0, 2.0, 1.0];
        let norm = 21.21;
        assert_eq!(rank_of(&s, RankRule::Fixed, norm), 3);
        assert_eq!(rank_of(&s, RankRule::Above(1.0), norm), 2);
        assert_eq!(rank_of(&s, RankRule::Above(5.0), norm), 0);
        assert_eq!(rank_of(&s, RankRule::Energy(0.25), norm), 1);
        assert_eq!(rank_of(&s, RankRule::Energy(0.1), norm), 2);
        assert_eq!(rank_of(&s, RankRule::Energy(0.01), norm), 3);
        assert_eq!(rank_of(&s, RankRule::Energy(0.0), norm), 3);
    }
}
