//! An unmodified cust program: on the driver double, on a driver that lacks everything, and without any driver.
//!
//! The driver's name is read once in a process, so each test runs in a process of its own.

// What a program has to write so that the driver's functions are linked.
extern crate handgrad_cuda_driver as _;

mod program;

use std::env;
use std::error::Error;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use cust::error::CudaError;
use handgrad_cuda_driver::{Status, VARIABLE, status};

/// Runs the test of this name once more, in a process whose driver is `driver`, and `body` there.
fn with_driver(driver: &Path, test: &str, body: fn() -> Result<(), Box<dyn Error>>) {
    const INNER: &str = "HANDGRAD_CUDA_DRIVER_TEST";
    if env::var_os(INNER).is_some_and(|inner| inner == test) {
        return body().expect("the program runs");
    }
    let output = Command::new(env::current_exe().expect("a path"))
        .args(["--exact", test, "--nocapture"])
        .env(INNER, test)
        .env(VARIABLE, driver)
        .env("DRIVER_DOUBLE_QUIET", "1")
        .output()
        .expect("the test starts itself");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
}

/// cargo builds the double beside the tests, since it is a dependency of theirs.
fn double() -> PathBuf {
    let tests = env::current_exe().expect("a path");
    tests.with_file_name(format!("{}cuda_double{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX))
}

#[test]
fn a_program_runs_on_the_double() {
    with_driver(&double(), "a_program_runs_on_the_double", || {
        program::sums_blocks()?;
        assert_eq!(status(), Status::Opened { file: double() });
        assert!(status().to_string().contains("(HANDGRAD_CUDA_DRIVER names it)"));
        Ok(())
    });
}

#[test]
fn a_faulting_launch_is_an_error() {
    with_driver(&double(), "a_faulting_launch_is_an_error", program::faults);
}

#[test]
fn without_a_driver_there_is_no_device() {
    with_driver(Path::new("/nowhere.so"), "without_a_driver_there_is_no_device", || {
        assert_eq!(cust::init(cust::CudaFlags::empty()), Err(CudaError::NoDevice));
        assert_eq!(cust::device::Device::num_devices(), Err(CudaError::NoDevice));
        let Status::Missing { file, reason } = status() else { panic!("{}", status()) };
        assert_eq!(file, Path::new("/nowhere.so"));
        assert!(reason.contains("nowhere.so"), "{reason}");
        // cust's own text of the error says it too.
        let text = CudaError::NoDevice.to_string();
        assert!(text.contains(&format!("no CUDA driver: {reason} (HANDGRAD_CUDA_DRIVER names it)")), "{text}");
        assert_eq!(name(700), Some("CUDA_ERROR_ILLEGAL_ADDRESS"));
        assert_eq!(name(912), None);
        Ok(())
    });
}

#[test]
fn an_empty_name_means_the_system_driver() {
    with_driver(Path::new(""), "an_empty_name_means_the_system_driver", || {
        let (Status::Opened { file } | Status::Missing { file, .. }) = status();
        assert!(["libcuda.so.1", "nvcuda.dll"].map(Path::new).contains(&&*file), "{file:?}");
        assert!(!status().to_string().contains("names it"));
        Ok(())
    });
}

/// Some library that is no driver.
#[cfg(target_os = "linux")]
#[test]
fn a_missing_function_is_an_error() {
    with_driver(Path::new("libc.so.6"), "a_missing_function_is_an_error", || {
        assert_eq!(cust::init(cust::CudaFlags::empty()), Err(CudaError::NotFound));
        assert_eq!(CudaError::NotFound.to_string(), r#""CUDA_ERROR_NOT_FOUND""#);
        Ok(())
    });
}

/// A driver opened later must call its own functions, not those of the same names here.
#[cfg(unix)]
#[test]
fn the_executable_exports_nothing_of_the_driver() {
    let own = libloading::os::unix::Library::this();
    for name in [c"cuInit", c"cuStreamSynchronize", c"cuGetErrorString"] {
        // SAFETY: what is looked up is not used.
        assert!(unsafe { own.get::<*const ()>(name) }.is_err(), "{name:?}");
    }
}

/// The name of a code, as a driver would give it.
fn name(code: u32) -> Option<&'static str> {
    unsafe extern "C" {
        fn cuGetErrorName(code: u32, name: *mut *const std::ffi::c_char) -> u32;
    }
    let mut name = std::ptr::null();
    // SAFETY: there is room for a pointer.
    let code = unsafe { cuGetErrorName(code, &mut name) };
    assert_eq!(code == 0, !name.is_null());
    // SAFETY: a pointer that was given is to a text that lives as long as the program.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_str().expect("ASCII"))
}

type Ptr = *mut std::ffi::c_void;

/// The sizes of a function's arguments and of its result, behind them.
trait Sizes {
    fn sizes(self) -> Vec<usize>;
}

macro_rules! sizes {
    ($(($($argument:ident)*))*) => {$(
        impl<R, $($argument),*> Sizes for unsafe extern "C" fn($($argument),*) -> R {
            fn sizes(self) -> Vec<usize> {
                vec![$(size_of::<$argument>(),)* size_of::<R>()]
            }
        }
    )*};
}

sizes! {
    () (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H) (A B C D E F G H I)
    (A B C D E F G H I J) (A B C D E F G H I J K)
}

macro_rules! any {
    ($type:ty) => {
        _
    };
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        #[test]
        fn all_functions_are_there_with_arguments_as_wide_as_declared() {$(
            // Whoever could look at the pointer needs the function linked.
            let declared = black_box(cust::sys::$name as unsafe extern "C" fn($(any!($type)),*) -> _);
            assert_eq!(declared.sizes(), [$(size_of::<$type>(),)* size_of::<u32>()], "{}", stringify!($name));
        )*}
    };
}

mod declared {
    use std::hint::black_box;

    use super::Sizes;

    include!("../src/calls.rs");
}
