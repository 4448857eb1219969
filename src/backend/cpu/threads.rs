//! Work items over the current rayon pool, and the one type through which they write disjoint parts of a buffer.

use rayon::prelude::*;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

/// Floating-point operations below which a work item is not worth handing to another thread (about 30 µs).
const MIN_ITEM_FLOPS: usize = 2_000_000;

/// The most work items of one call: enough for as many threads, and for two threads to end together.
pub(super) const MAX_ITEMS: usize = 64;

/// How many work items `flops` operations are worth: 1 means that the call stays on its thread.
pub(super) fn items_for(flops: usize) -> usize {
    (flops / MIN_ITEM_FLOPS).clamp(1, MAX_ITEMS)
}

/// Part `index` of `0..total` cut into `parts` nearly equal ranges.
pub(super) fn part(total: usize, parts: usize, index: usize) -> Range<usize> {
    let cut = |i: usize| i * (total / parts) + i.min(total % parts);
    cut(index)..cut(index + 1)
}

thread_local! {
    /// Whether this thread does all items of a call itself.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, whose kernels then stay on this thread: for callers that have dealt larger parts to all threads.
pub(crate) fn alone<R>(work: impl FnOnce() -> R) -> R {
    /// Sets the flag back, also when a test's `work` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _restore = Restore(ALONE.replace(true));
    work()
}

/// How many threads share the items of a call.
pub(super) fn available() -> usize {
    if ALONE.get() { 1 } else { rayon::current_num_threads() }
}

/// Runs `task(0..items)`, in parallel on the current rayon pool when there is more than one and the thread is not to
/// work [`alone`].
pub(super) fn for_each_item(items: usize, task: impl Fn(usize) + Sync + Send) {
    if items <= 1 || available() <= 1 {
        (0..items).for_each(task);
    } else {
        (0..items).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// A mutable buffer that several threads write at once, each its own elements.
#[derive(Clone, Copy)]
pub(super) struct Disjoint<'a> {
    start: *mut f32,
    len: usize,
    buffer: PhantomData<&'a mut [f32]>,
}

// SAFETY: the type only hands out memory through unsafe functions whose callers promise that no two threads touch
// the same element; f32 itself may be written from any thread.
unsafe impl Send for Disjoint<'_> {}
// SAFETY: as above.
unsafe impl Sync for Disjoint<'_> {}

impl<'a> Disjoint<'a> {
    /// Borrows the whole buffer for the time of the parallel section.
    pub(super) fn new(buffer: &'a mut [f32]) -> Self {
        Disjoint { start: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// The buffer's first element; what is reached through it must stay inside and be this thread's own.
    pub(super) fn start(self) -> *mut f32 {
        self.start
    }

    /// Elements `range` as a slice. Panics outside the buffer.
    ///
    /// # Safety
    /// While the slice lives, no other thread or slice may touch these elements.
    pub(super) unsafe fn slice(self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the buffer, which lives for 'a; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for (total, parts) in [(0, 1), (1, 1), (5, 2), (7, 7), (64, 5), (3, 4)] {
            let mut next = 0;
            for i in 0..parts {
                let range = part(total, parts, i);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, total);
        }
    }

    #[test]
    fn a_thread_alone_hands_nothing_over() {
        let here = std::thread::current().id();
        alone(|| for_each_item(50, |_| assert_eq!(std::thread::current().id(), here)));
        assert!(!ALONE.get());
    }

    #[test]
    fn items_write_their_own_elements() {
        let mut buffer = vec![0.0; 100];
        let shared = Disjoint::new(&mut buffer);
        for_each_item(10, |i| {
            // SAFETY: each item has its own ten elements.
            unsafe { shared.slice(i * 10..(i + 1) * 10) }.fill(i as f32);
        });
        assert!(buffer.iter().enumerate().all(|(i, &v)| v == (i / 10) as f32));
    }
}
