//! One block of memory, 64-byte aligned, from which a plan hands out disjoint slices.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::Range;
use std::ptr::NonNull;

use crate::backend::Real;
use crate::{Error, ErrorKind, Result};

/// Elements that every buffer's offset and length are multiples of: 64 bytes of f32, 128 of f64.
pub const ALIGN: usize = 16;

/// A fixed block of `len` zeroed elements.
pub struct Arena<E> {
    start: NonNull<E>,
    len: usize,
}

// SAFETY: an arena owns its memory like a boxed slice of plain numbers.
unsafe impl<E: Real> Send for Arena<E> {}
// SAFETY: through a shared arena memory changes only by `slice_mut`, whose callers guarantee exclusivity.
unsafe impl<E: Real> Sync for Arena<E> {}

impl<E: Real> Arena<E> {
    /// Allocates `len` zeros.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Unsupported`] where the machine has less memory to give.
    pub fn new(len: usize) -> Result<Self> {
        let bytes = len.saturating_mul(size_of::<E>());
        require_memory(bytes)?;
        let layout = Self::layout(len).ok_or_else(|| too_little(bytes, None))?;
        // SAFETY: the layout has a non-zero size.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }.cast()).ok_or_else(|| too_little(bytes, None))?;
        Ok(Arena { start, len })
    }

    fn layout(len: usize) -> Option<Layout> {
        Layout::array::<E>(len.max(1)).ok()?.align_to(64).ok()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Everything, exclusively.
    pub fn all_mut(&mut self) -> &mut [E] {
        // SAFETY: the arena owns `len` initialised elements and is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Everything.
    pub fn all(&self) -> &[E] {
        // SAFETY: the arena owns `len` initialised elements; no `slice_mut` lives while a plan is not running.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// One part of it.
    ///
    /// # Safety
    /// No mutable slice that overlaps `range` may live.
    pub unsafe fn slice(&self, range: Range<usize>) -> &[E] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds by the assertion, not aliased mutably by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(range.start), range.len()) }
    }

    /// One part of it, mutable.
    ///
    /// # Safety
    /// No other slice that overlaps `range` may live.
    #[allow(clippy::mut_from_ref)] // handing out disjoint parts is what the arena is for
    pub unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [E] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds by the assertion, not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(range.start), range.len()) }
    }
}

impl<E> Drop for Arena<E> {
    fn drop(&mut self) {
        if let Some(layout) = Layout::array::<E>(self.len.max(1)).ok().and_then(|l| l.align_to(64).ok()) {
            // SAFETY: allocated in `new` with this very layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) }
        }
    }
}

/// Refuses what the machine cannot give. The system hands out pages when they are first written, and ends the program
/// when it then has none: so whoever allocates several blocks asks for their sum first.
///
/// # Errors
/// Kind [`ErrorKind::Unsupported`] where fewer than `bytes` are free.
pub(crate) fn require_memory(bytes: usize) -> Result<()> {
    match available_memory() {
        Some(available) if bytes > available => Err(too_little(bytes, Some(available))),
        _ => Ok(()),
    }
}

fn too_little(bytes: usize, available: Option<usize>) -> Error {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let e = Error::new(ErrorKind::Unsupported, "memory", format!("{} MiB are needed", mib(bytes)));
    let e = match available {
        Some(available) => e.expected(format!("at most {} MiB, which is what is free", mib(available))),
        None => e,
    };
    e.hint("take a smaller batch, image size or model")
}

/// Bytes that the machine can still give, where it says so (Linux).
fn available_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_aligned_zeroed_and_bounded() {
        let mut arena = Arena::<f32>::new(40).unwrap();
        assert!(arena.all_mut().iter().all(|&v| v == 0.0));
        assert_eq!(arena.all().as_ptr() as usize % 64, 0);
        // SAFETY: the two ranges are disjoint.
        let (a, b) = unsafe { (arena.slice_mut(0..16), arena.slice_mut(16..40)) };
        a.fill(1.0);
        b.fill(2.0);
        assert_eq!(arena.all()[15..17], [1.0, 2.0]);
    }

    #[test]
    fn more_than_the_machine_has_is_an_error() {
        let error = Arena::<f64>::new(usize::MAX / 8).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
