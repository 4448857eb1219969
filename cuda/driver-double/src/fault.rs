//! What a kernel did wrong, and where.

use std::fmt;

use crate::ptx::Space;

/// Kinds of accesses, as reports of races name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessKind {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An atomic operation.
    Atomic,
    /// A `cp.async` that has not been waited for.
    Copy,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// An access that lies in no allocation, or beyond the end of one.
    OutOfBounds {
        /// Space of the access.
        space: Space,
        /// First byte.
        address: u64,
        /// Bytes.
        size: usize,
        /// Whether it would have written.
        write: bool,
        /// Base and bytes of the allocation that lies nearest below, or of the block's memory.
        near: Option<(u64, u64)>,
    },
    /// An address that is no multiple of the access's size.
    Misaligned {
        /// Space of the access.
        space: Space,
        /// The address.
        address: u64,
        /// Bytes of the access.
        size: usize,
    },
    /// A read of bytes that nothing has written.
    Uninitialised {
        /// Space of the access.
        space: Space,
        /// First byte.
        address: u64,
        /// Bytes of the access.
        size: usize,
    },
    /// A store to constant memory or to a parameter.
    ReadOnly {
        /// The address.
        address: u64,
    },
    /// Two warps access the same byte of shared memory without a barrier between them, and one of them writes.
    Race {
        /// The byte within the block's shared memory.
        address: u64,
        /// What this thread does.
        this: AccessKind,
        /// What was done before.
        before: AccessKind,
        /// The warp that did it; none where it was several, or an atomic operation.
        warp: Option<usize>,
    },
    /// Lanes of one instruction store different values to the same byte.
    Clash {
        /// Space of the access.
        space: Space,
        /// The address.
        address: u64,
    },
    /// A barrier that a part of a warp reaches, or that warps reach at different places.
    BarrierDivergence {
        /// Lanes that are there.
        here: u32,
        /// Lanes of the warp that have not ended.
        live: u32,
        /// PTX line where another warp waits meanwhile.
        other_line: Option<u32>,
    },
    /// Warps wait for a barrier, or lanes for others, that never come.
    Deadlock {
        /// Who waits for what.
        what: String,
    },
    /// A warp-wide instruction whose mask leaves out a lane that executes it, names one that has ended, or that reads from
    /// a lane outside of it.
    BadMask {
        /// The mask.
        mask: u32,
        /// Lanes that execute the instruction.
        active: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More instructions than the budget allows: an endless loop.
    Budget {
        /// Instructions of this warp.
        instructions: u64,
    },
    /// `trap`, or a failed assertion.
    Trap,
    /// A branch by table beyond its end.
    BadTarget {
        /// The index.
        index: u64,
    },
}

/// A [`FaultKind`] with the place where it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Name of the kernel.
    pub kernel: String,
    /// The block's index.
    pub block: [u32; 3],
    /// The first thread to blame; none where it is the block.
    pub thread: Option<[u32; 3]>,
    /// Line of the PTX text.
    pub line: u32,
    /// That line.
    pub text: String,
    /// What went wrong.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        write!(f, "{}, block ({x}, {y}, {z})", self.kernel)?;
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        write!(f, ": {}; PTX line {}: {}", self.kind, self.line, self.text)
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::OutOfBounds { space, address, size, write, near } => {
                let does = if *write { "writes" } else { "reads" };
                write!(f, "{does} {size} bytes of {space:?} memory at {address:#x}, out of bounds")?;
                match near {
                    Some((base, len)) if *address < base + len => {
                        write!(f, " ({} bytes of {len} are left there)", base + len - address)
                    }
                    Some((base, len)) => {
                        write!(f, " ({} bytes after the end of {len} bytes at {base:#x})", address - (base + len))
                    }
                    None => Ok(()),
                }
            }
            FaultKind::Misaligned { space, address, size } => {
                write!(f, "{space:?} address {address:#x} is no multiple of {size}")
            }
            FaultKind::Uninitialised { space, address, size } => {
                write!(f, "reads {size} bytes of {space:?} memory at {address:#x} that nothing has written")
            }
            FaultKind::ReadOnly { address } => write!(f, "writes to read-only memory at {address:#x}"),
            FaultKind::Race { address, this, before, warp } => {
                write!(f, "race in shared memory at {address:#x}: {this:?} after {before:?}")?;
                match warp {
                    Some(warp) => write!(f, " by warp {warp}, no barrier between"),
                    None => write!(f, " by another warp, no barrier between"),
                }
            }
            FaultKind::Clash { space, address } => {
                write!(f, "lanes of one instruction store different values to {space:?} address {address:#x}")
            }
            FaultKind::BarrierDivergence { here, live, other_line } => match other_line {
                Some(line) => write!(f, "barrier divergence: another warp of the block waits at line {line}"),
                None => {
                    write!(f, "barrier divergence: lanes {here:#010x} of the warp's {live:#010x} are at the barrier")
                }
            },
            FaultKind::Deadlock { what } => write!(f, "deadlock: {what}"),
            FaultKind::BadMask { mask, active, what } => {
                write!(f, "member mask {mask:#010x}, executing lanes {active:#010x}: {what}")
            }
            FaultKind::Budget { instructions } => write!(f, "no end after {instructions} instructions of one warp"),
            FaultKind::Trap => write!(f, "trap"),
            FaultKind::BadTarget { index } => write!(f, "index {index} is outside of the table of branches"),
        }
    }
}

/// A fault as the executing warp knows it.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub lane: Option<usize>,
    pub kind: FaultKind,
}

impl Trouble {
    pub(crate) fn at(lane: usize, kind: FaultKind) -> Self {
        Trouble { lane: Some(lane), kind }
    }
}
