//! PTX text to a tree: what is written, nothing interpreted yet.

mod parse;
mod token;

pub(crate) use parse::parse;

use std::fmt;

/// Why a text is no PTX that this crate can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtxError {
    /// Line of the text, from 1; 0 where no line is to blame.
    pub line: u32,
    /// What was found, and what was expected.
    pub what: String,
}

impl PtxError {
    pub(crate) fn new(line: u32, what: impl Into<String>) -> Self {
        PtxError { line, what: what.into() }
    }
}

impl fmt::Display for PtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "PTX: {}", self.what)
        } else {
            write!(f, "PTX line {}: {}", self.line, self.what)
        }
    }
}

impl std::error::Error for PtxError {}

/// Where a variable lives, or where an access goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Device memory.
    Global,
    /// Constant memory (kept in device memory, read only).
    Const,
    /// A block's own memory.
    Shared,
    /// A thread's own memory.
    Local,
    /// A kernel's parameters.
    Param,
    /// Any of these, told apart by the address.
    Generic,
}

/// Types of registers, variables and instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Ty {
    Pred,
    B8,
    U8,
    S8,
    B16,
    U16,
    S16,
    F16,
    Bf16,
    B32,
    U32,
    S32,
    F32,
    Tf32,
    F16x2,
    Bf16x2,
    B64,
    U64,
    S64,
    F64,
}

impl Ty {
    pub(crate) fn of(name: &str) -> Option<Ty> {
        Some(match name {
            "pred" => Ty::Pred,
            "b8" => Ty::B8,
            "u8" => Ty::U8,
            "s8" => Ty::S8,
            "b16" => Ty::B16,
            "u16" => Ty::U16,
            "s16" => Ty::S16,
            "f16" => Ty::F16,
            "bf16" => Ty::Bf16,
            "b32" => Ty::B32,
            "u32" => Ty::U32,
            "s32" => Ty::S32,
            "f32" => Ty::F32,
            "tf32" => Ty::Tf32,
            "f16x2" => Ty::F16x2,
            "bf16x2" => Ty::Bf16x2,
            "b64" => Ty::B64,
            "u64" => Ty::U64,
            "s64" => Ty::S64,
            "f64" => Ty::F64,
            _ => return None,
        })
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Ty::Pred | Ty::B8 | Ty::U8 | Ty::S8 => 1,
            Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::Bf16 => 2,
            Ty::B32 | Ty::U32 | Ty::S32 | Ty::F32 | Ty::Tf32 | Ty::F16x2 | Ty::Bf16x2 => 4,
            Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => 8,
        }
    }

    pub(crate) fn bits(self) -> u32 {
        8 * self.bytes() as u32
    }

    pub(crate) fn signed(self) -> bool {
        matches!(self, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }

    pub(crate) fn float(self) -> bool {
        matches!(self, Ty::F16 | Ty::Bf16 | Ty::F32 | Ty::Tf32 | Ty::F64)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Ptx {
    pub target: u32,
    pub vars: Vec<Var>,
    pub functions: Vec<Function>,
}

/// A variable or a parameter.
#[derive(Debug, Clone)]
pub(crate) struct Var {
    pub space: Space,
    pub name: String,
    pub align: usize,
    /// Bytes; none for `.extern .shared x[]`.
    pub size: Option<usize>,
    pub init: Vec<u8>,
    /// Addresses of other variables to be written into the initial value: offset, name.
    pub addresses: Vec<(usize, String)>,
    pub initialised: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub entry: bool,
    pub name: String,
    pub line: u32,
    pub results: Vec<Var>,
    pub params: Vec<Var>,
    /// None for a declaration.
    pub body: Option<Vec<Stmt>>,
    /// `.maxntid` or `.reqntid`: threads that a block may have.
    pub max_threads: Option<u32>,
}

#[derive(Debug, Clone)]
pub(crate) enum Stmt {
    Label(String),
    Open,
    Close,
    /// `.reg .b32 %r<5>;` (a count) or `.reg .b32 t;`
    Reg {
        ty: Ty,
        name: String,
        count: Option<u32>,
    },
    Var(Var),
    /// `label: .branchtargets a, b;`
    Targets(String, Vec<String>),
    Instr(Instr),
}

#[derive(Debug, Clone)]
pub(crate) struct Instr {
    pub line: u32,
    /// Predicate, and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// `add.s32`, split at its dots.
    pub op: Vec<String>,
    pub args: Vec<Arg>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Arg {
    /// A register, variable, label or function.
    Name(String),
    /// `!p`
    Not(String),
    Int(u64),
    F32(u32),
    F64(u64),
    /// `[base+offset]`, the base a name or nothing.
    Address(Option<String>, i64),
    /// `name+offset` outside of brackets.
    Offset(String, i64),
    /// `{a, b}`
    Vector(Vec<Arg>),
    /// `(a, b)`: arguments and results of a call.
    List(Vec<Arg>),
    /// `p|q`
    Pair(String, String),
    /// `_`
    Sink,
}
