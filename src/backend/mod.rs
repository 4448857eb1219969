//! What ops share on a device.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod elementary;
pub mod parallel;
mod precision;

use std::fmt::{Debug, Display};
use std::iter::Sum;

use cpu::conv::Epilogue;
use cpu::gemm::{self, LinearGeometry};

use crate::graph::Shape;
use crate::ops::{Kernel, Op};
use crate::plan::{Arena, Machine};

#[cfg(feature = "cuda")]
pub use cuda::{Cuda, CudaTf32};
pub use elementary::Elementary;
pub use precision::Precision;

/// The numbers a host backend computes with.
pub trait Real: ndarray::NdFloat + Elementary + Default + Sum + Display + Debug + Send + Sync {
    /// Rounds to this precision.
    fn of(value: f64) -> Self;
    /// Widens.
    fn wide(self) -> f64;
    /// y `[m, n]` = x `[m, k]` · w `[k, n]`, on all threads, with at least [`Real::multiply_scratch`] of scratch.
    fn multiply(mkn: [usize; 3], x: &[Self], w: &[Self], y: &mut [Self], scratch: &mut [Self]);
    /// The scratch that [`Real::multiply`] needs.
    fn multiply_scratch(m: usize, k: usize, n: usize) -> usize;
    /// y `[m, n]` = x `[m, k]` · (w `[n, k]`)ᵀ, with at least [`Real::multiply_transposed_scratch`] of scratch.
    fn multiply_transposed(mkn: [usize; 3], x: &[Self], w: &[Self], y: &mut [Self], scratch: &mut [Self]);
    /// The scratch that [`Real::multiply_transposed`] needs.
    fn multiply_transposed_scratch(m: usize, k: usize, n: usize) -> usize;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
    fn multiply([m, k, n]: [usize; 3], x: &[f32], w: &[f32], y: &mut [f32], scratch: &mut [f32]) {
        let shape = LinearGeometry { inputs: k, outputs: n };
        gemm::forward(simd_level(), &shape, m, x, w, y, Epilogue::NONE, scratch);
    }
    fn multiply_scratch(m: usize, k: usize, n: usize) -> usize {
        gemm::forward_scratch(simd_level(), &LinearGeometry { inputs: k, outputs: n }, m)
    }
    fn multiply_transposed([m, k, n]: [usize; 3], x: &[f32], w: &[f32], y: &mut [f32], scratch: &mut [f32]) {
        let shape = LinearGeometry { inputs: n, outputs: k };
        gemm::input_gradient(simd_level(), &shape, m, x, w, y, false, scratch);
    }
    fn multiply_transposed_scratch(m: usize, k: usize, n: usize) -> usize {
        gemm::input_gradient_scratch(simd_level(), &LinearGeometry { inputs: n, outputs: k }, m)
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn wide(self) -> f64 {
        self
    }
    fn multiply([_, k, n]: [usize; 3], x: &[f64], w: &[f64], y: &mut [f64], _scratch: &mut [f64]) {
        for (x, y) in x.chunks(k).zip(y.chunks_mut(n)) {
            y.fill(0.0);
            for (x, w) in x.iter().zip(w.chunks(n)) {
                y.iter_mut().zip(w).for_each(|(y, w)| *y += x * w);
            }
        }
    }
    fn multiply_scratch(_: usize, _: usize, _: usize) -> usize {
        0
    }
    fn multiply_transposed([_, k, n]: [usize; 3], x: &[f64], w: &[f64], y: &mut [f64], _scratch: &mut [f64]) {
        for (x, y) in x.chunks(k).zip(y.chunks_mut(n)) {
            for (w, y) in w.chunks(k).zip(y) {
                *y = x.iter().zip(w).map(|(x, w)| x * w).sum();
            }
        }
    }
    fn multiply_transposed_scratch(_: usize, _: usize, _: usize) -> usize {
        0
    }
}

/// Where and how a model runs.
pub trait Backend: Sized + Send + Sync + 'static {
    /// The element type of activations, parameters and gradients.
    type Elem: Real;
    /// The memory that plans run in, and what runs them there.
    type Machine: Machine<Self>;
    /// The name that `--backend` takes.
    const NAME: &'static str;
    /// The precision of the recipes that it runs.
    const PRECISION: Precision = Precision::F32;
    /// Whether it has the layers that plans make of several ([`ConvNormAct`](crate::ops::ConvNormAct),
    /// [`NormAct`](crate::ops::NormAct)).
    const FUSES: bool = true;
    /// Elements of working memory that either pass of `op` needs for up to `n` images; `None` where this backend does not
    /// have the op.
    fn scratch(op: &dyn Op, inputs: &[Shape], output: Shape, n: usize) -> Option<usize>;
    /// Elements that an inference plan prepares of the op's parameters and states.
    fn prepared(_op: &dyn Op, _inputs: &[Shape], _output: Shape) -> usize {
        0
    }
    /// f32 values, as batches hold them, as this backend's; `buffer` keeps them where they have to be converted.
    fn from_f32<'a>(values: &'a [f32], buffer: &'a mut Vec<Self::Elem>) -> &'a [Self::Elem];
    /// Whether this machine and environment can run it.
    ///
    /// # Errors
    /// What is missing.
    fn check() -> crate::Result<()> {
        Ok(())
    }
    /// Where models predict that it has trained.
    ///
    /// # Errors
    /// Those of [`Backend::check`].
    #[cfg(feature = "infer")]
    fn predicts_on() -> crate::Result<crate::infer::Device> {
        Ok(crate::infer::Device::Cpu)
    }
}

/// A backend whose tensors lie in the host's memory: its plans run in an [`Arena`].
pub trait Host: Backend {
    /// This backend's implementation of `op`.
    fn kernel(op: &dyn Op) -> &dyn Kernel<Self>;
}

/// Naive loops in f64, written to be read: the truth that finite differences prove.
#[derive(Debug)]
pub enum Reference {}

impl Backend for Reference {
    type Elem = f64;
    type Machine = Arena<f64>;
    const NAME: &'static str = "reference";
    fn scratch(op: &dyn Op, inputs: &[Shape], output: Shape, n: usize) -> Option<usize> {
        Some(op.reference().scratch(inputs, output, n))
    }
    fn prepared(op: &dyn Op, inputs: &[Shape], output: Shape) -> usize {
        op.reference().prepared(inputs, output)
    }
    fn from_f32<'a>(values: &'a [f32], buffer: &'a mut Vec<f64>) -> &'a [f64] {
        buffer.clear();
        buffer.extend(values.iter().map(|&v| f64::from(v)));
        buffer
    }
}

impl Host for Reference {
    fn kernel(op: &dyn Op) -> &dyn Kernel<Self> {
        op.reference()
    }
}

/// f32 on CPU threads with SIMD: the fast one.
#[derive(Debug)]
pub enum Cpu {}

impl Backend for Cpu {
    type Elem = f32;
    type Machine = Arena<f32>;
    const NAME: &'static str = "cpu";
    fn scratch(op: &dyn Op, inputs: &[Shape], output: Shape, n: usize) -> Option<usize> {
        Some(op.cpu().scratch(inputs, output, n))
    }
    fn prepared(op: &dyn Op, inputs: &[Shape], output: Shape) -> usize {
        op.cpu().prepared(inputs, output)
    }
    fn from_f32<'a>(values: &'a [f32], _buffer: &'a mut Vec<f32>) -> &'a [f32] {
        values
    }
    fn check() -> crate::Result<()> {
        cpu::simd::Level::current().map(drop)
    }
}

impl Host for Cpu {
    fn kernel(op: &dyn Op) -> &dyn Kernel<Self> {
        op.cpu()
    }
}

/// The SIMD level of kernels. A request that the machine cannot serve was an error of [`Backend::check`], before any
/// kernel ran.
pub(crate) fn simd_level() -> cpu::simd::Level {
    cpu::simd::Level::current().unwrap_or_else(|_| cpu::simd::Level::best())
}
