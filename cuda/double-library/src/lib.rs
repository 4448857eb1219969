//! The [driver double](driver_double) as a shared library with the calls of `libcuda.so.1`: an unmodified program that uses
//! the CUDA driver runs its kernels on the processor, checked.
//!
//! Put `libcuda_double.so` where the program looks for the driver: as `libcuda.so.1` in a folder of `LD_LIBRARY_PATH`, or
//! by the variable that the program has for it. Environment variables set it up:
//!
//! | variable | default | |
//! |---|---|---|
//! | `DRIVER_DOUBLE_CAPABILITY` | 80 | compute capability times ten: 75, 80, 86, 90, … |
//! | `DRIVER_DOUBLE_MEMORY` | 8192 | MiB of device memory |
//! | `DRIVER_DOUBLE_THREADS` | all cores | 1 runs blocks in order |
//! | `DRIVER_DOUBLE_BUDGET` | 2000000000 | instructions of one warp in one launch |
//! | `DRIVER_DOUBLE_STRICT` | 1 | 0 lets a program copy bytes to the host that nothing has written |
//! | `DRIVER_DOUBLE_REPORT` | | a file that gets a line of JSON for each launch: shape, arguments, counters or fault |
//! | `DRIVER_DOUBLE_DRY` | 0 | 1: launches are checked and reported and do nothing |
//! | `DRIVER_DOUBLE_QUIET` | 0 | 1: no explanation of errors on stderr |
//! | `DRIVER_DOUBLE_LATE` | 0 | 1: a stream's work is done no sooner than somebody waits for it; 2: but copies to the device as soon as they may |
//!
//! Everything is done when it is asked for: a stream's work is over when the call returns. A fault of a kernel is returned by
//! the launch itself and, as a real driver does, by every call after it. With `DRIVER_DOUBLE_LATE`, work is done as late as
//! streams and events allow (and copies to the device as early as that), so that a program that forgets to wait computes
//! something else, or is told. What is not there (graphs, managed memory, textures,
//! linking, cubin images) answers `CUDA_ERROR_NOT_SUPPORTED` or `CUDA_ERROR_INVALID_IMAGE`.

#![deny(missing_docs)]
// What a caller must hold to is in the documentation of the CUDA driver API, call by call.
#![allow(clippy::missing_safety_doc)]

mod device;
mod memory;
mod module;
mod names;
mod queue;
mod state;
mod stream;

pub use device::*;
pub use memory::*;
pub use module::*;
pub use names::*;
pub use stream::*;

/// Calls that are known and not there.
macro_rules! unsupported {
    ($($name:ident)*) => {$(
        /// Answers `CUDA_ERROR_NOT_SUPPORTED`, whatever it is given.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> i32 {
            state::fail(state::NOT_SUPPORTED, concat!(stringify!($name), " is not supported by the driver double"))
        }
    )*};
}

unsupported! {
    cuMemAllocManaged cuMemAdvise cuMemPrefetchAsync cuMemAllocPitch_v2 cuMemcpy2D_v2 cuMemcpyHtoA_v2 cuMemcpyAtoH_v2
    cuArrayDestroy cuArray3DCreate_v2 cuArray3DGetDescriptor_v2
    cuTexObjectCreate cuTexObjectDestroy cuTexObjectGetResourceDesc cuTexObjectGetResourceViewDesc
    cuSurfObjectCreate cuSurfObjectDestroy cuSurfObjectGetResourceDesc
    cuLinkCreate_v2 cuLinkAddData_v2 cuLinkComplete cuLinkDestroy
    cuImportExternalMemory cuExternalMemoryGetMappedBuffer cuDestroyExternalMemory
    cuGraphCreate cuGraphDestroy cuGraphAddKernelNode cuGraphKernelNodeGetParams cuGraphGetNodes cuGraphGetEdges
    cuGraphNodeGetType cuGraphDebugDotPrint cuGraphInstantiate_v2 cuGraphInstantiateWithFlags cuGraphLaunch cuGraphExecDestroy
    cuStreamBeginCapture_v2 cuStreamEndCapture cuLaunchCooperativeKernel cuModuleGetTexRef cuModuleGetSurfRef
}
