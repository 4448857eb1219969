//! The one device and what programs hold of it.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, OnceLock};

use driver_double::{Config, Device, FaultKind, LaunchError, Module};

use crate::queue::{Queues, Recorded};

pub(crate) const SUCCESS: i32 = 0;
pub(crate) const INVALID_VALUE: i32 = 1;
pub(crate) const OUT_OF_MEMORY: i32 = 2;
pub(crate) const NOT_INITIALIZED: i32 = 3;
pub(crate) const INVALID_DEVICE: i32 = 101;
pub(crate) const INVALID_IMAGE: i32 = 200;
pub(crate) const INVALID_CONTEXT: i32 = 201;
pub(crate) const INVALID_PTX: i32 = 218;
pub(crate) const INVALID_HANDLE: i32 = 400;
pub(crate) const NOT_FOUND: i32 = 500;
pub(crate) const NOT_READY: i32 = 600;
pub(crate) const ILLEGAL_ADDRESS: i32 = 700;
pub(crate) const LAUNCH_TIMEOUT: i32 = 702;
pub(crate) const MISALIGNED: i32 = 716;
pub(crate) const LAUNCH_FAILED: i32 = 719;
pub(crate) const NOT_SUPPORTED: i32 = 801;

/// A handle as a program sees it.
pub(crate) type Handle = *mut c_void;

/// A kernel that a program has asked for.
#[derive(Clone)]
pub(crate) struct Function {
    pub module: usize,
    pub name: String,
    /// Dynamic shared memory that the program has asked to be allowed.
    pub dynamic: usize,
}

pub(crate) struct State {
    pub device: Device,
    pub modules: HashMap<usize, Module>,
    pub functions: HashMap<usize, Function>,
    /// Streams, with their flags and priorities.
    pub streams: HashMap<usize, (u32, i32)>,
    pub events: HashMap<usize, Option<Recorded>>,
    /// Work that is not done yet, where the double is late.
    pub queues: Queues,
    /// Page-locked memory of the host: address, bytes.
    pub host: HashMap<usize, usize>,
    /// What a kernel's fault left: every later call gives it.
    pub broken: Option<i32>,
    next: usize,
}

static STATE: OnceLock<Result<Mutex<State>, String>> = OnceLock::new();

thread_local! {
    /// The contexts that this thread has pushed; the last is current.
    static CONTEXTS: Cell<Vec<usize>> = const { Cell::new(Vec::new()) };
}

/// The handle of the only context.
pub(crate) const CONTEXT: usize = 0x10;

fn variable(name: &str, default: usize) -> Result<usize, String> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name}={text:?}: expected a whole number")),
        Err(_) => Ok(default),
    }
}

fn start() -> Result<Mutex<State>, String> {
    let default = Config::default();
    let dry = variable("DRIVER_DOUBLE_DRY", 0)? != 0;
    let config = Config {
        capability: variable("DRIVER_DOUBLE_CAPABILITY", 80)? as u32,
        memory: variable("DRIVER_DOUBLE_MEMORY", 8192)?.saturating_mul(1 << 20),
        threads: variable("DRIVER_DOUBLE_THREADS", default.threads)?,
        budget: variable("DRIVER_DOUBLE_BUDGET", default.budget as usize)? as u64,
        // Where nothing runs, nothing is written.
        strict_downloads: variable("DRIVER_DOUBLE_STRICT", 1)? != 0 && !dry,
        distinct: std::env::var_os("DRIVER_DOUBLE_REPORT").is_some(),
        dry,
    };
    Ok(Mutex::new(State {
        device: Device::new(config),
        modules: HashMap::new(),
        functions: HashMap::new(),
        streams: HashMap::new(),
        events: HashMap::new(),
        queues: Queues::new(variable("DRIVER_DOUBLE_LATE", 0)?)?,
        host: HashMap::new(),
        broken: None,
        next: 0x1000,
    }))
}

/// cuInit.
pub(crate) fn init() -> i32 {
    match STATE.get_or_init(start) {
        Ok(_) => SUCCESS,
        Err(what) => fail(INVALID_VALUE, what),
    }
}

/// The state, of a program that has called cuInit.
pub(crate) fn state() -> Result<MutexGuard<'static, State>, i32> {
    match STATE.get() {
        Some(Ok(state)) => Ok(state.lock().unwrap_or_else(|e| e.into_inner())),
        _ => Err(fail(NOT_INITIALIZED, "cuInit has not been called, or it failed")),
    }
}

/// The state, of a thread that has a current context and a device that is not broken.
pub(crate) fn working() -> Result<MutexGuard<'static, State>, i32> {
    let state = state()?;
    if current() == 0 {
        return Err(fail(INVALID_CONTEXT, "this thread has no current context"));
    }
    match state.broken {
        Some(code) => Err(code),
        None => Ok(state),
    }
}

/// A call's work as its code.
pub(crate) fn answer(work: impl FnOnce() -> Result<(), i32>) -> i32 {
    work().err().unwrap_or(SUCCESS)
}

/// Says why on stderr, and gives the code back.
pub(crate) fn fail(code: i32, what: &str) -> i32 {
    if std::env::var("DRIVER_DOUBLE_QUIET").map_or(true, |v| v == "0") {
        // Where stderr is closed, the code has to do.
        let _ = writeln!(std::io::stderr(), "driver double: {what}");
    }
    code
}

fn with_contexts<T>(f: impl FnOnce(&mut Vec<usize>) -> T) -> T {
    CONTEXTS.with(|cell| {
        let mut list = cell.take();
        let out = f(&mut list);
        cell.set(list);
        out
    })
}

/// The current context's handle, or 0.
pub(crate) fn current() -> usize {
    with_contexts(|list| list.last().copied().unwrap_or(0))
}

pub(crate) fn set_current(context: usize) {
    with_contexts(|list| {
        list.pop();
        if context != 0 {
            list.push(context);
        }
    });
}

pub(crate) fn push(context: usize) {
    with_contexts(|list| list.push(context));
}

pub(crate) fn pop() -> Option<usize> {
    with_contexts(Vec::pop)
}

impl State {
    /// A handle that was never given out before.
    pub(crate) fn handle(&mut self) -> usize {
        self.next += 0x10;
        self.next
    }

    /// Whether a stream is there; 0, 1 and 2 are the default streams.
    pub(crate) fn stream(&self, stream: Handle) -> Result<(), i32> {
        if stream as usize <= 2 || self.streams.contains_key(&(stream as usize)) {
            Ok(())
        } else {
            Err(fail(INVALID_HANDLE, "no such stream"))
        }
    }
}

/// The code of what went wrong in a launch, and whether the device is broken by it.
pub(crate) fn code_of(error: &LaunchError) -> (i32, bool) {
    match error {
        LaunchError::NoKernel(_) => (NOT_FOUND, false),
        LaunchError::Fault(fault) => {
            let code = match fault.kind {
                FaultKind::OutOfBounds { .. } | FaultKind::Uninitialised { .. } | FaultKind::ReadOnly { .. } => {
                    ILLEGAL_ADDRESS
                }
                FaultKind::Misaligned { .. } => MISALIGNED,
                FaultKind::Budget { .. } => LAUNCH_TIMEOUT,
                _ => LAUNCH_FAILED,
            };
            (code, true)
        }
        _ => (INVALID_VALUE, false),
    }
}

/// Writes an out parameter.
///
/// # Safety
/// `to` is null, or points to room for a `T`.
pub(crate) unsafe fn put<T>(to: *mut T, value: T) -> Result<(), i32> {
    if to.is_null() {
        return Err(fail(INVALID_VALUE, "a null pointer where a result goes"));
    }
    // SAFETY: the caller's.
    unsafe { to.write(value) };
    Ok(())
}

/// A name that a program gives.
///
/// # Safety
/// `name` is null, or points to a text that ends with a zero byte.
pub(crate) unsafe fn text(name: *const c_char) -> Result<String, i32> {
    if name.is_null() {
        return Err(fail(INVALID_VALUE, "a null pointer where a name is expected"));
    }
    // SAFETY: the caller's.
    Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}
