//! Device memory and copies.

use std::alloc::Layout;
use std::ffi::{c_uint, c_void};

use driver_double::MemoryError;

use crate::queue::Work;
use crate::state::{Handle, ILLEGAL_ADDRESS, INVALID_VALUE, OUT_OF_MEMORY, answer, fail, put, working};

pub(crate) fn code(error: MemoryError) -> i32 {
    let code = match error {
        MemoryError::Full { .. } => OUT_OF_MEMORY,
        MemoryError::Uninitialised { .. } => ILLEGAL_ADDRESS,
        _ => INVALID_VALUE,
    };
    fail(code, &error.to_string())
}

/// Device memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> i32 {
    answer(|| {
        if bytes == 0 {
            return Err(fail(INVALID_VALUE, "an allocation of no bytes"));
        }
        let at = working()?.device.alloc(bytes).map_err(code)?;
        // SAFETY: the caller gives room.
        unsafe { put(address, at) }
    })
}

/// As [`cuMemAlloc_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, _stream: Handle) -> i32 {
    // SAFETY: the caller gives room.
    unsafe { cuMemAlloc_v2(address, bytes) }
}

/// Gives memory back; a null pointer is no error.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> i32 {
    answer(|| {
        if address == 0 {
            return Ok(());
        }
        let mut state = working()?;
        state.finish_all()?;
        state.device.free(address).map_err(code)
    })
}

/// As [`cuMemFree_v2`].
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync(address: u64, _stream: Handle) -> i32 {
    cuMemFree_v2(address)
}

/// Bytes free, and of all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> i32 {
    answer(|| {
        let state = working()?;
        // SAFETY: the caller gives room.
        unsafe {
            put(free, state.device.free_bytes())?;
            put(total, state.device.config().memory)
        }
    })
}

fn layout(bytes: usize) -> Result<Layout, i32> {
    Layout::from_size_align(bytes.max(1), 4096).map_err(|_| fail(OUT_OF_MEMORY, "too much memory of the host"))
}

/// Memory of the host, at a page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocHost_v2(pointer: *mut *mut c_void, bytes: usize) -> i32 {
    answer(|| {
        let mut state = working()?;
        // SAFETY: the size is not zero.
        let found = unsafe { std::alloc::alloc_zeroed(layout(bytes)?) };
        if found.is_null() {
            return Err(fail(OUT_OF_MEMORY, "too much memory of the host"));
        }
        state.host.insert(found as usize, bytes);
        // SAFETY: the caller gives room.
        unsafe { put(pointer, found.cast()) }
    })
}

/// As [`cuMemAllocHost_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, _flags: c_uint) -> i32 {
    // SAFETY: the caller gives room.
    unsafe { cuMemAllocHost_v2(pointer, bytes) }
}

/// Gives the host's memory back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> i32 {
    answer(|| {
        // A broken device must not keep the host's memory.
        let mut state = crate::state::state()?;
        state.settle();
        let bytes = state.host.remove(&(pointer as usize));
        let bytes =
            bytes.ok_or_else(|| fail(INVALID_VALUE, "cuMemFreeHost of a pointer that cuMemAllocHost did not give"))?;
        // SAFETY: it came from `cuMemAllocHost_v2` with this layout, and is given back once.
        unsafe { std::alloc::dealloc(pointer.cast(), layout(bytes)?) };
        Ok(())
    })
}

/// The stream of calls that are over when they return.
const DEFAULT: Handle = std::ptr::null_mut();

/// Host to device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> i32 {
    // SAFETY: the caller's.
    unsafe { cuMemcpyHtoDAsync_v2(to, from, bytes, DEFAULT) }
}

/// Device to host.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> i32 {
    // SAFETY: the caller's.
    unsafe { cuMemcpyDtoHAsync_v2(to, from, bytes, DEFAULT) }
}

/// Within the device.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> i32 {
    cuMemcpyDtoDAsync_v2(to, from, bytes, DEFAULT)
}

/// Host to device. What is not page-locked is copied away before the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Handle) -> i32 {
    answer(|| {
        let mut state = working()?;
        state.stream(stream)?;
        if bytes == 0 {
            return Ok(());
        }
        let locked = state.is_locked(from as usize, bytes).then_some(from as usize);
        // SAFETY: the caller gives `bytes` bytes there.
        let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) }.to_vec();
        state.submit(stream, Work::Upload { to, bytes, locked })
    })
}

/// Device to host. Where the host's memory is not page-locked, the copy is over when the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: Handle) -> i32 {
    answer(|| {
        let mut state = working()?;
        state.stream(stream)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller gives room for `bytes` bytes there. Until the copy is done they are no numbers: a host that
        // looks too early sees that.
        unsafe { std::ptr::write_bytes(to.cast::<u8>(), 0xff, bytes) };
        let locked = state.is_locked(to as usize, bytes);
        state.submit(stream, Work::Download { to: to as usize, from, bytes })?;
        if locked { Ok(()) } else { state.finish(stream) }
    })
}

/// Within the device.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) -> i32 {
    answer(|| {
        let mut state = working()?;
        state.stream(stream)?;
        if bytes == 0 { Ok(()) } else { state.submit(stream, Work::Copy { to, from, bytes }) }
    })
}

/// `n` times the same 1, 2 or 4 bytes.
fn fill(to: u64, value: &[u8], n: usize, stream: Handle) -> i32 {
    answer(|| {
        let mut state = working()?;
        state.stream(stream)?;
        if !to.is_multiple_of(value.len() as u64) {
            return Err(fail(INVALID_VALUE, "memset: the address is no multiple of the value's size"));
        }
        let bytes = value.len().checked_mul(n).ok_or(INVALID_VALUE)?;
        state.submit(stream, Work::Fill { to, pattern: value.repeat((1 << 16) / value.len()), bytes })
    })
}

/// Sets bytes.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(to: u64, value: u8, n: usize) -> i32 {
    fill(to, &[value], n, DEFAULT)
}

/// Sets pairs of bytes.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD16_v2(to: u64, value: u16, n: usize) -> i32 {
    fill(to, &value.to_le_bytes(), n, DEFAULT)
}

/// Sets words.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32_v2(to: u64, value: u32, n: usize) -> i32 {
    fill(to, &value.to_le_bytes(), n, DEFAULT)
}

/// Sets bytes.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(to: u64, value: u8, n: usize, stream: Handle) -> i32 {
    fill(to, &[value], n, stream)
}

/// Sets pairs of bytes.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD16Async(to: u64, value: u16, n: usize, stream: Handle) -> i32 {
    fill(to, &value.to_le_bytes(), n, stream)
}

/// Sets words.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32Async(to: u64, value: u32, n: usize, stream: Handle) -> i32 {
    fill(to, &value.to_le_bytes(), n, stream)
}
