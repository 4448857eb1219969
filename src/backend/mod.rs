//! What ops share on a device.

pub mod cpu;
mod elementary;
pub mod parallel;

use std::fmt::{Debug, Display};
use std::iter::Sum;

pub use elementary::Elementary;

/// The numbers a host backend computes with.
pub trait Real: ndarray::NdFloat + Elementary + Default + Sum + Display + Debug + Send + Sync {
    /// Rounds to this precision.
    fn of(value: f64) -> Self;
    /// Widens.
    fn wide(self) -> f64;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn wide(self) -> f64 {
        self
    }
}

/// A backend whose tensors lie in the host's memory.
pub trait Host: Sized + Send + Sync + 'static {
    /// The element type of activations, parameters and gradients.
    type Elem: Real;
    /// The name that `--backend` takes.
    const NAME: &'static str;
    /// This backend's implementation of `op`.
    fn kernel(op: &dyn crate::ops::Op) -> &dyn crate::ops::Kernel<Self>;
    /// f32 values, as batches hold them, as this backend's; `buffer` keeps them where they have to be converted.
    fn from_f32<'a>(values: &'a [f32], buffer: &'a mut Vec<Self::Elem>) -> &'a [Self::Elem];
    /// Whether this machine and environment can run it.
    ///
    /// # Errors
    /// What is missing.
    fn check() -> crate::Result<()> {
        Ok(())
    }
}

/// Naive loops in f64, written to be read: the truth that finite differences prove.
#[derive(Debug)]
pub enum Reference {}

impl Host for Reference {
    type Elem = f64;
    const NAME: &'static str = "reference";
    fn kernel(op: &dyn crate::ops::Op) -> &dyn crate::ops::Kernel<Self> {
        op.reference()
    }
    fn from_f32<'a>(values: &'a [f32], buffer: &'a mut Vec<f64>) -> &'a [f64] {
        buffer.clear();
        buffer.extend(values.iter().map(|&v| f64::from(v)));
        buffer
    }
}

/// f32 on CPU threads with SIMD: the fast one.
#[derive(Debug)]
pub enum Cpu {}

impl Host for Cpu {
    type Elem = f32;
    const NAME: &'static str = "cpu";
    fn kernel(op: &dyn crate::ops::Op) -> &dyn crate::ops::Kernel<Self> {
        op.cpu()
    }
    fn from_f32<'a>(values: &'a [f32], _buffer: &'a mut Vec<f32>) -> &'a [f32] {
        values
    }
    fn check() -> crate::Result<()> {
        cpu::simd::Level::current().map(drop)
    }
}

/// The SIMD level of kernels. A request that the machine cannot serve was an error of [`Host::check`], before any
/// kernel ran.
pub(crate) fn simd_level() -> cpu::simd::Level {
    cpu::simd::Level::current().unwrap_or_else(|_| cpu::simd::Level::best())
}
