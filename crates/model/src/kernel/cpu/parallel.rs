//! Loops over tasks on all threads, that of the caller among them: it starts at once, where rayon's
//! iterators would hand all of the work over and put it to sleep. Whoever is free takes the next task.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Output;

/// Calls `work` for each task, with memory of the thread's own.
pub(super) fn each_with<S>(
    tasks: usize,
    memory: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) + Sync,
) {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut memory = memory();
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            work(&mut memory, task);
        }
    };
    let others = rayon::current_num_threads().min(tasks).saturating_sub(1);
    if others == 0 {
        return run();
    }
    rayon::in_place_scope(|scope| {
        for _ in 0..others {
            scope.spawn(|_| run());
        }
        run();
    });
}

/// Calls `work` for each task.
pub(super) fn each(tasks: usize, work: impl Fn(usize) + Sync) {
    each_with(tasks, || (), |(), task| work(task));
}

/// Calls `work` for each part of `length` numbers, the last one perhaps shorter, with its index.
pub(super) fn each_part<T: Send>(
    numbers: &mut [T],
    length: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    let (count, start, length) = (numbers.len(), Output(numbers.as_mut_ptr()), length.max(1));
    each(count.div_ceil(length), |index| {
        let from = index * length;
        // SAFETY: numbers from .. from + length, as many as there are; no other task has them.
        let part = unsafe {
            std::slice::from_raw_parts_mut(start.get().add(from), length.min(count - from))
        };
        work(index, part);
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_task_once_on_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for count in [0, 1, 2, 7, 100] {
                let mut numbers = vec![0; count];
                let fill = |index: usize, part: &mut [usize]| {
                    part.iter_mut().enumerate().for_each(|(i, x)| *x += index * 3 + i + 1);
                };
                pool.install(|| each_part(&mut numbers, 3, fill));
                assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
            }
        }
    }
}
