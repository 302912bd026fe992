//! From a plan to a merged checkpoint.
//!
//! Headers first, then every tensor into its place, in any order and from all threads. The output appears
//! under its name when it is complete; until then it grows in a folder beside it, from which an interrupted
//! merge goes on.

mod hashes;
mod journal;
mod record;
mod shards;
mod tensor;
mod verify;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use blake3::Hash;
use hashes::InputHashes;
use journal::Journal;
use shards::ShardFile;
pub use verify::verify;

use crate::checkpoint::Mapped;
use crate::plan::{Origin, Output, Plan};
use crate::{Checkpoint, Error};

/// How a plan is carried out. None of it changes a bit of the output's tensors.
#[derive(Clone, Debug)]
pub struct Execution {
    /// Threads; `None` for one on each core.
    pub threads: Option<usize>,
    /// The most bytes of anonymous memory.
    pub memory: u64,
    /// The most bytes of a file.
    pub shard_size: u64,
}

impl Default for Execution {
    fn default() -> Self {
        Self { threads: None, memory: 512_000_000, shard_size: 5_000_000_000 }
    }
}

impl Execution {
    /// The number of threads that are wanted.
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(cores).max(1)
    }
}

/// How far a merge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the output that are written.
    pub done: u64,
    /// All its bytes.
    pub total: u64,
}

/// What a merge did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The hash of each tensor of the output.
    pub outputs: BTreeMap<String, Hash>,
    /// The hashes of the inputs' tensors, by the inputs of the plan.
    pub inputs: Vec<BTreeMap<String, Hash>>,
    /// Tensors that an interrupted run had written already.
    pub resumed: usize,
}

/// Where an output grows until it is complete.
pub(crate) fn unfinished(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    out.with_file_name(name)
}

/// As many threads as the execution and its memory allow.
fn threads(plan: &Plan, execution: &Execution) -> Result<usize, Error> {
    let needed = |threads| plan.memory(threads);
    let threads =
        (1..=execution.threads()).rev().find(|threads| needed(*threads) <= execution.memory);
    threads.ok_or_else(|| {
        let expected = format!("at least {} bytes for this plan", needed(1));
        Error::value("memory", execution.memory, expected)
    })
}

/// Runs `work` on these threads.
fn on_threads<T: Send>(
    plan: &Plan,
    execution: &Execution,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Error> {
    let threads = threads(plan, execution)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::value("threads", threads, error.to_string()))?;
    Ok(pool.install(work))
}

/// Carries the plan out: `out` is a folder that does not exist yet.
///
/// `observe` hears how far the merge is, and stops it by answering `false`.
///
/// # Errors
/// [`Error::Exists`]; [`Error::Value`] for too little memory; [`Error::Unfinished`] when another merge was interrupted there; [`Error::Checkpoint`] for a file
/// there that is none of this merge's; [`Error::Tensor`] for
/// what cannot be merged, NaN among it; [`Error::Io`], a full disk among it; [`Error::Stopped`].
pub fn execute(
    plan: &Plan,
    out: &Path,
    execution: &Execution,
    observe: &(dyn Fn(Progress) -> bool + Sync),
) -> Result<Report, Error> {
    // A link that leads nowhere is there too.
    if out.symlink_metadata().is_ok() {
        return Err(Error::Exists { path: out.to_owned() });
    }
    if out.file_name().is_none() {
        return Err(Error::value("out", out.display(), "the name of a new folder"));
    }
    threads(plan, execution)?;
    let folder = unfinished(out);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let (layouts, places) = shards::layout(plan.outputs(), execution.shard_size);
    let journal = Journal::open(&folder, &plan.fingerprint(execution.shard_size))?;
    record::refuse_foreign(plan, &folder, &layouts)?;
    let files: Vec<ShardFile> =
        layouts.iter().map(|layout| ShardFile::open(&folder, layout)).collect::<Result<_, _>>()?;
    let maps: Vec<Mapped> = files
        .iter()
        .map(|shard| Mapped::open(&shard.path).map_err(Error::io(&shard.path)))
        .collect::<Result<_, _>>()?;
    let input_hashes = InputHashes::new(plan);
    let total = plan.outputs().iter().map(Output::bytes).sum();
    let done = AtomicU64::new(0);

    let one = |index: usize| -> Result<(Hash, bool), Error> {
        let (output, place) = (&plan.outputs()[index], places[index]);
        let shard = &files[place.file];
        let written = || {
            let start = place.offset as usize;
            hashes::of(&maps[place.file][start..start + output.bytes() as usize])
        };
        let before = journal.done.get(&output.name).copied().filter(|hash| *hash == written());
        let hash = if let Some(hash) = before {
            hash
        } else {
            tensor::write(output, plan.seed(), shard, place)?;
            let hash = match &output.origin {
                Origin::Copy { input, tensor } => input_hashes.of_copy(*input, tensor),
                Origin::Merge { .. } => written(),
            };
            journal.add(&output.name, hash)?;
            hash
        };
        input_hashes.add(output);
        let now = done.fetch_add(output.bytes(), Ordering::Relaxed) + output.bytes();
        if observe(Progress { done: now, total }) {
            Ok((hash, before.is_some()))
        } else {
            Err(Error::Stopped { path: folder.clone() })
        }
    };
    // What is written goes to the disk while the rest is computed.
    let (written, flush) = std::sync::mpsc::sync_channel::<usize>(1);
    let results = std::thread::scope(|scope| -> Result<Vec<(Hash, bool)>, Error> {
        let flusher = scope.spawn(|| {
            flush.into_iter().try_for_each(|file| {
                files[file].file.sync_data().map_err(Error::io(&files[file].path))
            })
        });
        let results = on_threads(plan, execution, || -> Result<Vec<(Hash, bool)>, Error> {
            let mut results = Vec::with_capacity(places.len());
            for batch in batches(plan.outputs()) {
                let last = places[batch.end - 1].file;
                let batch: Result<Vec<_>, Error> = batch.into_par_iter().map(one).collect();
                results.extend(batch?);
                // A flusher that is busy, or has failed, hears nothing.
                let _ = written.try_send(last);
            }
            input_hashes.rest();
            Ok(results)
        });
        drop(written);
        flusher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        results?
    })?;
    files.iter().try_for_each(|shard| shard.file.sync_all().map_err(Error::io(&shard.path)))?;

    let resumed = results.iter().filter(|(_, resumed)| *resumed).count();
    let names = plan.outputs().iter().map(|output| output.name.clone());
    let report = Report {
        outputs: names.zip(results.into_iter().map(|(hash, _)| hash)).collect(),
        inputs: input_hashes.finish(),
        resumed,
    };
    shards::write_index(&folder, plan.outputs(), &layouts, &places)?;
    record::write(plan, &folder, out, execution, &report)?;
    journal.remove()?;
    sync_folder(&folder)?;
    std::fs::rename(&folder, out).map_err(Error::io(out))?;
    sync_folder(
        out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")),
    )?;
    Ok(report)
}

/// The plan's tensors in memory instead of on a disk: bytes as a file would have them, by name.
///
/// # Errors
/// [`Error::Tensor`] for what cannot be merged.
pub fn execute_in_memory(
    plan: &Plan,
    execution: &Execution,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    use std::sync::{Mutex, PoisonError};
    on_threads(plan, execution, || {
        plan.outputs()
            .par_iter()
            .map(|output| {
                let bytes = Mutex::new(vec![0; output.bytes() as usize]);
                tensor::compute(output, plan.seed(), &|range, piece| {
                    let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                    bytes[range].copy_from_slice(piece);
                    Ok(())
                })?;
                let bytes = bytes.into_inner().unwrap_or_else(PoisonError::into_inner);
                Ok((output.name.clone(), bytes))
            })
            .collect()
    })?
}

/// Computes every tensor again and compares it with a merged checkpoint: the names of those that differ.
///
/// # Errors
/// [`Error::Tensor`] for what cannot be merged any more.
pub fn replay(
    plan: &Plan,
    merged: &Checkpoint,
    execution: &Execution,
) -> Result<Vec<String>, Error> {
    use std::sync::atomic::AtomicBool;
    let differ = on_threads(plan, execution, || {
        plan.outputs()
            .par_iter()
            .map(|output| {
                let Some(found) = merged.tensors().get(&output.name) else {
                    return Ok(Some(output.name.clone()));
                };
                let same =
                    AtomicBool::new(found.shape() == output.shape && found.dtype() == output.dtype);
                if same.load(Ordering::Relaxed) {
                    tensor::compute(output, plan.seed(), &|range, piece| {
                        if found.bytes()[range] != *piece {
                            same.store(false, Ordering::Relaxed);
                        }
                        Ok(())
                    })?;
                }
                Ok((!same.into_inner()).then(|| output.name.clone()))
            })
            .collect::<Result<Vec<_>, Error>>()
    })??;
    Ok(differ.into_iter().flatten().collect())
}

/// Neighbours that are worth the threads' while together: many small tensors, or one large.
fn batches(outputs: &[Output]) -> Vec<Range<usize>> {
    const ELEMENTS: usize = 4 << 20;
    let mut batches = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (index, output) in outputs.iter().enumerate() {
        sum += output.numel();
        if sum >= ELEMENTS || index + 1 == outputs.len() {
            batches.push(start..index + 1);
            (start, sum) = (index + 1, 0);
        }
    }
    batches
}

/// Makes sure that the names in a folder are on the disk.
fn sync_folder(folder: &Path) -> Result<(), Error> {
    let sync = || std::fs::File::open(folder)?.sync_all();
    sync().map_err(Error::io(folder))
}
