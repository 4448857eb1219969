//! Error codes: what cust knows, and the calls that name and explain them.

use std::ffi::{CStr, CString, c_char};
use std::sync::OnceLock;

use crate::Status;
use crate::library::{Call, status};

pub(crate) const SUCCESS: u32 = 0;
pub(crate) const INVALID_VALUE: u32 = 1;
pub(crate) const NO_DEVICE: u32 = 100;
pub(crate) const NOT_FOUND: u32 = 500;
const UNKNOWN: u32 = 999;

/// The variants of `cust_raw::CUresult` (CUDA 11.4), in order.
#[rustfmt::skip]
const CODES: [(u32, &CStr); 87] = [
    (0, c"CUDA_SUCCESS"),
    (1, c"CUDA_ERROR_INVALID_VALUE"),
    (2, c"CUDA_ERROR_OUT_OF_MEMORY"),
    (3, c"CUDA_ERROR_NOT_INITIALIZED"),
    (4, c"CUDA_ERROR_DEINITIALIZED"),
    (5, c"CUDA_ERROR_PROFILER_DISABLED"),
    (6, c"CUDA_ERROR_PROFILER_NOT_INITIALIZED"),
    (7, c"CUDA_ERROR_PROFILER_ALREADY_STARTED"),
    (8, c"CUDA_ERROR_PROFILER_ALREADY_STOPPED"),
    (34, c"CUDA_ERROR_STUB_LIBRARY"),
    (100, c"CUDA_ERROR_NO_DEVICE"),
    (101, c"CUDA_ERROR_INVALID_DEVICE"),
    (102, c"CUDA_ERROR_DEVICE_NOT_LICENSED"),
    (200, c"CUDA_ERROR_INVALID_IMAGE"),
    (201, c"CUDA_ERROR_INVALID_CONTEXT"),
    (202, c"CUDA_ERROR_CONTEXT_ALREADY_CURRENT"),
    (205, c"CUDA_ERROR_MAP_FAILED"),
    (206, c"CUDA_ERROR_UNMAP_FAILED"),
    (207, c"CUDA_ERROR_ARRAY_IS_MAPPED"),
    (208, c"CUDA_ERROR_ALREADY_MAPPED"),
    (209, c"CUDA_ERROR_NO_BINARY_FOR_GPU"),
    (210, c"CUDA_ERROR_ALREADY_ACQUIRED"),
    (211, c"CUDA_ERROR_NOT_MAPPED"),
    (212, c"CUDA_ERROR_NOT_MAPPED_AS_ARRAY"),
    (213, c"CUDA_ERROR_NOT_MAPPED_AS_POINTER"),
    (214, c"CUDA_ERROR_ECC_UNCORRECTABLE"),
    (215, c"CUDA_ERROR_UNSUPPORTED_LIMIT"),
    (216, c"CUDA_ERROR_CONTEXT_ALREADY_IN_USE"),
    (217, c"CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"),
    (218, c"CUDA_ERROR_INVALID_PTX"),
    (219, c"CUDA_ERROR_INVALID_GRAPHICS_CONTEXT"),
    (220, c"CUDA_ERROR_NVLINK_UNCORRECTABLE"),
    (221, c"CUDA_ERROR_JIT_COMPILER_NOT_FOUND"),
    (222, c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
    (223, c"CUDA_ERROR_JIT_COMPILATION_DISABLED"),
    (224, c"CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY"),
    (300, c"CUDA_ERROR_INVALID_SOURCE"),
    (301, c"CUDA_ERROR_FILE_NOT_FOUND"),
    (302, c"CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND"),
    (303, c"CUDA_ERROR_SHARED_OBJECT_INIT_FAILED"),
    (304, c"CUDA_ERROR_OPERATING_SYSTEM"),
    (400, c"CUDA_ERROR_INVALID_HANDLE"),
    (401, c"CUDA_ERROR_ILLEGAL_STATE"),
    (500, c"CUDA_ERROR_NOT_FOUND"),
    (600, c"CUDA_ERROR_NOT_READY"),
    (700, c"CUDA_ERROR_ILLEGAL_ADDRESS"),
    (701, c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
    (702, c"CUDA_ERROR_LAUNCH_TIMEOUT"),
    (703, c"CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING"),
    (704, c"CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED"),
    (705, c"CUDA_ERROR_PEER_ACCESS_NOT_ENABLED"),
    (708, c"CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE"),
    (709, c"CUDA_ERROR_CONTEXT_IS_DESTROYED"),
    (710, c"CUDA_ERROR_ASSERT"),
    (711, c"CUDA_ERROR_TOO_MANY_PEERS"),
    (712, c"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"),
    (713, c"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"),
    (714, c"CUDA_ERROR_HARDWARE_STACK_ERROR"),
    (715, c"CUDA_ERROR_ILLEGAL_INSTRUCTION"),
    (716, c"CUDA_ERROR_MISALIGNED_ADDRESS"),
    (717, c"CUDA_ERROR_INVALID_ADDRESS_SPACE"),
    (718, c"CUDA_ERROR_INVALID_PC"),
    (719, c"CUDA_ERROR_LAUNCH_FAILED"),
    (720, c"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"),
    (800, c"CUDA_ERROR_NOT_PERMITTED"),
    (801, c"CUDA_ERROR_NOT_SUPPORTED"),
    (802, c"CUDA_ERROR_SYSTEM_NOT_READY"),
    (803, c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
    (804, c"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"),
    (805, c"CUDA_ERROR_MPS_CONNECTION_FAILED"),
    (806, c"CUDA_ERROR_MPS_RPC_FAILURE"),
    (807, c"CUDA_ERROR_MPS_SERVER_NOT_READY"),
    (808, c"CUDA_ERROR_MPS_MAX_CLIENTS_REACHED"),
    (809, c"CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED"),
    (900, c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
    (901, c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
    (902, c"CUDA_ERROR_STREAM_CAPTURE_MERGE"),
    (903, c"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED"),
    (904, c"CUDA_ERROR_STREAM_CAPTURE_UNJOINED"),
    (905, c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION"),
    (906, c"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"),
    (907, c"CUDA_ERROR_CAPTURED_EVENT"),
    (908, c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"),
    (909, c"CUDA_ERROR_TIMEOUT"),
    (910, c"CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE"),
    (911, c"CUDA_ERROR_EXTERNAL_DEVICE"),
    (999, c"CUDA_ERROR_UNKNOWN"),
];

fn name(code: u32) -> Option<&'static CStr> {
    CODES.binary_search_by_key(&code, |known| known.0).ok().map(|at| CODES[at].1)
}

/// What may be given to cust for a driver's answer. There, the code becomes a value of an enum, and one that is no
/// variant of it would be undefined behaviour: a code that newer drivers have added becomes `CUDA_ERROR_UNKNOWN`.
pub(crate) fn known(code: u32) -> u32 {
    if code == SUCCESS || name(code).is_some() { code } else { UNKNOWN }
}

type Explain = unsafe extern "C" fn(u32, *mut *const c_char) -> u32;

/// Gives the driver's words for an error code. Where the driver has none, they are the code's name; without a driver,
/// `CUDA_ERROR_NO_DEVICE` says why there is none.
///
/// # Safety
///
/// `text` is null or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: u32, text: *mut *const c_char) -> u32 {
    // SAFETY: the driver's function has this type.
    static CALL: Call<Explain> = unsafe { Call::new(c"cuGetErrorString") };
    // SAFETY: the caller's promise.
    unsafe { explain(&CALL, code, text, || if code == NO_DEVICE { no_driver() } else { name(code) }) }
}

/// Gives the name of an error code.
///
/// # Safety
///
/// `text` is null or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: u32, text: *mut *const c_char) -> u32 {
    // SAFETY: the driver's function has this type.
    static CALL: Call<Explain> = unsafe { Call::new(c"cuGetErrorName") };
    // SAFETY: the caller's promise.
    unsafe { explain(&CALL, code, text, || name(code)) }
}

/// Asks the driver, then `own`; answers as the driver does where nobody knows the code.
unsafe fn explain(
    call: &Call<Explain>,
    code: u32,
    text: *mut *const c_char,
    own: impl Fn() -> Option<&'static CStr>,
) -> u32 {
    if text.is_null() {
        return INVALID_VALUE;
    }
    if let Ok(call) = call.find() {
        // SAFETY: `text` has room for a pointer, the caller says, and then holds one.
        let answered = unsafe { call(code, text) == SUCCESS && !(*text).is_null() };
        if answered {
            return SUCCESS;
        }
    }
    let own = own();
    // SAFETY: `text` has room for a pointer, the caller says; what it points to lives as long as the program.
    unsafe { text.write(own.map_or(std::ptr::null(), CStr::as_ptr)) };
    if own.is_some() { SUCCESS } else { INVALID_VALUE }
}

/// What `CUDA_ERROR_NO_DEVICE` means when it comes from here.
fn no_driver() -> Option<&'static CStr> {
    static TEXT: OnceLock<Option<CString>> = OnceLock::new();
    let text = TEXT.get_or_init(|| match status() {
        Status::Missing { .. } => CString::new(status().to_string()).ok(),
        Status::Opened { .. } => None,
    });
    text.as_deref().or_else(|| name(NO_DEVICE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_cust_lacks_become_unknown() {
        assert!(CODES.is_sorted_by_key(|known| known.0));
        assert_eq!([0, 1, 100, 700, 911].map(known), [0, 1, 100, 700, 911]);
        // Of CUDA 11.8 and 12: CUDA_ERROR_DEVICE_UNAVAILABLE, …_MPS_CLIENT_TERMINATED, …_INVALID_CLUSTER_SIZE.
        assert_eq!([46, 810, 912, 1_000_000, u32::MAX].map(known), [999; 5]);
    }
}
