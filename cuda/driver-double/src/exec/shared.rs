//! A block's shared memory. Each byte remembers who wrote and who read it last since which barrier.

use crate::fault::{AccessKind, FaultKind, Trouble};
use crate::ptx::Space;

/// Who, in the low six bits of an entry; warps are 0 to 31.
const OLD: u16 = 60;
const SEVERAL: u16 = 61;
const ATOMIC: u16 = 62;
const ASYNC: u16 = 63;
const WHO: u16 = 63;
/// Epochs (barriers passed) that an entry can tell apart.
const EPOCHS: u16 = 1 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Atomic,
    /// A load or store by which threads talk to each other on purpose.
    Volatile,
}

pub(crate) struct Shared {
    pub data: Vec<u8>,
    /// Per word of four bytes, 16 bits for each: epoch << 6 | who; 0: never.
    writer: Vec<u64>,
    reader: Vec<u64>,
    epoch: u16,
}

/// The same entry for all four bytes of a word.
#[inline(always)]
fn four(entry: u16) -> u64 {
    u64::from(entry) * 0x1_0001_0001_0001
}

impl Shared {
    pub(crate) fn new(bytes: usize) -> Self {
        Shared {
            data: vec![0; bytes],
            writer: vec![0; bytes.div_ceil(4)],
            reader: vec![0; bytes.div_ceil(4)],
            epoch: 1,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.writer.fill(0);
        self.reader.fill(0);
        self.epoch = 1;
    }

    /// A barrier: what was done before is ordered before what comes.
    pub(crate) fn barrier(&mut self) {
        self.epoch += 1;
        if self.epoch == EPOCHS {
            for i in 0..4 * self.writer.len() {
                let entry = self.written_by(i);
                if entry != 0 && entry & WHO != ASYNC {
                    self.set_writer(i, 1, OLD);
                }
            }
            self.reader.fill(0);
            self.epoch = 1;
        }
    }

    fn written_by(&self, at: usize) -> u16 {
        (self.writer[at / 4] >> (16 * (at % 4))) as u16
    }

    fn read_by(&self, at: usize) -> u16 {
        (self.reader[at / 4] >> (16 * (at % 4))) as u16
    }

    fn set_writer(&mut self, at: usize, size: usize, entry: u16) {
        if size.is_multiple_of(4) {
            return self.writer[at / 4..(at + size) / 4].fill(four(entry));
        }
        for i in at..at + size {
            let (word, shift) = (&mut self.writer[i / 4], 16 * (i % 4));
            *word = *word & !(0xffff << shift) | u64::from(entry) << shift;
        }
    }

    /// Bounds, alignment, initialisation and races of one lane's access; the offset.
    #[inline]
    pub(crate) fn check(
        &mut self,
        lane: usize,
        warp: usize,
        address: u64,
        size: usize,
        kind: Kind,
    ) -> Result<usize, Trouble> {
        let write = matches!(kind, Kind::Write | Kind::Atomic);
        if address.checked_add(size as u64).is_none_or(|end| end > self.data.len() as u64) {
            let near = Some((0, self.data.len() as u64));
            return Err(Trouble::at(lane, FaultKind::OutOfBounds { space: Space::Shared, address, size, write, near }));
        }
        let at = address as usize;
        if at & (size - 1) != 0 {
            return Err(Trouble::at(lane, FaultKind::Misaligned { space: Space::Shared, address, size }));
        }
        if !self.plain(at, size, warp as u16, kind) && !self.bytes(at, size, warp as u16, kind) {
            return Err(Trouble::at(lane, self.blame(at, size, warp as u16, kind)));
        }
        Ok(at)
    }

    /// The common case, word by word: every byte of a word has one story, which is old or this warp's own. True: done.
    #[inline(always)]
    fn plain(&mut self, at: usize, size: usize, warp: u16, kind: Kind) -> bool {
        if size < 4 || !matches!(kind, Kind::Read | Kind::Write) {
            return false;
        }
        let (me, epoch) = (self.epoch << 6 | warp, self.epoch);
        let (mine, shared) = (four(me), four(epoch << 6 | SEVERAL));
        let settled = |word: u64| {
            let entry = word as u16;
            word == mine || (word == four(entry) && entry >> 6 != epoch && entry != ASYNC)
        };
        let words = at / 4..(at + size) / 4;
        let (writer, reader) = (&mut self.writer[words.clone()], &mut self.reader[words]);
        if kind == Kind::Read {
            let fine = writer.iter().zip(reader.iter()).all(|(w, r)| settled(*w) && *w != 0 && *r == four(*r as u16));
            if fine {
                for r in reader {
                    *r = if settled(*r) { mine } else { shared };
                }
            }
            return fine;
        }
        let fine = writer.iter().zip(reader.iter()).all(|(w, r)| settled(*w) && settled(*r));
        if fine {
            writer.fill(mine);
        }
        fine
    }

    /// Any case, byte by byte: whether the access is right; remembers it.
    fn bytes(&mut self, at: usize, size: usize, warp: u16, kind: Kind) -> bool {
        let me = self.epoch << 6 | warp;
        let atomic = self.epoch << 6 | ATOMIC;
        // Another's entry of this epoch.
        let other = |entry: u16| (entry ^ me) & !WHO == 0 && entry != me;
        for i in at..at + size {
            let (w, r) = (self.written_by(i), self.read_by(i));
            let bad = match kind {
                Kind::Read => w == 0 || other(w),
                Kind::Write => other(w) || other(r),
                Kind::Atomic => w == 0 || (other(w) && w != atomic) || other(r),
                Kind::Volatile => false,
            };
            if bad || w == ASYNC {
                return false;
            }
            if kind == Kind::Read {
                let (word, shift) = (&mut self.reader[i / 4], 16 * (i % 4));
                let entry = if other(r) { self.epoch << 6 | SEVERAL } else { me };
                *word = *word & !(0xffff << shift) | u64::from(entry) << shift;
            }
        }
        match kind {
            Kind::Write => self.set_writer(at, size, me),
            Kind::Atomic => self.set_writer(at, size, atomic),
            _ => {}
        }
        true
    }

    /// Marks bytes as written by a volatile store: by design others may read them at any time.
    pub(crate) fn touch(&mut self, at: usize, size: usize) {
        self.set_writer(at, size, OLD);
    }

    pub(crate) fn untouched(&self, at: usize, size: usize) -> bool {
        (at..at + size).any(|i| self.written_by(i) == 0)
    }

    /// What is wrong with an access that [`bytes`](Self::bytes) refused.
    fn blame(&self, at: usize, size: usize, warp: u16, kind: Kind) -> FaultKind {
        let this = match kind {
            Kind::Read | Kind::Volatile => AccessKind::Read,
            Kind::Write => AccessKind::Write,
            Kind::Atomic => AccessKind::Atomic,
        };
        for i in at..at + size {
            let (w, r) = (self.written_by(i), self.read_by(i));
            let address = i as u64;
            if w == ASYNC {
                return FaultKind::Race { address, this, before: AccessKind::Copy, warp: None };
            }
            if w >> 6 == self.epoch && w & WHO != warp && !(w & WHO == ATOMIC && kind == Kind::Atomic) {
                let before = if w & WHO == ATOMIC { AccessKind::Atomic } else { AccessKind::Write };
                return FaultKind::Race { address, this, before, warp: (w & WHO < 32).then_some((w & WHO).into()) };
            }
            if kind != Kind::Read && r >> 6 == self.epoch && r & WHO != warp {
                return FaultKind::Race {
                    address,
                    this,
                    before: AccessKind::Read,
                    warp: (r & WHO < 32).then_some((r & WHO).into()),
                };
            }
            if w == 0 && kind != Kind::Write {
                return FaultKind::Uninitialised { space: Space::Shared, address: at as u64, size };
            }
        }
        FaultKind::Uninitialised { space: Space::Shared, address: at as u64, size }
    }

    /// From now on until [`land`](Self::land) nobody may touch these bytes.
    pub(crate) fn begin_copy(&mut self, at: usize, size: usize) {
        self.set_writer(at, size, ASYNC);
    }

    /// A `cp.async` arrives.
    pub(crate) fn land(&mut self, at: usize, bytes: &[u8], warp: usize) {
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
        self.set_writer(at, bytes.len(), self.epoch << 6 | warp as u16);
    }

    #[inline(always)]
    pub(crate) fn load(&self, at: usize, width: usize) -> u64 {
        let bytes = &self.data[at..at + width];
        match width {
            1 => bytes[0].into(),
            2 => u16::from_le_bytes([bytes[0], bytes[1]]).into(),
            4 => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into(),
            _ => u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }

    #[inline(always)]
    pub(crate) fn store(&mut self, at: usize, width: usize, value: u64) {
        self.data[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// Passes over the 32 banks that an access of these lanes takes: lanes of 8 and 16 bytes go in halves and quarters of a
/// warp. Lanes that read the same word share a pass.
pub(crate) fn passes(addresses: &[u64; 32], mask: u32, size: usize) -> u64 {
    let unit = size.max(4) as u64;
    // As many lanes go at once as there are units in the 128 bytes that the banks give.
    let lanes = 128 / unit as usize;
    let mut total = 0;
    for first in (0..32).step_by(lanes) {
        let (mut owner, mut units, mut n, mut clash) = ([u64::MAX; 32], [0u64; 32], 0, false);
        for (l, address) in addresses.iter().enumerate().skip(first).take(lanes) {
            if mask >> l & 1 == 1 {
                let at = address / unit;
                let slot = &mut owner[at as usize % lanes];
                clash |= *slot != u64::MAX && *slot != at;
                *slot = at;
                units[n] = at;
                n += 1;
            }
        }
        total += if clash { fullest(&mut units[..n], lanes) } else { u64::from(n > 0) };
    }
    total
}

/// The most different units that fall into one bank.
fn fullest(units: &mut [u64], banks: usize) -> u64 {
    units.sort_unstable();
    let mut counts = [0u64; 32];
    for (i, unit) in units.iter().enumerate() {
        if i == 0 || units[i - 1] != *unit {
            counts[*unit as usize % banks] += 1;
        }
    }
    counts.into_iter().max().unwrap_or(0)
}
