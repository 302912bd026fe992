//! The memory of a render: an arena that each thread keeps for its next render.

use std::cell::Cell;

use bumpalo::Bump;

/// Where most conversations fit.
const CAPACITY: usize = 32 << 10;
/// An arena that grew beyond this is not kept.
const KEPT: usize = 1 << 20;

thread_local! {
    static ARENA: Cell<Option<Bump>> = const { Cell::new(None) };
}

/// Runs `work` with an empty arena.
pub(crate) fn with<T>(work: impl FnOnce(&Bump) -> T) -> T {
    // A template that renders within a render finds none and makes its own.
    let mut arena = ARENA.take().unwrap_or_else(|| Bump::with_capacity(CAPACITY));
    let result = work(&arena);
    if arena.allocated_bytes() <= KEPT {
        arena.reset();
        ARENA.set(Some(arena));
    }
    result
}
