//! What a merge costs: bytes, memory, time.

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Plan;
use super::output::{Origin, Output};
use super::show::bytes;
use crate::group::BLOCK;
use crate::methods::block_len;
use crate::{Error, dtype};

/// What a merge costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Bytes of the inputs that are read, each counted once.
    pub read: u64,
    /// Bytes of the output.
    pub written: u64,
    /// Bytes of anonymous memory at the most, with the given number of threads.
    pub memory: u64,
    /// Reading and writing at the speeds that were just seen here.
    pub time: Duration,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "about {:.1} s, at most {} of memory",
            self.time.as_secs_f64(),
            bytes(self.memory)
        )
    }
}

/// Counters that a selection needs: two tables of 2^16 for each input.
const TABLES: u64 = 2 * 65_536 * 8;
/// What a selection keeps besides, of an input of a large tensor.
const SELECTED: u64 = 16 << 20;
/// What a process has anyway: headers, configurations, the plan.
const FIXED: u64 = 32_000_000;

impl Plan {
    /// Bytes of anonymous memory that carrying out needs at the most on this many threads. A method over
    /// whole tensors needs those besides.
    pub fn memory(&self, threads: usize) -> u64 {
        let of = |output: &Output| match &output.origin {
            Origin::Copy { .. } => 0,
            Origin::Merge { method, base, inputs, .. } => {
                let block = block_len(method.as_ref(), &output.shape).min(output.numel().max(1));
                let buffers = inputs.len() + usize::from(base.is_some()) + 2;
                let written = block.max(8 * BLOCK) * dtype::size_of(output.dtype);
                (buffers * block * 4 + written) as u64 + TABLES * inputs.len() as u64
            }
        };
        let widest = self.outputs.iter().map(of).max().unwrap_or(0);
        // An inner loop may begin while an outer one of the same thread waits.
        let headers: u64 = self.outputs.len() as u64 * 1000;
        let most = self.outputs.iter().map(|output| output.inputs().len() as u64).max();
        FIXED + SELECTED * most.unwrap_or(0) + headers + 2 * threads as u64 * widest
    }

    /// Bytes of the inputs that are read.
    pub fn read(&self) -> u64 {
        let mut seen = HashSet::new();
        let tensors = self.outputs.iter().flat_map(Output::stored);
        tensors
            .filter(|(input, tensor)| seen.insert((*input, tensor.bytes().as_ptr())))
            .map(|(_, tensor)| tensor.bytes().len() as u64)
            .sum()
    }

    /// Bytes of the output's tensors.
    pub fn written(&self) -> u64 {
        self.outputs.iter().map(Output::bytes).sum()
    }

    /// What carrying out costs on this many threads, when the output goes to the folder `to`. The speeds
    /// of the disks are taken from short trials: up to 64 MB of the inputs are read, 32 MB are written to
    /// a nameless file.
    ///
    /// # Errors
    /// [`Error::Io`] where nothing can be written.
    pub fn estimate(&self, threads: usize, to: &Path) -> Result<Estimate, Error> {
        const READ: usize = 64 << 20;
        const WRITE: usize = 32 << 20;
        let (read, written) = (self.read(), self.written());
        let begun = Instant::now();
        let mut left = READ;
        let mut sum = 0u64;
        for output in &self.outputs {
            for (_, tensor) in output.stored() {
                let bytes = &tensor.bytes()[..tensor.bytes().len().min(left)];
                sum += bytes.chunks(4096).map(|page| u64::from(page[0])).sum::<u64>();
                left -= bytes.len();
            }
        }
        std::hint::black_box(sum);
        let seen = (READ - left).max(1);
        let reading = begun.elapsed().as_secs_f64() * read as f64 / seen as f64;

        let trial = || -> std::io::Result<f64> {
            let mut file = tempfile::tempfile_in(to)?;
            let size = WRITE.min(written as usize).max(1);
            let zeros = vec![0x5a; size];
            let begun = Instant::now();
            file.write_all(&zeros)?;
            file.sync_all()?;
            Ok(begun.elapsed().as_secs_f64() * written as f64 / size as f64)
        };
        let writing = trial().map_err(Error::io(to))?;
        let time = Duration::from_secs_f64((reading + writing).min(1e9));
        Ok(Estimate { read, written, memory: self.memory(threads), time })
    }
}
