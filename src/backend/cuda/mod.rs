//! NVIDIA GPUs: the kernels of `cuda/*.cu`, as PTX inside this program, launched through `cust`.
//!
//! Activations, parameters and their gradients lie on the device in the order that the host has them in, laid out by the same
//! plan. The driver is looked for when a [`Gpu`] is opened: a program without one runs on the CPU. Kernels are queued on one
//! stream, where those of one op follow each other, so that they need no other order; batches come on a second one.
//!
//! ```no_run
//! use handgrad::backend::{Cuda, cuda};
//! use handgrad::{engine::Engine, models};
//! for device in cuda::devices()? {
//!     println!("cuda:{} {}, {} MiB", device.index, device.name, device.memory >> 20);
//! }
//! let gpu = cuda::Gpu::open(1)?; // else the first one
//! let engine = Engine::<Cuda>::new(&models::build("resnet2", &Default::default())?, 256, 42)?;
//!
//! // Memory of one's own.
//! let mut block = cuda::Buffer::of(gpu, &[1.0f32, 2.0, 3.0])?;
//! block.fill(0..1, 7.0)?;
//! let mut values = [0.0; 3];
//! block.download(0, &mut values)?;
//! assert_eq!(values, [7.0, 2.0, 3.0]);
//!
//! // What ships, to be looked at or run elsewhere.
//! for kernel in handgrad::ops::cuda_kernels() {
//!     println!("{}: {} parameters", kernel.name, kernel.arguments.len());
//! }
//! for module in cuda::modules() {
//!     println!("{}: {} bytes for {}", module.name, cuda::ptx(module.name).unwrap_or_default().len(), module.target);
//! }
//! # Ok::<(), handgrad::Error>(())
//! ```

mod contract;
mod event;
pub(crate) mod gpu;
mod inputs;
mod kernels;
mod machine;
mod memory;
mod outputs;

pub(crate) use contract::Parts;
pub use contract::{Backward, Forward, Grad, Kernel, ParamGrad};
pub use cust::memory::DeviceCopy;
pub use gpu::{Gpu, Info, devices, driver};
pub(crate) use inputs::KERNELS as INPUT_KERNELS;
pub use kernels::{Argument, KernelInfo, Launch, ModuleInfo, Ptr, modules, ptx};
pub(crate) use kernels::{blocks, columns, int, kernels, per_four, per_one};
pub use machine::CudaMachine;
pub use memory::Buffer;

use crate::backend::{Backend, Precision};
use crate::graph::Shape;
use crate::infer::Device;
use crate::ops::Op;
use crate::{Error, ErrorKind, Result};

/// f32 on an NVIDIA GPU: the one that was opened ([`Gpu::open`]), else the first.
#[derive(Debug)]
pub enum Cuda {}

impl Backend for Cuda {
    type Elem = f32;
    type Machine = CudaMachine;
    const NAME: &'static str = "cuda";
    const FUSES: bool = false;

    fn scratch(op: &dyn Op, inputs: &[Shape], output: Shape, n: usize) -> Option<usize> {
        op.cuda().map(|kernel| kernel.scratch(inputs, output, n, Self::PRECISION))
    }

    fn from_f32<'a>(values: &'a [f32], _buffer: &'a mut Vec<f32>) -> &'a [f32] {
        values
    }

    fn check() -> Result<()> {
        Gpu::current().map(drop)
    }

    fn predicts_on() -> Result<Device> {
        Gpu::current().map(|gpu| Device::Cuda(gpu.info().index))
    }
}

/// [`Cuda`] with convolutions and linear layers on tensor cores: their operands are rounded to tf32, f32 with 10 bits of
/// mantissa, while they are multiplied. Sums, and all that memory holds, stay f32. Needs compute capability 8.0.
#[derive(Debug)]
pub enum CudaTf32 {}

/// The first GPUs with tensor cores for tf32, Ampere's.
const TF32_CAPABILITY: (i32, i32) = (8, 0);

impl Backend for CudaTf32 {
    type Elem = f32;
    type Machine = CudaMachine;
    const NAME: &'static str = Cuda::NAME;
    const PRECISION: Precision = Precision::Tf32;
    const FUSES: bool = false;

    fn scratch(op: &dyn Op, inputs: &[Shape], output: Shape, n: usize) -> Option<usize> {
        op.cuda().map(|kernel| kernel.scratch(inputs, output, n, Self::PRECISION))
    }

    fn from_f32<'a>(values: &'a [f32], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        Cuda::from_f32(values, buffer)
    }

    fn check() -> Result<()> {
        let Info { index, name, capability, .. } = Gpu::current()?.info();
        if *capability >= TF32_CAPABILITY {
            return Ok(());
        }
        let (major, minor) = capability;
        let found = format!("cuda:{index}, {name}, has compute capability {major}.{minor}");
        let (major, minor) = TF32_CAPABILITY;
        Err(Error::new(ErrorKind::Unsupported, "--precision tf32", found)
            .expected(format!("a GPU with tensor cores for tf32: compute capability {major}.{minor} or later"))
            .hint("take --precision f32, or another GPU with --backend cuda:N"))
    }

    fn predicts_on() -> Result<Device> {
        Cuda::predicts_on()
    }
}
