//! Modules, kernels, launches.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Write;

use driver_double::{Counters, Launch, LaunchError, Module};

use crate::queue::Work;
use crate::state::{
    Function, Handle, INVALID_HANDLE, INVALID_IMAGE, INVALID_PTX, INVALID_VALUE, NOT_FOUND, NOT_SUPPORTED, State,
    answer, code_of, fail, put, text, working,
};

/// Dynamic shared memory that a kernel may have without asking for more, static memory included.
const PLAIN_SHARED: usize = 48 << 10;

unsafe fn load(module: *mut Handle, image: *const c_void) -> Result<(), i32> {
    let mut state = working()?;
    if image.is_null() {
        return Err(fail(INVALID_VALUE, "a null pointer where a module is expected"));
    }
    // SAFETY: an image has four bytes at least: a PTX text ends with a zero byte, and others begin with a magic number.
    let first = unsafe { image.cast::<u8>().read() };
    if first == 0x7f || first == 0x50 {
        return Err(fail(INVALID_IMAGE, "a cubin or fatbin image: the driver double runs PTX texts only"));
    }
    // SAFETY: a PTX text ends with a zero byte.
    let ptx = unsafe { CStr::from_ptr(image.cast()) }
        .to_str()
        .map_err(|_| fail(INVALID_PTX, "a PTX text that is no UTF-8"))?;
    let loaded = state.device.load(ptx).map_err(|e| fail(INVALID_PTX, &e.to_string()))?;
    let handle = state.handle();
    state.modules.insert(handle, loaded);
    // SAFETY: the caller gives room.
    unsafe { put(module, handle as Handle) }
}

/// Decodes a PTX text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut Handle, image: *const c_void) -> i32 {
    // SAFETY: the caller's.
    answer(|| unsafe { load(module, image) })
}

/// Decodes a PTX text; options of the compiler have no effect.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut Handle,
    image: *const c_void,
    _n: c_uint,
    _options: *mut c_int,
    _values: *mut *mut c_void,
) -> i32 {
    // SAFETY: the caller's.
    answer(|| unsafe { load(module, image) })
}

/// Images of several architectures are not supported.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleLoadFatBinary(_module: *mut Handle, _image: *const c_void) -> i32 {
    fail(INVALID_IMAGE, "a fatbin image: the driver double runs PTX texts only")
}

/// Decodes a file of PTX.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoad(module: *mut Handle, name: *const c_char) -> i32 {
    answer(|| {
        // SAFETY: the caller's.
        let name = unsafe { text(name)? };
        let mut bytes = std::fs::read(&name).map_err(|e| fail(301, &format!("{name}: {e}")))?;
        bytes.push(0);
        // SAFETY: the bytes end with a zero.
        unsafe { load(module, bytes.as_ptr().cast()) }
    })
}

/// Forgets a module. Its variables' memory stays reserved.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: Handle) -> i32 {
    answer(|| {
        let mut state = crate::state::state()?;
        state.settle();
        state.functions.retain(|_, f| f.module != module as usize);
        state.modules.remove(&(module as usize)).map(|_| ()).ok_or(INVALID_HANDLE)
    })
}

fn module(state: &State, handle: usize) -> Result<&Module, i32> {
    state.modules.get(&handle).ok_or_else(|| fail(INVALID_HANDLE, "no such module"))
}

/// A kernel by its name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(function: *mut Handle, from: Handle, name: *const c_char) -> i32 {
    answer(|| {
        let mut state = working()?;
        // SAFETY: the caller's.
        let name = unsafe { text(name)? };
        if module(&state, from as usize)?.kernel(&name).is_none() {
            return Err(fail(NOT_FOUND, &format!("no kernel {name} in this module")));
        }
        let handle = state.handle();
        state.functions.insert(handle, Function { module: from as usize, name, dynamic: 0 });
        // SAFETY: the caller gives room.
        unsafe { put(function, handle as Handle) }
    })
}

/// A variable's address and size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetGlobal_v2(
    address: *mut u64,
    bytes: *mut usize,
    from: Handle,
    name: *const c_char,
) -> i32 {
    answer(|| {
        let state = working()?;
        // SAFETY: the caller's.
        let name = unsafe { text(name)? };
        let (at, size) = module(&state, from as usize)?
            .variable(&name)
            .ok_or_else(|| fail(NOT_FOUND, &format!("no variable {name} in this module")))?;
        // SAFETY: the caller gives room, or null for what it does not want.
        unsafe {
            if !address.is_null() {
                put(address, at)?;
            }
            if bytes.is_null() { Ok(()) } else { put(bytes, size) }
        }
    })
}

fn function(state: &State, handle: Handle) -> Result<Function, i32> {
    state.functions.get(&(handle as usize)).cloned().ok_or_else(|| fail(INVALID_HANDLE, "no such function"))
}

/// Sizes of a kernel. How many registers it takes on a GPU is not known here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, handle: Handle) -> i32 {
    answer(|| {
        let state = working()?;
        let f = function(&state, handle)?;
        let info = module(&state, f.module)?.kernel(&f.name).ok_or(NOT_FOUND)?;
        let found = match attribute {
            0 => info.max_threads as usize,
            1 => info.static_shared,
            2 => 0,
            3 => info.local_bytes,
            5 | 6 => state.device.config().capability as usize,
            7 => 0,
            8 => f.dynamic.max(PLAIN_SHARED.saturating_sub(info.static_shared)),
            other => return Err(fail(NOT_SUPPORTED, &format!("cuFuncGetAttribute: attribute {other}"))),
        };
        // SAFETY: the caller gives room.
        unsafe { put(value, found as c_int) }
    })
}

/// Allows a kernel more dynamic shared memory (attribute 8); the preferred carveout (9) has no effect.
#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(handle: Handle, attribute: c_int, value: c_int) -> i32 {
    answer(|| {
        let mut state = working()?;
        let f = function(&state, handle)?;
        let fixed = module(&state, f.module)?.kernel(&f.name).ok_or(NOT_FOUND)?.static_shared;
        match attribute {
            8 if value >= 0 && value as usize + fixed <= state.device.shared_limit() => {
                state.functions.insert(handle as usize, Function { dynamic: value as usize, ..f });
                Ok(())
            }
            8 => Err(fail(
                INVALID_VALUE,
                &format!("{}: {value} bytes of dynamic shared memory are more than the device has", f.name),
            )),
            9 => Ok(()),
            other => Err(fail(NOT_SUPPORTED, &format!("cuFuncSetAttribute: attribute {other}"))),
        }
    })
}

/// As many threads as the kernel allows, a block for each of the multiprocessors: registers are not known here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxPotentialBlockSize(
    grid: *mut c_int,
    block: *mut c_int,
    handle: Handle,
    _f: *const c_void,
    _shared: usize,
    limit: c_int,
) -> i32 {
    answer(|| {
        let state = working()?;
        let f = function(&state, handle)?;
        let most = module(&state, f.module)?.kernel(&f.name).ok_or(NOT_FOUND)?.max_threads.min(1024) as c_int;
        // SAFETY: the caller gives room.
        unsafe {
            put(grid, 4)?;
            put(block, if limit > 0 { most.min(limit) } else { most })
        }
    })
}

/// By threads and shared memory alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    handle: Handle,
    threads: c_int,
    shared: usize,
) -> i32 {
    answer(|| {
        let state = working()?;
        let f = function(&state, handle)?;
        let fixed = module(&state, f.module)?.kernel(&f.name).ok_or(NOT_FOUND)?.static_shared;
        let by_threads = 1024 / threads.clamp(1, 1024);
        let by_shared = state.device.shared_limit() / (fixed + shared).max(1);
        // SAFETY: the caller gives room.
        unsafe { put(blocks, by_threads.min(by_shared.min(32) as c_int)) }
    })
}

/// What the device has, divided among the blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyAvailableDynamicSMemPerBlock(
    bytes: *mut usize,
    handle: Handle,
    blocks: c_int,
    _threads: c_int,
) -> i32 {
    answer(|| {
        let state = working()?;
        let f = function(&state, handle)?;
        let fixed = module(&state, f.module)?.kernel(&f.name).ok_or(NOT_FOUND)?.static_shared;
        // SAFETY: the caller gives room.
        unsafe { put(bytes, (state.device.shared_limit() / blocks.max(1) as usize).saturating_sub(fixed)) }
    })
}

/// Queues a kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    handle: Handle,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: Handle,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> i32 {
    answer(|| {
        let mut state = working()?;
        state.stream(stream)?;
        let f = function(&state, handle)?;
        let module = module(&state, f.module)?;
        let info = module.kernel(&f.name).ok_or(NOT_FOUND)?;
        if !extra.is_null() {
            return Err(fail(NOT_SUPPORTED, "cuLaunchKernel: arguments by `extra`"));
        }
        if params.is_null() && !info.params.is_empty() {
            return Err(fail(
                INVALID_VALUE,
                &format!("{}: it has {} parameters, none is given", f.name, info.params.len()),
            ));
        }
        let launch =
            Launch { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared: shared as usize };
        if launch.shared + info.static_shared > PLAIN_SHARED.max(f.dynamic + info.static_shared) {
            let what = format!(
                "{}: {shared} bytes of dynamic shared memory; more than 48 KiB must be asked for with cuFuncSetAttribute",
                f.name
            );
            return Err(fail(INVALID_VALUE, &what));
        }
        let args: Vec<Vec<u8>> = (info.params.iter().enumerate())
            // SAFETY: the caller gives a pointer to each parameter, which has the kernel's size.
            .map(|(i, bytes)| unsafe { std::slice::from_raw_parts((*params.add(i)).cast::<u8>().cast_const(), *bytes) })
            .map(<[u8]>::to_vec)
            .collect();
        state.submit(stream, Work::Launch { function: f, launch, args })
    })
}

/// Runs a kernel to its end.
pub(crate) fn run(state: &mut State, f: &Function, launch: Launch, args: &[Vec<u8>]) -> Result<(), i32> {
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    let module = state.modules.get(&f.module).ok_or_else(|| fail(INVALID_HANDLE, "no such module"))?;
    let outcome = state.device.launch(module, &f.name, launch, &args);
    report(state, &f.name, launch, &args, &outcome);
    let Err(error) = outcome else { return Ok(()) };
    let (code, broken) = code_of(&error);
    if broken {
        state.broken = Some(code);
    }
    Err(fail(code, &error.to_string()))
}

/// A line of JSON for the file that the environment names.
fn report(state: &State, kernel: &str, launch: Launch, args: &[&[u8]], outcome: &Result<Counters, LaunchError>) {
    let Some(path) = std::env::var_os("DRIVER_DOUBLE_REPORT") else { return };
    // Of an argument that is an address: bytes from there to the end of its allocation; of others 0.
    let room = |arg: &&[u8]| {
        let address = <[u8; 8]>::try_from(*arg).ok().map(u64::from_le_bytes);
        address.and_then(|address| state.device.room(address)).unwrap_or(0)
    };
    let rooms: Vec<usize> = args.iter().map(room).collect();
    let Launch { grid, block, shared } = launch;
    let what = match outcome {
        Ok(counters) => counters.json(),
        Err(error) => format!(
            "\"error\":\"{}\"",
            error.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\t'], " ")
        ),
    };
    let line = format!(
        "{{\"kernel\":\"{kernel}\",\"grid\":{grid:?},\"block\":{block:?},\"shared\":{shared},\"arguments\":{args:?},\"room\":{rooms:?},{what}}}\n"
    );
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut f| f.write_all(line.as_bytes()));
    if let Err(error) = written {
        fail(0, &format!("{}: {error}", path.to_string_lossy()));
    }
}
