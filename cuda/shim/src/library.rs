//! The driver's library and the functions in it.

use std::env;
use std::error::Error;
use std::ffi::CStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;

use crate::codes::{NO_DEVICE, NOT_FOUND};

/// The environment variable that names another file to open in the driver's place.
pub const VARIABLE: &str = "HANDGRAD_CUDA_DRIVER";

const DRIVER: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// Whether there is a driver's library. That there is one doesn't say that there is a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It was opened.
    Opened {
        /// The name it was opened by.
        file: PathBuf,
    },
    /// It could not be opened: every call answers `CUDA_ERROR_NO_DEVICE`.
    Missing {
        /// The name that was tried.
        file: PathBuf,
        /// The loader's message.
        reason: String,
    },
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Status::Opened { file } | Status::Missing { file, .. }) = self;
        // A name that is not the driver's own came from the variable.
        let named = file != Path::new(DRIVER);
        let file = file.display().to_string();
        match self {
            Status::Opened { .. } if named => write!(f, "CUDA driver: {file} ({VARIABLE} names it)"),
            Status::Opened { .. } => write!(f, "CUDA driver: {file}"),
            Status::Missing { reason, .. } => {
                // Most loaders name the file themselves.
                let file = if reason.contains(&file) { String::new() } else { format!("{file}: ") };
                write!(f, "no CUDA driver: {file}{reason} ")?;
                if named {
                    write!(f, "({VARIABLE} names it)")
                } else {
                    write!(f, "(part of NVIDIA's driver; {VARIABLE} can name another file)")
                }
            }
        }
    }
}

/// Opened once, by the first call, and never closed: the functions found in it live as long as the program.
struct Driver {
    library: Option<Library>,
    status: Status,
}

fn driver() -> &'static Driver {
    static ONCE: OnceLock<Driver> = OnceLock::new();
    ONCE.get_or_init(|| {
        let named = env::var_os(VARIABLE).filter(|name| !name.is_empty());
        let file = named.map_or_else(|| PathBuf::from(DRIVER), PathBuf::from);
        // SAFETY: the driver's own initialisers run, or those of the file that the user has named: as trusted as a library
        // that the program is linked with. On Unix its symbols stay local (RTLD_LOCAL): nothing else in the process binds
        // to them.
        match unsafe { Library::new(&file) } {
            Ok(library) => Driver { library: Some(library), status: Status::Opened { file } },
            Err(error) => {
                // Only the source of the error has the loader's message.
                let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                Driver { library: None, status: Status::Missing { file, reason } }
            }
        }
    })
}

/// Says which file was opened, or which one could not be and why. Opens it if no call has done so yet.
pub fn status() -> Status {
    driver().status.clone()
}

/// One of the driver's functions, looked up when it is first called. `F` is a type of function pointer.
pub(crate) struct Call<F> {
    name: &'static CStr,
    found: OnceLock<Result<F, u32>>,
}

impl<F: Copy> Call<F> {
    /// # Safety
    ///
    /// The driver's function of this name has the type `F`.
    pub(crate) const unsafe fn new(name: &'static CStr) -> Self {
        Self { name, found: OnceLock::new() }
    }

    /// The function, or the code that says why there is none.
    pub(crate) fn find(&self) -> Result<F, u32> {
        *self.found.get_or_init(|| {
            let library = driver().library.as_ref().ok_or(NO_DEVICE)?;
            // SAFETY: whoever made `self` has promised the type; the option is for an address of zero, no function's.
            let symbol = unsafe { library.get::<Option<F>>(self.name) };
            symbol.ok().and_then(|found| *found).ok_or(NOT_FOUND)
        })
    }
}
