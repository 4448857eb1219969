//! A kernel as it runs: registers are numbers, labels are places, names are addresses.

use crate::lanes::{LaneFn, Reg, Regs, TestFn};
use crate::lower::CarryFn;
use crate::ptx::Space;

/// Index of a predicate within its warp's; the first is always true.
pub(crate) type Pred = u16;

/// A predicate, possibly negated: the lanes are `preds[p] ^ flip`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard {
    pub pred: Pred,
    pub flip: u32,
}

pub(crate) const ALWAYS: Guard = Guard { pred: 0, flip: 0 };

/// What an instruction is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Class {
    Integer,
    Float,
    Double,
    Special,
    Convert,
    Move,
    Compare,
    Branch,
    Global,
    Shared,
    Local,
    Param,
    Atomic,
    Warp,
    Barrier,
    Tensor,
    Other,
}

impl Class {
    /// Every class, in the order of [`Counters`](crate::Counters).
    pub const ALL: [Class; 17] = [
        Class::Integer,
        Class::Float,
        Class::Double,
        Class::Special,
        Class::Convert,
        Class::Move,
        Class::Compare,
        Class::Branch,
        Class::Global,
        Class::Shared,
        Class::Local,
        Class::Param,
        Class::Atomic,
        Class::Warp,
        Class::Barrier,
        Class::Tensor,
        Class::Other,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::Integer => "integer",
            Class::Float => "float",
            Class::Double => "double",
            Class::Special => "special",
            Class::Convert => "convert",
            Class::Move => "move",
            Class::Compare => "compare",
            Class::Branch => "branch",
            Class::Global => "global",
            Class::Shared => "shared",
            Class::Local => "local",
            Class::Param => "param",
            Class::Atomic => "atomic",
            Class::Warp => "warp",
            Class::Barrier => "barrier",
            Class::Tensor => "tensor",
            Class::Other => "other",
        }
    }
}

pub(crate) struct Inst {
    pub op: Op,
    pub guard: Guard,
    pub class: Class,
    pub line: u32,
}

/// An address: a register and a number. Register 0 holds zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub space: Space,
    pub base: Reg,
    pub offset: i64,
}

/// A load or a store of up to four values per lane.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub place: Place,
    pub regs: [Option<Reg>; 4],
    pub count: usize,
    /// Bytes of one value.
    pub width: usize,
    /// Bits to extend the sign from and to.
    pub extend: Option<(u32, u32)>,
    /// Of a load: another thread may be writing meanwhile, by design.
    pub volatile: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomKind {
    Add,
    FloatAdd,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

#[derive(Debug, Clone)]
pub(crate) struct Atom {
    pub kind: AtomKind,
    pub place: Place,
    pub d: Option<Reg>,
    pub b: Reg,
    pub c: Reg,
    /// 4 or 8 (2 for pairs of halves is not there).
    pub width: usize,
    pub signed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logic {
    Copy,
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduce {
    Popc,
    And,
    Or,
}

/// Element type of a tensor-core product's factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Factor {
    F16,
    Bf16,
    Tf32,
}

#[derive(Debug, Clone)]
pub(crate) struct Mma {
    pub k: usize,
    pub factor: Factor,
    /// Sums are in f16, two to a register.
    pub half_c: bool,
    pub half_d: bool,
    pub d: Vec<Reg>,
    pub a: Vec<Reg>,
    pub b: Vec<Reg>,
    pub c: Vec<Reg>,
}

pub(crate) enum Op {
    Lanes(LaneFn, Regs),
    Test {
        f: TestFn,
        a: Reg,
        b: Reg,
        d: Pred,
        other: Option<Pred>,
        combine: Logic,
        with: Guard,
    },
    Logic {
        kind: Logic,
        d: Pred,
        a: Guard,
        b: Guard,
    },
    Select {
        d: Reg,
        a: Reg,
        b: Reg,
        p: Guard,
    },
    Carry {
        f: CarryFn,
        regs: Regs,
        reads: bool,
        writes: bool,
    },
    /// bfi and others with four sources.
    Insert {
        d: Reg,
        a: Reg,
        b: Reg,
        pos: Reg,
        len: Reg,
        bits: u32,
    },
    Pack {
        d: Reg,
        parts: Vec<Reg>,
        bits: u32,
    },
    Unpack {
        parts: Vec<Option<Reg>>,
        a: Reg,
        bits: u32,
    },
    Load(Box<Access>),
    Store(Box<Access>),
    Atom(Box<Atom>),
    Branch(u32),
    Table {
        index: Reg,
        targets: Vec<u32>,
    },
    Exit,
    Trap,
    /// Wait for the block; `count` threads take part, or all.
    Barrier {
        id: Reg,
        count: Option<Reg>,
        arrive: bool,
        aligned: bool,
        reduce: Option<(Reduce, Guard, Option<Reg>, Option<Pred>)>,
    },
    WarpSync {
        mask: Reg,
    },
    Shfl {
        mode: ShflMode,
        d: Reg,
        p: Option<Pred>,
        a: Reg,
        b: Reg,
        c: Reg,
        mask: Reg,
    },
    Vote {
        mode: VoteMode,
        d: Option<Reg>,
        p: Option<Pred>,
        a: Guard,
        mask: Reg,
    },
    Match {
        all: bool,
        d: Reg,
        p: Option<Pred>,
        a: Reg,
        mask: Reg,
    },
    Redux {
        kind: AtomKind,
        signed: bool,
        d: Reg,
        a: Reg,
        mask: Reg,
    },
    Active(Reg),
    LdMatrix {
        d: Vec<Reg>,
        place: Place,
        transposed: bool,
    },
    Mma(Box<Mma>),
    CpAsync {
        to: Place,
        from: Place,
        bytes: usize,
        read: Option<Reg>,
    },
    Commit,
    /// Wait until at most this many of the newest groups are pending.
    WaitGroup(u32),
    Clock {
        d: Reg,
        bits: u32,
    },
    IsSpace {
        d: Pred,
        a: Reg,
        space: Space,
    },
    Nop,
}

/// Values that each thread or block has of its own from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    Lane,
    Warp,
    Warps,
    MaskEq,
    MaskLt,
    MaskLe,
    MaskGt,
    MaskGe,
    DynamicShared,
    TotalShared,
    Zero,
}

/// A kernel, decoded.
pub(crate) struct Program {
    pub name: String,
    pub code: Vec<Inst>,
    pub registers: usize,
    pub predicates: usize,
    pub constants: Vec<(Reg, u64)>,
    pub specials: Vec<(Reg, Special)>,
    /// Offset and bytes of each parameter, and bytes of all.
    pub params: Vec<(usize, usize)>,
    pub param_bytes: usize,
    pub static_shared: usize,
    /// Where dynamic shared memory begins.
    pub dynamic_at: usize,
    pub local_bytes: usize,
    pub max_threads: u32,
    /// The module's text, for the lines that faults show.
    pub text: std::sync::Arc<str>,
}

/// Windows of generic addresses. Device memory lies below all of them.
pub(crate) const SHARED_WINDOW: u64 = 1 << 48;
pub(crate) const LOCAL_WINDOW: u64 = 1 << 49;
pub(crate) const PARAM_WINDOW: u64 = 1 << 50;
