//! Matrices in memory: a pointer and distances, in elements.

/// A matrix whose rows are contiguous: its first element and the distance of its rows.
#[derive(Clone, Copy)]
pub(super) struct Rows<T> {
    pub(super) start: *const T,
    pub(super) stride: usize,
}

impl<T> Rows<T> {
    /// The matrix from row `i` on.
    ///
    /// # Safety
    /// The row exists.
    #[inline(always)]
    pub(super) unsafe fn from(self, i: usize) -> Self {
        // SAFETY: the caller's.
        Self { start: unsafe { self.start.add(i * self.stride) }, stride: self.stride }
    }
}

/// A matrix that is written.
#[derive(Clone, Copy)]
pub(super) struct RowsMut {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
}

impl RowsMut {
    /// The matrix from element (i, j) on.
    ///
    /// # Safety
    /// The element exists.
    #[inline(always)]
    pub(super) unsafe fn from(self, i: usize, j: usize) -> Self {
        // SAFETY: the caller's.
        Self { start: unsafe { self.start.add(i * self.stride + j) }, stride: self.stride }
    }
}

/// A matrix in any order: element (i, j) stands at `start + i * row + j * column`.
#[derive(Clone, Copy)]
pub(super) struct Strided {
    pub(super) start: *const f32,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl Strided {
    /// The matrix from element (i, j) on.
    ///
    /// # Safety
    /// The element exists.
    #[inline(always)]
    pub(super) unsafe fn from(self, i: usize, j: usize) -> Self {
        // SAFETY: the caller's.
        Self { start: unsafe { self.start.add(i * self.row + j * self.column) }, ..self }
    }
}

/// Sizes of a product: `m` by `n`, summed over `k`.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
}
