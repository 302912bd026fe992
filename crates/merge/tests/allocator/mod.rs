//! The allocator of a test binary that counts what is held.
#![allow(clippy::print_stdout, reason = "shown with --nocapture")]
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(unsafe_code, reason = "it hands everything to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

/// Bytes that are allocated now, and at most since the last [`quiet_peak_of`] began.
static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn grown(bytes: usize) {
    PEAK.fetch_max(NOW.fetch_add(bytes, SeqCst) + bytes, SeqCst);
}

// SAFETY: all is done by the system's allocator; only sizes are noted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may both exist for a moment.
        grown(size);
        // SAFETY: the caller's.
        let memory = unsafe { System.realloc(memory, layout, size) };
        NOW.fetch_sub(layout.size(), SeqCst);
        memory
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` returns, and the bytes at its peak beyond those before it.
pub(crate) fn quiet_peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(SeqCst);
    PEAK.store(before, SeqCst);
    let result = work();
    (result, PEAK.load(SeqCst).saturating_sub(before))
}

/// The same, which is said with the time that it took.
pub(crate) fn peak_of<T>(what: &str, work: impl FnOnce() -> T) -> (T, usize) {
    let start = Instant::now();
    let (result, peak) = quiet_peak_of(work);
    println!("{what:44} {:8.2} MB {:6.1} s", peak as f64 / 1e6, start.elapsed().as_secs_f64());
    (result, peak)
}
