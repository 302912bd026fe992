//! Memory for results. A training step needs hundreds of megabytes and gives them back at its end; what
//! the system takes for handing out fresh pages is a tenth of the step and more.

use std::mem::MaybeUninit;

/// A vector of `n` zeros.
pub(crate) fn zeros(n: usize) -> Vec<f32> {
    // The system hands out zeroed pages; memory that was used before is cleared.
    let numbers = vec![0.0; n];
    in_large_pages(&numbers);
    numbers
}

/// Asks the system to bring in the memory of a long vector 2 MiB at a time, when it is touched first:
/// the memory of a training step is fresh in each step.
fn in_large_pages(numbers: &Vec<f32>) {
    #[cfg(target_os = "linux")]
    if numbers.capacity() >= 1 << 19 {
        let page = 4096;
        let start = numbers.as_ptr().addr().next_multiple_of(page);
        let end = (numbers.as_ptr().addr() + numbers.capacity() * size_of::<f32>()) / page * page;
        // SAFETY: whole pages of our own memory, whose content this advice does not change. It may be
        // refused, for it is advice.
        unsafe {
            let start = numbers.as_ptr().with_addr(start).cast_mut().cast();
            libc::madvise(start, end - start.addr(), libc::MADV_HUGEPAGE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = numbers;
}

/// A vector of `n` numbers that `write` writes.
///
/// # Safety
/// `write` has to write all of them.
pub(super) unsafe fn filled(n: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(n);
    in_large_pages(&numbers);
    write(&mut numbers.spare_capacity_mut()[..n]);
    // SAFETY: the caller's.
    unsafe { numbers.set_len(n) };
    numbers
}

/// Numbers that are there already, to be added to or written anew.
///
/// # Safety
/// Nothing but numbers may be written.
pub(super) unsafe fn written(numbers: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: the same layout, and the caller's.
    unsafe { &mut *(std::ptr::from_mut(numbers) as *mut [MaybeUninit<f32>]) }
}

/// Tells the C library to keep the memory that is freed for the next step, rather than to return it to
/// the system and ask for fresh pages again: steps become up to a sixth shorter. It holds for the whole
/// process and for all threads, so a program asks for it, as the first thing that it does and before it
/// has threads; a library never should. The process then stays as large as it once was.
///
/// Does nothing but with glibc: other allocators have settings of their own.
///
/// ```
/// posttrain_model::device::keep_freed_memory();
/// ```
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` sets words that the allocator reads. Another thread that allocates meanwhile sees
    // the old or the new one, and either is fine.
    unsafe {
        // One heap for all threads: what one frees another one uses.
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // Large blocks come from the heap too,
        libc::mallopt(libc::M_MMAP_MAX, 0);
        // which never shrinks.
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}
