//! How a kernel is declared and launched.
//!
//! Each op declares the kernels that it launches, with the names and types of their parameters in order: the declaration is
//! the function that the op calls, the line in docs/cuda-kernels.md, and what a test compares with the PTX.

use std::fmt;

/// An address on the device. Null is where nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Ptr(pub u64);

impl Ptr {
    /// No address: what a kernel gets for an operand that is not there.
    pub const NULL: Ptr = Ptr(0);

    /// The address of an element behind this one.
    #[must_use]
    pub fn at(self, element: usize) -> Ptr {
        Ptr(self.0 + 4 * element as u64)
    }
}

/// The grid, the block, and the bytes of dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads along x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub shared: u32,
}

impl Launch {
    /// Blocks and threads in one dimension.
    pub const fn line(blocks: u32, threads: u32) -> Self {
        Launch { grid: [blocks, 1, 1], block: [threads, 1, 1], shared: 0 }
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Launch { grid: [gx, gy, gz], block: [bx, by, bz], shared } = self;
        write!(f, "{gx}×{gy}×{gz} blocks of {bx}×{by}×{bz} threads, {shared} bytes")
    }
}

/// One parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// Its type in Rust.
    pub kind: &'static str,
    /// Its bytes.
    pub bytes: usize,
}

/// A kernel as an op launches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// The file in `cuda/` that has it, without `.cu`.
    pub module: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Its parameters, in order.
    pub arguments: &'static [Argument],
}

/// Declares the kernels of a module: a function that launches each, and `KERNELS`, which describes them.
macro_rules! kernels {
    ($module:literal: $($(#[doc = $doc:literal])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?);)*) => {
        $(
            $(#[doc = $doc])*
            #[allow(clippy::too_many_arguments)] // as many as the kernel has
            $visibility fn $name(gpu: &$crate::backend::cuda::Gpu, launch: $crate::backend::cuda::Launch, $($argument: $kind),*) -> $crate::Result<()> {
                static FUNCTION: $crate::backend::cuda::gpu::FunctionCell = $crate::backend::cuda::gpu::FunctionCell::new();
                $(let mut $argument = $argument;)*
                let arguments = [$((&raw mut $argument).cast::<std::ffi::c_void>()),*];
                gpu.launch(&FUNCTION, $module, stringify!($name), launch, &arguments)
            }
        )*

        /// What is declared here.
        pub(crate) const KERNELS: &[$crate::backend::cuda::KernelInfo] = &[$(
            $crate::backend::cuda::KernelInfo {
                module: $module,
                name: stringify!($name),
                doc: concat!($($doc),*),
                arguments: &[$($crate::backend::cuda::Argument {
                    name: stringify!($argument),
                    kind: stringify!($kind),
                    bytes: size_of::<$kind>(),
                }),*],
            }
        ),*];
    };
}
pub(crate) use kernels;

macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        /// Every module with its PTX.
        const MODULES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../cuda/ptx/", $name, ".ptx")))),*];
    };
}

modules![
    "activation",
    "attention",
    "conv",
    "conv_backward",
    "conv_direct",
    "conv_tf32",
    "conv_twist",
    "elementwise",
    "input",
    "loss",
    "norm",
    "optim",
    "pool",
    "sums",
    "twist",
];

/// A size as kernels take it. What the plan lays out has fewer than 2³¹ elements.
pub(crate) fn int(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

/// Blocks that cover `len` elements with `each` per block, one at least and `most` at most.
pub(crate) fn blocks(len: usize, each: usize, most: u32) -> u32 {
    u32::try_from(len.div_ceil(each)).unwrap_or(u32::MAX).clamp(1, most)
}

/// Columns of channels as `cuda/common.cuh` takes them: four channels each where their number is a multiple of four.
pub(crate) fn columns(channels: usize) -> u32 {
    let each = if channels.is_multiple_of(4) { 4 } else { 1 };
    u32::try_from(channels / each).unwrap_or(u32::MAX)
}

/// The launch of an element-wise kernel whose threads take four elements at a time.
pub(crate) fn per_four(len: usize) -> Launch {
    Launch::line(blocks(len, 1024, 65535), 256)
}

/// The launch of one whose threads take one.
pub(crate) fn per_one(len: usize) -> Launch {
    Launch::line(blocks(len, 256, 65535), 256)
}

/// The PTX of a module, as `cuda/build.sh` made it.
pub fn ptx(module: &str) -> Option<&'static str> {
    MODULES.iter().find(|(name, _)| *name == module).map(|(_, text)| *text)
}

/// What a module of kernels was compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ModuleInfo {
    /// Its file in `cuda/`, without `.cu`.
    pub name: &'static str,
    /// The version of its instruction set.
    pub version: &'static str,
    /// The oldest architecture that runs it.
    pub target: &'static str,
}

/// All modules.
pub fn modules() -> Vec<ModuleInfo> {
    let header = |text: &'static str, word: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(word));
        line.unwrap_or_default().trim()
    };
    let info = |&(name, text)| ModuleInfo { name, version: header(text, ".version"), target: header(text, ".target") };
    MODULES.iter().map(info).collect()
}
