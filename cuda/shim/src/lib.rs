//! The functions of the CUDA driver that `cust` 0.3.2 calls: each finds the driver's own when it is first called.
//!
//! A program linked with the driver itself does not start where there is none. Linked with this crate, one binary runs
//! everywhere: the first call opens the driver (`libcuda.so.1`, `nvcuda.dll`); where there is none, every call answers
//! `CUDA_ERROR_NO_DEVICE`, which cust gives as `CudaError::NoDevice`. A function that an old driver lacks answers
//! `CUDA_ERROR_NOT_FOUND`.
//!
//! The environment variable `HANDGRAD_CUDA_DRIVER` names another file to open: tests run on the driver double by it. It
//! is read once, by the first call.
//!
//! A crate is linked only if it is named. Either of these does it:
//!
//! ```
//! extern crate handgrad_cuda_driver as _;
//! # fn main() {
//! println!("{}", handgrad_cuda_driver::status()); // no CUDA driver: libcuda.so.1: cannot open …
//! # }
//! ```

#![deny(missing_docs)]

mod codes;
mod library;

use std::ffi::c_void;

pub use library::{Status, VARIABLE, status};

/// Whatever is passed as a pointer: it is only handed on.
type Ptr = *mut c_void;

/// Makes of `cuName(argument: Type, …);` the function of that name that calls the driver's.
macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("Calls the driver's `", stringify!($name), "`.")]
        ///
        /// # Safety
        ///
        /// As the documentation of the CUDA driver API says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
            const NAME: &std::ffi::CStr =
                match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => unreachable!(),
                };
            // SAFETY: the table's types are those of the driver API.
            static CALL: $crate::library::Call<unsafe extern "C" fn($($type),*) -> u32> =
                unsafe { $crate::library::Call::new(NAME) };
            match CALL.find() {
                // SAFETY: the caller's promise, passed on with the arguments.
                Ok(call) => $crate::codes::known(unsafe { call($($argument),*) }),
                Err(code) => code,
            }
        }
    )*};
}

#[allow(clippy::too_many_arguments, reason = "they are the driver's")]
mod calls;
