//! Memory maps.
#![expect(unsafe_code, reason = "mapping a file is unsafe: another process may change it")]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

/// Bytes of a mapped file; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Mapped {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl Mapped {
    /// The whole file. An empty one is an error, as the system cannot map it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only. Its bytes change only if somebody writes into the file in
        // place; writers of checkpoints make another file and rename it.
        let map = unsafe { Mmap::map(&file)? };
        let range = 0..map.len();
        Ok(Self { map: Arc::new(map), range })
    }

    /// The part `range` of these bytes.
    ///
    /// # Panics
    /// When it lies outside.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.range.len(), "{range:?} is outside");
        let start = self.range.start;
        Self { map: Arc::clone(&self.map), range: start + range.start..start + range.end }
    }

    /// Where these bytes lie in the file.
    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}
