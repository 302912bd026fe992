//! Memory maps.
#![expect(unsafe_code, reason = "mapping a file is unsafe: another process may change it")]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

/// Bytes of a mapped file that outlive the [`Checkpoint`](super::Checkpoint); cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedBytes {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl SharedBytes {
    /// The whole file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private to this process. The bytes change only if
        // somebody writes into the file in place, which neither this crate nor safetensors nor the
        // hub's cache does: they all write another file and rename it.
        let map = unsafe { Mmap::map(&file)? };
        let range = 0..map.len();
        Ok(Self { map: Arc::new(map), range })
    }

    /// Tells the system that these bytes will not be needed soon. What a mapped file has in memory
    /// counts as this process's own until then.
    pub(super) fn forget(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the map is of a file and read-only, so its pages come back from the file with
            // the same content when they are read again.
            let advised = unsafe {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                self.map.unchecked_advise_range(advice, self.range.start, self.range.len())
            };
            // Advice that is not taken changes nothing.
            let _ = advised;
        }
    }

    /// A part of these bytes, `range` counting from their start.
    ///
    /// # Panics
    /// When the range does not lie within these bytes.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.range.len(), "{range:?} is outside");
        let start = self.range.start;
        Self { map: Arc::clone(&self.map), range: start + range.start..start + range.end }
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
