//! The device and its context.

use std::ffi::{c_char, c_int, c_uint};

use crate::state::{
    CONTEXT, Handle, INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, NOT_SUPPORTED, State, answer, current, fail, init,
    pop, push, put, set_current, state,
};

/// CUDA 12.4: newer than anything that cust knows of, older than what refuses it.
const VERSION: c_int = 12040;
const MULTIPROCESSORS: c_int = 4;

/// Starts the double from its environment variables.
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> i32 {
    init()
}

/// The CUDA version that is claimed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> i32 {
    // SAFETY: the caller gives room.
    answer(|| unsafe { put(version, VERSION) })
}

/// There is one device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> i32 {
    answer(|| {
        drop(state()?);
        // SAFETY: the caller gives room.
        unsafe { put(count, 1) }
    })
}

fn only(device: c_int) -> Result<std::sync::MutexGuard<'static, State>, i32> {
    if device == 0 { state() } else { Err(fail(INVALID_DEVICE, &format!("device {device}: there is only device 0"))) }
}

/// Device 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> i32 {
    answer(|| {
        drop(only(ordinal)?);
        // SAFETY: the caller gives room.
        unsafe { put(device, 0) }
    })
}

/// Its name says what it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) -> i32 {
    answer(|| {
        let capability = only(device)?.device.config().capability;
        let full = format!("driver double (sm_{capability})");
        if name.is_null() || len < 1 {
            return Err(INVALID_VALUE);
        }
        let room = (len as usize - 1).min(full.len());
        // SAFETY: the caller gives room for `len` bytes; what is written ends before.
        unsafe {
            std::ptr::copy_nonoverlapping(full.as_ptr().cast(), name, room);
            name.add(room).write(0);
        }
        Ok(())
    })
}

/// Its memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> i32 {
    answer(|| {
        let total = only(device)?.device.config().memory;
        // SAFETY: the caller gives room.
        unsafe { put(bytes, total) }
    })
}

/// Sixteen bytes that are no real device's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) -> i32 {
    answer(|| {
        drop(only(device)?);
        // SAFETY: the caller gives room.
        unsafe { put(uuid, *b"driver-double\0\0\0") }
    })
}

/// What a program may ask of a device; what has no meaning here is not supported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> i32 {
    answer(|| {
        let state = only(device)?;
        let capability = state.device.config().capability as c_int;
        let threads = match capability {
            ..=75 => 1024,
            80 | 87 | 90 | 100 => 2048,
            _ => 1536,
        };
        let shared = state.device.shared_limit() as c_int;
        let found = match attribute {
            1..=3 => 1024,
            4 => 64,
            5 => c_int::MAX,
            6 | 7 => 65535,
            8 => 48 << 10,
            9 => 64 << 10,
            10 => 32,
            11 => c_int::MAX,
            12 | 82 => 65536,
            13 | 36 => 1_000_000,
            16 => MULTIPROCESSORS,
            14 | 33 | 34 => 0,
            // Copies run beside kernels, kernels beside kernels, unified addresses, page-locked memory, 64-bit pools.
            15 | 19 | 31 | 40 | 41 | 78 | 115 => 1,
            17 | 18 | 20 | 32 | 35 | 83 | 84 | 88 | 89 | 95 | 96 => 0,
            37 => 256,
            38 => 4 << 20,
            39 => threads,
            75 => capability / 10,
            76 => capability % 10,
            81 => shared + 1024,
            97 => shared,
            106 => threads / 64,
            111 => 1024,
            other => return Err(fail(NOT_SUPPORTED, &format!("cuDeviceGetAttribute: attribute {other}"))),
        };
        // SAFETY: the caller gives room.
        unsafe { put(value, found) }
    })
}

/// The one context there is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> i32 {
    answer(|| {
        drop(only(device)?);
        // SAFETY: the caller gives room.
        unsafe { put(context, CONTEXT as Handle) }
    })
}

/// The device stays as it is.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> i32 {
    answer(|| only(device).map(|_| ()))
}

/// Has no effect.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, _flags: c_uint) -> i32 {
    answer(|| only(device).map(|_| ()))
}

/// Heals a device that a fault has broken, and forgets what is queued. Allocations stay.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxReset_v2(device: c_int) -> i32 {
    answer(|| {
        let mut state = only(device)?;
        state.broken = None;
        state.queues.clear();
        Ok(())
    })
}

/// The primary context, current.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxCreate_v2(context: *mut Handle, _flags: c_uint, device: c_int) -> i32 {
    answer(|| {
        drop(only(device)?);
        push(CONTEXT);
        // SAFETY: the caller gives room.
        unsafe { put(context, CONTEXT as Handle) }
    })
}

/// No longer current.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxDestroy_v2(_context: Handle) -> i32 {
    set_current(0);
    0
}

fn known(context: Handle) -> Result<usize, i32> {
    match context as usize {
        0 | CONTEXT => Ok(context as usize),
        _ => Err(fail(INVALID_CONTEXT, "no such context")),
    }
}

/// Makes the context this thread's.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: Handle) -> i32 {
    answer(|| known(context).map(set_current))
}

/// This thread's context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> i32 {
    // SAFETY: the caller gives room.
    answer(|| unsafe { put(context, current() as Handle) })
}

/// Puts a context over this thread's.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPushCurrent_v2(context: Handle) -> i32 {
    answer(|| known(context).map(push))
}

/// Takes this thread's context away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(context: *mut Handle) -> i32 {
    answer(|| {
        let top = pop().ok_or_else(|| fail(INVALID_CONTEXT, "no context to take away"))?;
        if context.is_null() {
            return Ok(());
        }
        // SAFETY: the caller gives room.
        unsafe { put(context, top as Handle) }
    })
}

/// Device 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetDevice(device: *mut c_int) -> i32 {
    // SAFETY: the caller gives room.
    answer(|| unsafe { put(device, 0) })
}

/// 3020, what drivers of today say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetApiVersion(_context: Handle, version: *mut c_uint) -> i32 {
    // SAFETY: the caller gives room.
    answer(|| unsafe { put(version, 3020) })
}

/// No flags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetFlags(flags: *mut c_uint) -> i32 {
    // SAFETY: the caller gives room.
    answer(|| unsafe { put(flags, 0) })
}

/// One priority.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) -> i32 {
    answer(|| {
        for to in [least, greatest] {
            if !to.is_null() {
                // SAFETY: the caller gives room.
                unsafe { put(to, 0)? };
            }
        }
        Ok(())
    })
}

/// Does all that is queued; gives the fault of a kernel.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> i32 {
    answer(|| crate::state::working()?.finish_all())
}

macro_rules! settings {
    ($($name:ident)*) => {$(
        /// A hint that has no effect here.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> i32 {
            0
        }
    )*};
}

settings! { cuCtxSetCacheConfig cuCtxSetSharedMemConfig cuFuncSetCacheConfig cuFuncSetSharedMemConfig cuCtxSetLimit }

macro_rules! getters {
    ($($name:ident $value:literal)*) => {$(
        /// A setting that has one value here.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(value: *mut c_int) -> i32 {
            // SAFETY: the caller gives room.
            answer(|| unsafe { put(value, $value) })
        }
    )*};
}

getters! { cuCtxGetCacheConfig 0 cuCtxGetSharedMemConfig 1 }

/// 1 KiB of stack, 8 MiB of heap, as drivers begin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetLimit(value: *mut usize, limit: c_int) -> i32 {
    answer(|| {
        let found = match limit {
            0 => 1024,
            1 => 1 << 20,
            2 => 8 << 20,
            _ => return Err(fail(NOT_SUPPORTED, &format!("cuCtxGetLimit: limit {limit}"))),
        };
        // SAFETY: the caller gives room.
        unsafe { put(value, found) }
    })
}
