//! Device memory: allocations at invented addresses, every byte of which knows whether it was written.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::fault::{FaultKind, Trouble};
use crate::ptx::Space;

/// First address; between allocations lies a gap that nothing owns, and no address is given out twice.
const FIRST: u64 = 0x10_0000_0000;
const GAP: u64 = 1 << 20;
const ALIGN: u64 = 512;

/// One allocation.
pub(crate) struct Block {
    pub base: u64,
    pub len: usize,
    pub read_only: bool,
    data: Box<[AtomicU64]>,
    /// A byte per word of four bytes: bit i says that byte i was written.
    written: Box<[AtomicU8]>,
}

/// Zeroed memory that the system need not touch yet.
fn zeroed<T>(len: usize) -> Box<[T]>
where
    T: Zero,
{
    let raw = Box::into_raw(vec![T::Plain::default(); len].into_boxed_slice());
    // SAFETY: an atomic integer has the size, alignment and bit patterns of the plain one.
    unsafe { Box::from_raw(raw as *mut [T]) }
}

trait Zero {
    type Plain: Clone + Default;
}

impl Zero for AtomicU64 {
    type Plain = u64;
}

impl Zero for AtomicU8 {
    type Plain = u8;
}

impl Block {
    fn new(base: u64, len: usize) -> Self {
        Block { base, len, read_only: false, data: zeroed(len.div_ceil(8)), written: zeroed(len.div_ceil(4)) }
    }

    fn at(&self, offset: usize, width: usize) -> *const u8 {
        debug_assert!(offset.is_multiple_of(width) && offset + width <= self.len);
        // The data may be reached by another width than its own.
        self.data.as_ptr().cast::<u8>().wrapping_add(offset)
    }

    /// `width` (1, 2, 4, 8) bytes at an offset that is a multiple of it.
    #[inline(always)]
    pub(crate) fn load(&self, offset: usize, width: usize) -> u64 {
        let p = self.at(offset, width);
        // SAFETY: the caller has checked bounds and alignment. Blocks run on several threads and may race here as they may
        // on a GPU: relaxed atomic accesses make that a matter of order, not of validity.
        unsafe {
            match width {
                1 => (*p.cast::<AtomicU8>()).load(Relaxed).into(),
                2 => (*p.cast::<AtomicU16>()).load(Relaxed).into(),
                4 => (*p.cast::<AtomicU32>()).load(Relaxed).into(),
                _ => (*p.cast::<AtomicU64>()).load(Relaxed),
            }
        }
    }

    #[inline(always)]
    pub(crate) fn store(&self, offset: usize, width: usize, value: u64) {
        let p = self.at(offset, width);
        // SAFETY: as for `load`.
        unsafe {
            match width {
                1 => (*p.cast::<AtomicU8>()).store(value as u8, Relaxed),
                2 => (*p.cast::<AtomicU16>()).store(value as u16, Relaxed),
                4 => (*p.cast::<AtomicU32>()).store(value as u32, Relaxed),
                _ => (*p.cast::<AtomicU64>()).store(value, Relaxed),
            }
        }
        self.mark(offset, width);
    }

    /// Replaces 4 or 8 bytes by a function of them; the old value.
    pub(crate) fn update(&self, offset: usize, width: usize, f: impl Fn(u64) -> u64) -> u64 {
        let p = self.at(offset, width);
        // SAFETY: as for `load`.
        unsafe {
            if width == 4 {
                let cell = &*p.cast::<AtomicU32>();
                let set = cell.fetch_update(Relaxed, Relaxed, |v| Some(f(v.into()) as u32));
                set.unwrap_or_else(|v| v).into()
            } else {
                let cell = &*p.cast::<AtomicU64>();
                cell.fetch_update(Relaxed, Relaxed, |v| Some(f(v))).unwrap_or_else(|v| v)
            }
        }
    }

    #[inline(always)]
    pub(crate) fn initialised(&self, offset: usize, width: usize) -> bool {
        let word = |i: usize| self.written[i].load(Relaxed);
        match width {
            8 => word(offset / 4) & word(offset / 4 + 1) == 15,
            4 => word(offset / 4) == 15,
            _ => {
                let bits = ((1u8 << width) - 1) << (offset % 4);
                word(offset / 4) & bits == bits
            }
        }
    }

    #[inline(always)]
    fn mark(&self, offset: usize, width: usize) {
        match width {
            8 => {
                self.written[offset / 4].store(15, Relaxed);
                self.written[offset / 4 + 1].store(15, Relaxed);
            }
            4 => self.written[offset / 4].store(15, Relaxed),
            _ => {
                self.written[offset / 4].fetch_or(((1 << width) - 1) << (offset % 4), Relaxed);
            }
        }
    }

    fn set(&self, range: std::ops::Range<usize>, written: bool) {
        for at in range {
            let bit = 1u8 << (at % 4);
            if written {
                self.written[at / 4].fetch_or(bit, Relaxed);
            } else {
                self.written[at / 4].fetch_and(!bit, Relaxed);
            }
        }
    }
}

/// Why the host's request cannot be met.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// Not enough memory: bytes asked for, bytes free.
    Full {
        /// Bytes asked for.
        asked: usize,
        /// Bytes left of the device's memory.
        free: usize,
    },
    /// An address and a number of bytes that lie in no allocation.
    Range {
        /// The address.
        address: u64,
        /// Bytes.
        bytes: usize,
    },
    /// A download of bytes that nothing has written.
    Uninitialised {
        /// The first such byte.
        address: u64,
    },
}

impl std::fmt::Display for MemoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MemoryError::Full { asked, free } => write!(f, "device memory: {asked} bytes asked for, {free} free"),
            MemoryError::Range { address, bytes } => {
                write!(f, "device memory: {bytes} bytes at {address:#x} lie in no allocation")
            }
            MemoryError::Uninitialised { address } => {
                write!(f, "device memory: the byte at {address:#x} is copied to the host, and nothing has written it")
            }
        }
    }
}

impl std::error::Error for MemoryError {}

/// All allocations, by address.
pub(crate) struct Memory {
    blocks: Vec<Block>,
    next: u64,
    pub total: usize,
    used: usize,
}

impl Memory {
    pub(crate) fn new(total: usize) -> Self {
        Memory { blocks: Vec::new(), next: FIRST, total, used: 0 }
    }

    pub(crate) fn free_bytes(&self) -> usize {
        self.total - self.used
    }

    pub(crate) fn alloc(&mut self, len: usize) -> Result<u64, MemoryError> {
        let full = MemoryError::Full { asked: len, free: self.free_bytes() };
        let span = (len as u64).checked_add(GAP).and_then(|s| s.checked_next_multiple_of(ALIGN)).ok_or(full.clone())?;
        if len > self.free_bytes() || self.next.saturating_add(span) >= crate::program::SHARED_WINDOW {
            return Err(full);
        }
        let base = self.next;
        self.blocks.push(Block::new(base, len));
        self.used += len;
        self.next += span;
        Ok(base)
    }

    pub(crate) fn free(&mut self, base: u64) -> Result<(), MemoryError> {
        let at = self
            .blocks
            .binary_search_by_key(&base, |b| b.base)
            .map_err(|_| MemoryError::Range { address: base, bytes: 0 })?;
        self.used -= self.blocks.remove(at).len;
        Ok(())
    }

    pub(crate) fn protect(&mut self, base: u64) {
        for block in self.blocks.iter_mut().filter(|b| b.base == base) {
            block.read_only = true;
        }
    }

    /// The allocation that begins at or nearest below an address.
    #[inline]
    pub(crate) fn near(&self, address: u64) -> Option<&Block> {
        let after = self.blocks.partition_point(|b| b.base <= address);
        after.checked_sub(1).map(|i| &self.blocks[i])
    }

    /// The allocation that holds an access of a lane, and the offset there.
    pub(crate) fn locate(
        &self,
        lane: usize,
        address: u64,
        size: usize,
        write: bool,
    ) -> Result<(&Block, usize), Trouble> {
        let near = self.near(address);
        if let Some(block) = near
            && address - block.base + size as u64 <= block.len as u64
        {
            if write && block.read_only {
                return Err(Trouble::at(lane, FaultKind::ReadOnly { address }));
            }
            return Ok((block, (address - block.base) as usize));
        }
        let near = near.map(|b| (b.base, b.len as u64));
        Err(Trouble::at(lane, FaultKind::OutOfBounds { space: Space::Global, address, size, write, near }))
    }

    fn range(&self, address: u64, bytes: usize) -> Result<(&Block, usize), MemoryError> {
        self.locate(0, address, bytes, false).map_err(|_| MemoryError::Range { address, bytes })
    }

    pub(crate) fn upload(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let (block, offset) = self.range(address, bytes.len())?;
        // Eight bytes at once where both ends allow it.
        let head = bytes.len().min(offset.next_multiple_of(8) - offset);
        let (first, rest) = bytes.split_at(head);
        let chunks = rest.chunks_exact(8);
        let tail = chunks.remainder();
        for (i, byte) in first.iter().enumerate() {
            block.store(offset + i, 1, u64::from(*byte));
        }
        let mut at = offset + head;
        for chunk in chunks {
            block.store(at, 8, chunk.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)));
            at += 8;
        }
        for (i, byte) in tail.iter().enumerate() {
            block.store(at + i, 1, u64::from(*byte));
        }
        Ok(())
    }

    pub(crate) fn download(&self, address: u64, bytes: &mut [u8], strict: bool) -> Result<(), MemoryError> {
        let (block, offset) = self.range(address, bytes.len())?;
        let mut i = 0;
        while i < bytes.len() {
            let at = offset + i;
            let width = if at.is_multiple_of(8) && bytes.len() - i >= 8 && block.initialised(at, 8) { 8 } else { 1 };
            if strict && width == 1 && !block.initialised(at, 1) {
                return Err(MemoryError::Uninitialised { address: address + i as u64 });
            }
            bytes[i..i + width].copy_from_slice(&block.load(at, width).to_le_bytes()[..width]);
            i += width;
        }
        Ok(())
    }

    /// Bytes that were not written stay so in the copy.
    pub(crate) fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), MemoryError> {
        let ((source, at), (target, offset)) = (self.range(from, bytes)?, self.range(to, bytes)?);
        let values: Vec<(u8, bool)> =
            (at..at + bytes).map(|i| (source.load(i, 1) as u8, source.initialised(i, 1))).collect();
        for (i, (value, known)) in values.into_iter().enumerate() {
            target.store(offset + i, 1, value.into());
            target.set(offset + i..offset + i + 1, known);
        }
        Ok(())
    }

    /// Forgets that bytes were written.
    pub(crate) fn forget(&self, address: u64, bytes: usize) -> Result<(), MemoryError> {
        let (block, offset) = self.range(address, bytes)?;
        block.set(offset..offset + bytes, false);
        Ok(())
    }
}
