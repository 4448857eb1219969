//! Names of error codes.

use std::ffi::{CStr, c_char};

use crate::state::{INVALID_VALUE, SUCCESS};

const CODES: [(i32, &CStr, &CStr); 17] = [
    (0, c"CUDA_SUCCESS", c"no error"),
    (1, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (2, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (3, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
    (100, c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
    (101, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (200, c"CUDA_ERROR_INVALID_IMAGE", c"device kernel image is invalid"),
    (201, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
    (218, c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed"),
    (400, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
    (500, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
    (600, c"CUDA_ERROR_NOT_READY", c"device not ready"),
    (700, c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered"),
    (702, c"CUDA_ERROR_LAUNCH_TIMEOUT", c"the launch timed out and was terminated"),
    (716, c"CUDA_ERROR_MISALIGNED_ADDRESS", c"misaligned address"),
    (719, c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
    (801, c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
];

fn find(code: i32) -> Option<(&'static CStr, &'static CStr)> {
    CODES.iter().find(|(c, ..)| *c == code).map(|(_, name, text)| (*name, *text))
}

/// The description of an error code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: i32, text: *mut *const c_char) -> i32 {
    // SAFETY: the caller gives room for a pointer.
    unsafe { give(find(code).map(|f| f.1), text) }
}

/// The name of an error code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: i32, text: *mut *const c_char) -> i32 {
    // SAFETY: the caller gives room for a pointer.
    unsafe { give(find(code).map(|f| f.0), text) }
}

unsafe fn give(found: Option<&'static CStr>, text: *mut *const c_char) -> i32 {
    if text.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's; the texts live as long as the library.
    unsafe { text.write(found.map_or(std::ptr::null(), CStr::as_ptr)) };
    if found.is_some() { SUCCESS } else { INVALID_VALUE }
}
