//! Where a session's plan runs, and in what memory: the host's or a GPU's.

use std::sync::Arc;

use ndarray::{ArrayView2, ArrayView4};

use super::model::Inner;
use crate::Result;
use crate::backend::Cpu;
#[cfg(feature = "cuda")]
use crate::backend::{
    Cuda,
    cuda::{CudaMachine, Gpu},
};
#[cfg(feature = "cuda")]
use crate::plan::Machine;
use crate::plan::{Arena, Input, Mode, Pixels, Plan};
use crate::rng::Key;

/// Where a [`Session`](super::Session) runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// On CPU threads.
    #[default]
    Cpu,
    /// On the GPU of this number.
    #[cfg(feature = "cuda")]
    Cuda(u32),
}

/// The memory of one session, besides its images and their scores.
pub(super) enum Memory {
    Host {
        /// The weights as the kernels read them, which all sessions of a model share.
        prepared: Arc<Arena<f32>>,
        arena: Arena<f32>,
        /// A copy of the model's: kernels get it to change, although only training does.
        states: Arena<f32>,
    },
    /// With the weights, which each session there has for itself.
    #[cfg(feature = "cuda")]
    Gpu(Box<CudaMachine>),
}

impl Memory {
    /// A plan for up to `max_batch` images, and memory for it.
    pub fn new(inner: &Inner, max_batch: usize, device: Device) -> Result<(Plan, Self)> {
        match device {
            Device::Cpu => {
                let plan = Plan::compile::<Cpu>(&inner.graph, max_batch, Mode::Infer)?;
                let mut states = Arena::new(inner.params.states().len())?;
                states.all_mut().copy_from_slice(inner.params.states());
                let (prepared, arena) = (inner.prepared(&plan)?, Arena::new(plan.arena_len())?);
                Ok((plan, Memory::Host { prepared, arena, states }))
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => {
                Gpu::open(index)?;
                let plan = Plan::compile::<Cuda>(&inner.graph, max_batch, Mode::Infer)?;
                let machine: CudaMachine = Machine::<Cuda>::new(plan.arena_len(), &inner.params)?;
                Ok((plan, Memory::Gpu(machine.into())))
            }
        }
    }

    /// Elements that it holds, on the host or there; the weights that sessions share apart.
    pub fn len(&self) -> usize {
        match self {
            Memory::Host { arena, states, .. } => arena.len() + states.len(),
            #[cfg(feature = "cuda")]
            Memory::Gpu(machine) => machine.len(),
        }
    }

    /// Whether [`Memory::run_pixels`] may be called.
    pub fn takes_pixels(&self) -> bool {
        match self {
            Memory::Host { .. } => false,
            #[cfg(feature = "cuda")]
            Memory::Gpu(_) => true,
        }
    }

    /// Runs the model on contiguous images.
    pub fn run(&mut self, plan: &Plan, inner: &Inner, images: ArrayView4<'_, f32>) -> Result<()> {
        self.run_on(plan, inner, Input { images, pixels: None, targets: None, key: Key::new(0) })
    }

    /// Runs the model on images as bytes, on a device.
    pub fn run_pixels(&mut self, plan: &Plan, inner: &Inner, pixels: Pixels<'_>, n: usize) -> Result<()> {
        self.run_on(plan, inner, pixels.input(plan, n, None, &0.0, Key::new(0))?)
    }

    fn run_on(&mut self, plan: &Plan, inner: &Inner, input: Input<'_, f32>) -> Result<()> {
        match self {
            Memory::Host { prepared, arena, states } => {
                plan.infer::<Cpu>(input, (&inner.params, prepared.all()), states, arena);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Memory::Gpu(machine) => machine.infer(plan, input, &inner.params),
        }
    }

    /// The class scores `[n, outputs]` of the last run, of `n` images.
    pub fn logits(&self, plan: &Plan, n: usize) -> ArrayView2<'_, f32> {
        match self {
            Memory::Host { arena, .. } => plan.logits(n, arena),
            #[cfg(feature = "cuda")]
            Memory::Gpu(machine) => Machine::<Cuda>::logits(&**machine, plan, n),
        }
    }
}
