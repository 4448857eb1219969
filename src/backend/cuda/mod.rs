//! NVIDIA GPUs: the kernels of `cuda/*.cu`, as PTX inside this program, launched through `cust`.
//!
//! Activations, parameters and their gradients lie on the device in the order that the host has them in, laid out by the same
//! plan. The driver is looked for when a [`Gpu`] is opened: a program without one runs on the CPU. Everything is queued on one
//! stream; kernels of one op follow each other on it, so that they need no other order.

mod contract;
pub(crate) mod gpu;
mod kernels;
mod machine;
mod memory;

pub(crate) use contract::Parts;
pub use contract::{Backward, Forward, Grad, Kernel, ParamGrad};
pub use cust::memory::DeviceCopy;
pub use gpu::{Gpu, Info, devices, driver};
pub use kernels::{Argument, KernelInfo, Launch, ModuleInfo, Ptr, modules, ptx};
pub(crate) use kernels::{blocks, columns, int, kernels, per_four, per_one};
pub use machine::CudaMachine;
pub use memory::Buffer;

use crate::Result;
use crate::backend::Backend;
use crate::graph::Shape;
use crate::ops::Op;

/// f32 on an NVIDIA GPU: the one that was opened ([`Gpu::open`]), else the first.
#[derive(Debug)]
pub enum Cuda {}

impl Backend for Cuda {
    type Elem = f32;
    type Machine = CudaMachine;
    const NAME: &'static str = "cuda";

    fn scratch(op: &dyn Op, inputs: &[Shape], output: Shape, n: usize) -> Option<usize> {
        op.cuda().map(|kernel| kernel.scratch(inputs, output, n))
    }

    fn from_f32<'a>(values: &'a [f32], _buffer: &'a mut Vec<f32>) -> &'a [f32] {
        values
    }

    fn check() -> Result<()> {
        Gpu::current().map(drop)
    }
}
