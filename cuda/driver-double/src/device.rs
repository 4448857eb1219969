//! The device: memory, modules, launches.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::counters::Counters;
use crate::exec::{self, Grid};
use crate::fault::Fault;
use crate::lower;
use crate::memory::{Memory, MemoryError};
use crate::program::Program;
use crate::ptx::{self, PtxError, Space};

/// How a [`Device`] runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Compute capability times ten: a module for a newer one is refused.
    pub capability: u32,
    /// Bytes of device memory.
    pub memory: usize,
    /// Threads that run blocks. One thread runs them in order, so that float atomics add up in a fixed order too.
    pub threads: usize,
    /// Instructions that one warp may execute in one launch.
    pub budget: u64,
    /// Whether copying bytes that nothing has written to the host is an error.
    pub strict_downloads: bool,
    /// Whether launches count the sectors that they touch, each once, which takes time and memory.
    pub distinct: bool,
    /// Whether launches are checked and then do nothing: to find out which ones a program makes that would take days.
    pub dry: bool,
}

impl Default for Config {
    /// Compute capability 9.0, 8 GiB, all cores, 2·10⁹ instructions a warp, strict.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        Config {
            capability: 90,
            memory: 8 << 30,
            threads,
            budget: 2_000_000_000,
            strict_downloads: true,
            distinct: false,
            dry: false,
        }
    }
}

/// A module's kernels, decoded, and its variables' addresses.
pub struct Module {
    kernels: HashMap<String, Program>,
    variables: HashMap<String, (u64, usize)>,
}

impl Module {
    /// Names of the kernels, sorted.
    pub fn kernels(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.kernels.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Address and bytes of a `.global` or `.const` variable.
    pub fn variable(&self, name: &str) -> Option<(u64, usize)> {
        self.variables.get(name).copied()
    }

    /// What a launch of the kernel needs to know.
    pub fn kernel(&self, name: &str) -> Option<KernelInfo> {
        self.kernels.get(name).map(|p| KernelInfo {
            params: p.params.iter().map(|(_, bytes)| *bytes).collect(),
            static_shared: p.static_shared,
            local_bytes: p.local_bytes,
            max_threads: p.max_threads,
        })
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("kernels", &self.kernels()).finish()
    }
}

/// A kernel's needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelInfo {
    /// Bytes of each parameter, in order.
    pub params: Vec<usize>,
    /// Bytes of shared memory that it declares.
    pub static_shared: usize,
    /// Bytes of memory of each thread.
    pub local_bytes: usize,
    /// Threads that a block may have.
    pub max_threads: u32,
}

/// Shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

/// Why a launch did not happen, or did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaunchError {
    /// The module has no such kernel.
    NoKernel(String),
    /// Shape, shared memory or arguments that no GPU would take.
    Invalid(String),
    /// The kernel ran and did something wrong.
    Fault(Box<Fault>),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::NoKernel(name) => write!(f, "no kernel {name} in this module"),
            LaunchError::Invalid(what) => write!(f, "launch: {what}"),
            LaunchError::Fault(fault) => write!(f, "{fault}"),
        }
    }
}

impl std::error::Error for LaunchError {}

/// A GPU's stand-in. See the [crate's example](crate).
pub struct Device {
    config: Config,
    memory: Memory,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Shared memory that a block may have (opting in to it): 64 KiB on 7.5, 99 KiB on 8.6 and 8.9, 163 KiB on 8.0, 227 KiB after.
fn shared_limit(capability: u32) -> usize {
    1024 * match capability {
        ..=75 => 64,
        80 | 87 => 163,
        86 | 89 | 120 => 99,
        _ => 227,
    }
}

impl Device {
    /// A device with empty memory.
    pub fn new(config: Config) -> Self {
        let memory = Memory::new(config.memory);
        Device { config, memory }
    }

    /// How it was made.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes of shared memory that a block may have.
    pub fn shared_limit(&self) -> usize {
        shared_limit(self.config.capability)
    }

    /// Bytes of device memory that are free.
    pub fn free_bytes(&self) -> usize {
        self.memory.free_bytes()
    }

    /// Bytes from an address to the end of the allocation that it lies in.
    pub fn room(&self, address: u64) -> Option<usize> {
        self.memory.locate(0, address, 1, false).ok().map(|(block, offset)| block.len - offset)
    }

    /// Reserves `bytes` of device memory, which nothing has written; its address.
    pub fn alloc(&mut self, bytes: usize) -> Result<u64, MemoryError> {
        self.memory.alloc(bytes)
    }

    /// Gives an allocation back. Its address is never used again, so that later accesses are faults.
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        self.memory.free(address)
    }

    /// Copies bytes to the device.
    pub fn upload(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        self.memory.upload(address, bytes)
    }

    /// Copies bytes to the host.
    pub fn download(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        self.memory.download(address, bytes, self.config.strict_downloads)
    }

    /// Copies bytes within the device.
    pub fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), MemoryError> {
        self.memory.copy(to, from, bytes)
    }

    /// Makes bytes count as never written: for tests of a kernel that is given a part of one large allocation.
    pub fn forget(&mut self, address: u64, bytes: usize) -> Result<(), MemoryError> {
        self.memory.forget(address, bytes)
    }

    /// An allocation filled with numbers.
    pub fn with_f32(&mut self, values: &[f32]) -> Result<u64, MemoryError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let at = self.alloc(bytes.len())?;
        self.upload(at, &bytes).map(|()| at)
    }

    /// `n` numbers from the device.
    pub fn f32s(&self, address: u64, n: usize) -> Result<Vec<f32>, MemoryError> {
        let mut bytes = vec![0; 4 * n];
        self.download(address, &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// Decodes a PTX text. Its variables get memory of the device.
    pub fn load(&mut self, text: &str) -> Result<Module, PtxError> {
        let parsed = ptx::parse(text)?;
        if parsed.target > self.config.capability {
            let what = format!("the text is for sm_{}, this device is sm_{}", parsed.target, self.config.capability);
            return Err(PtxError::new(0, what));
        }
        let mut variables = HashMap::new();
        let kept: Vec<_> = parsed.vars.iter().filter(|v| matches!(v.space, Space::Global | Space::Const)).collect();
        for var in &kept {
            let size = var.size.ok_or_else(|| PtxError::new(0, format!("variable {} has no size", var.name)))?;
            let at = self.memory.alloc(size).map_err(|e| PtxError::new(0, e.to_string()))?;
            variables.insert(var.name.clone(), (at, size));
        }
        for var in &kept {
            let (at, size) = variables[&var.name];
            // The module's variables begin as zero, whatever is given.
            let mut bytes = vec![0; size];
            bytes[..var.init.len()].copy_from_slice(&var.init);
            for (offset, name) in &var.addresses {
                let Some((to, _)) = variables.get(name) else {
                    return Err(PtxError::new(0, format!("{}: the address of {name} is not known here", var.name)));
                };
                bytes[*offset..offset + 8].copy_from_slice(&to.to_le_bytes());
            }
            self.memory.upload(at, &bytes).map_err(|e| PtxError::new(0, e.to_string()))?;
            if var.space == Space::Const && var.initialised {
                self.memory.protect(at);
            }
        }
        let addresses: HashMap<String, u64> = variables.iter().map(|(name, (at, _))| (name.clone(), *at)).collect();
        let text: Arc<str> = Arc::from(text);
        let mut kernels = HashMap::new();
        for function in parsed.functions.iter().filter(|f| f.entry && f.body.is_some()) {
            kernels.insert(function.name.clone(), lower::kernel(&parsed, function, &addresses, &text)?);
        }
        Ok(Module { kernels, variables })
    }

    /// Runs a kernel to its end. `args` are the bytes of each parameter, in order.
    pub fn launch(
        &self,
        module: &Module,
        kernel: &str,
        launch: Launch,
        args: &[&[u8]],
    ) -> Result<Counters, LaunchError> {
        let program = module.kernels.get(kernel).ok_or_else(|| LaunchError::NoKernel(kernel.to_owned()))?;
        let invalid = |what: String| Err(LaunchError::Invalid(format!("{kernel}: {what}")));
        let Launch { grid, block, shared } = launch;
        let threads = block.iter().map(|n| u64::from(*n)).product::<u64>();
        if threads == 0 || threads > u64::from(program.max_threads.min(1024)) || block[2] > 64 {
            return invalid(format!(
                "blocks of {block:?} threads; it takes 1 to {}, at most 64 along z",
                program.max_threads.min(1024)
            ));
        }
        if grid.contains(&0) || grid[0] > i32::MAX as u32 || grid[1] > 65535 || grid[2] > 65535 {
            return invalid(format!("a grid of {grid:?} blocks; at least 1, at most 2147483647, 65535, 65535"));
        }
        let limit = self.shared_limit();
        if program.dynamic_at.saturating_add(shared) > limit {
            return invalid(format!(
                "{} + {shared} bytes of shared memory, the device has {limit}",
                program.dynamic_at
            ));
        }
        let sizes: Vec<usize> = program.params.iter().map(|(_, bytes)| *bytes).collect();
        let given: Vec<usize> = args.iter().map(|a| a.len()).collect();
        if sizes != given {
            return invalid(format!("arguments of {given:?} bytes, its parameters have {sizes:?}"));
        }
        let mut params = vec![0; program.param_bytes];
        for ((at, bytes), arg) in program.params.iter().zip(args) {
            params[*at..at + bytes].copy_from_slice(arg);
        }
        let Config { threads, budget, distinct, dry, .. } = self.config;
        if dry {
            return Ok(Counters::default());
        }
        let memory = &self.memory;
        exec::run(&Grid { program, memory, grid, block, dynamic_shared: shared, params, threads, budget, distinct })
            .map_err(LaunchError::Fault)
    }
}
