//! Runs PTX on the processor, warp by warp, checks every access and counts: a stand-in for a GPU in tests.
//!
//! A [`Device`] has memory at invented addresses; a [`Module`] is a PTX text, decoded once; a launch runs all blocks of a
//! grid and gives [`Counters`], or the [`Fault`] that it met: kernel, block, thread, PTX line and address.
//!
//! ```
//! use driver_double::{Config, Device, Launch};
//!
//! let ptx = "
//!     .version 7.0
//!     .target sm_75
//!     .address_size 64
//!     .visible .entry double_it(.param .u64 x, .param .u32 n) {
//!         .reg .pred %p<2>;
//!         .reg .b32 %r<6>;
//!         .reg .f32 %f<3>;
//!         .reg .b64 %rd<4>;
//!         ld.param.u64 %rd1, [x];
//!         ld.param.u32 %r1, [n];
//!         mov.u32 %r2, %ctaid.x;
//!         mov.u32 %r3, %ntid.x;
//!         mov.u32 %r4, %tid.x;
//!         mad.lo.s32 %r5, %r2, %r3, %r4;
//!         setp.ge.s32 %p1, %r5, %r1;
//!         @%p1 bra END;
//!         mul.wide.s32 %rd2, %r5, 4;
//!         add.s64 %rd3, %rd1, %rd2;
//!         ld.global.f32 %f1, [%rd3];
//!         add.f32 %f2, %f1, %f1;
//!         st.global.f32 [%rd3], %f2;
//!     END:
//!         ret;
//!     }";
//! let mut device = Device::new(Config::default());
//! let module = device.load(ptx)?;
//! let x = device.with_f32(&[1.0, 2.0, 3.0])?;
//! let launch = Launch { grid: [1, 1, 1], block: [32, 1, 1], shared: 0 };
//!
//! let counters = device.launch(&module, "double_it", launch, &[&x.to_le_bytes(), &3u32.to_le_bytes()])?;
//! assert_eq!(device.f32s(x, 3)?, [2.0, 4.0, 6.0]);
//! assert_eq!((counters.global_loads.bytes, counters.global_loads.transactions), (12, 1));
//!
//! // One element too many is a fault, not a wrong number.
//! let fault = device.launch(&module, "double_it", launch, &[&x.to_le_bytes(), &4u32.to_le_bytes()]).unwrap_err();
//! assert!(fault.to_string().contains("thread (3, 0, 0): reads 4 bytes of Global memory"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is checked
//!
//! Bounds and alignment of every access; reads of memory that nothing has written (global, shared, local); races in shared
//! memory between warps, by byte, from barrier to barrier; stores of different values to one address by one instruction;
//! bytes of a `cp.async` touched before it was waited for; barriers that a part of a warp or of a block reaches; member
//! masks; endless loops (a budget of instructions); writes to constant memory.
//!
//! # What it can't show
//!
//! Time. Races between blocks in global memory, and between lanes of one warp that rely on running in step. Missing
//! fences: memory is coherent here. Lanes that wait for another lane of their warp in a loop run out of their budget. The
//! approximate functions (`ex2`, `lg2`, `sin`, …) give better results than a GPU's, and tensor-core sums are rounded once.
//! Calls through pointers, textures, surfaces, clusters, `wgmma` and `cp.async.bulk` are refused when a module is loaded.

#![deny(missing_docs)]

mod counters;
mod device;
mod exec;
mod fault;
mod lanes;
mod lower;
mod memory;
mod num;
mod program;
mod ptx;

pub use counters::{Counters, Traffic};
pub use device::{Config, Device, KernelInfo, Launch, LaunchError, Module};
pub use fault::{AccessKind, Fault, FaultKind};
pub use memory::MemoryError;
pub use program::Class;
pub use ptx::{PtxError, Space};
