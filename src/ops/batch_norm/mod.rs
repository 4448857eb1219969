//! Normalisation by batch statistics, per channel (Ioffe, Szegedy 2015).
//!
//! With N = n·h·w values per channel, mean μ, squared deviations S = Σ(x − μ)², v = S/D:
//!
//! - x̂ = (x − μ)/√(v + ε), y = γ·x̂ + β
//! - dβ = Σ dy, dγ = Σ dy·x̂
//! - dx = γ/√(v + ε)·(dy − dβ/N − x̂·dγ/D)
//!
//! In evaluation μ and v are constants, and dx = γ/√(v + ε)·dy.
//!
//! Two kinds of [`Statistics`] differ in D and in what evaluation uses:
//!
//! - `Running`: D = N; evaluation uses running averages, r ← r + momentum·(batch − r), of the mean and of the unbiased
//!   variance S/(N − 1). PyTorch's BatchNorm2d.
//! - `LastBatch`: D = N − 1; evaluation uses the statistics of the last training batch. The BnLayer of the CIFAR-10
//!   progression, where published code has ε = 0: a channel of equal values then divides by zero.
//!
//! Statistics are a mean and a sum of squared deviations per block of pixels, merged in fixed order (Chan et al. 1983),
//! never Σx² − (Σx)²/N.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;

use serde::{Deserialize, Serialize};

use super::{InPlace, Init, Keeps, Kernel, Layout, Mismatch, Op, ParamSpec, Saved, one_input};
use crate::backend::{Cpu, Real, Reference};
use crate::graph::Shape;

pub(super) use cpu::Piece;

/// Which statistics evaluation uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Statistics {
    /// Running averages.
    Running {
        /// The weight of the newest batch, in `[0, 1]`.
        momentum: f64,
    },
    /// Those of the last training batch.
    LastBatch,
}

/// Normalisation by batch statistics with a learned scale and shift per channel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm {
    /// Added to the variance, ≥ 0.
    pub eps: f64,
    /// What evaluation uses.
    pub statistics: Statistics,
}

impl BatchNorm {
    /// PyTorch's BatchNorm2d: ε 1e-5, momentum 0.1.
    pub const fn running() -> Self {
        BatchNorm { eps: 1e-5, statistics: Statistics::Running { momentum: 0.1 } }
    }

    /// The BnLayer of the CIFAR-10 progression; published code has `eps` 0.
    pub const fn last_batch(eps: f64) -> Self {
        BatchNorm { eps, statistics: Statistics::LastBatch }
    }

    /// The divisor D of the squared deviations of `count` values.
    fn divisor(&self, count: usize) -> f64 {
        match self.statistics {
            Statistics::Running { .. } => count as f64,
            Statistics::LastBatch => count.saturating_sub(1).max(1) as f64,
        }
    }

    /// 1/√(v + ε).
    fn inverse_std(&self, variance: f64) -> f64 {
        1.0 / (variance + self.eps).sqrt()
    }

    /// One channel's evaluation as y = scale·x + shift.
    pub(in crate::ops) fn scale_and_shift(&self, [gamma, beta, mean, variance]: [f64; 4]) -> (f64, f64) {
        let scale = gamma * self.inverse_std(variance);
        (scale, beta - mean * scale)
    }

    /// Folds one channel's batch statistics into its state. `squares` is S.
    fn update<E: Real>(&self, state: [&mut E; 2], mean: f64, squares: f64, count: usize) {
        let [state_mean, state_var] = state;
        match self.statistics {
            Statistics::Running { momentum } => {
                let unbiased = squares / count.saturating_sub(1).max(1) as f64;
                *state_mean += E::of(momentum) * (E::of(mean) - *state_mean);
                *state_var += E::of(momentum) * (E::of(unbiased) - *state_var);
            }
            Statistics::LastBatch => {
                *state_mean = E::of(mean);
                *state_var = E::of(squares / self.divisor(count));
            }
        }
    }

    /// Names of scale, shift, mean and variance, and the shape of scale and shift in files.
    fn names(&self, channels: usize) -> ([&'static str; 4], Vec<usize>) {
        match self.statistics {
            Statistics::Running { .. } => (["weight", "bias", "running_mean", "running_var"], vec![channels]),
            Statistics::LastBatch => (["m", "a", "last_mean", "last_var"], vec![channels, 1, 1]),
        }
    }
}

impl Op for BatchNorm {
    fn kind(&self) -> &'static str {
        match self.statistics {
            Statistics::Running { .. } => "batch_norm",
            Statistics::LastBatch => "last_batch_norm",
        }
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let momentum = if let Statistics::Running { momentum } = self.statistics { momentum } else { 0.0 };
        if !(self.eps >= 0.0 && self.eps.is_finite() && (0.0..=1.0).contains(&momentum)) {
            return Err(Mismatch::new(format!("{self:?}"), "eps ≥ 0 and momentum in [0, 1]"));
        }
        one_input(inputs)
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let ([scale, shift, ..], shape) = self.names(inputs[0].c);
        vec![
            ParamSpec { name: scale, layout: Layout::Plain(shape.clone()), init: Init::Constant(1.0) },
            ParamSpec { name: shift, layout: Layout::Plain(shape), init: Init::Constant(0.0) },
        ]
    }

    fn states(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let ([.., mean, variance], _) = self.names(inputs[0].c);
        let layout = Layout::Plain(vec![inputs[0].c]);
        vec![
            ParamSpec { name: mean, layout: layout.clone(), init: Init::Constant(0.0) },
            ParamSpec { name: variance, layout, init: Init::Constant(1.0) },
        ]
    }

    fn keeps(&self) -> Keeps {
        Keeps::INPUTS
    }

    fn saved(&self, inputs: &[Shape], _output: Shape) -> Vec<Saved> {
        // mean and 1/std
        vec![Saved { per_image: 0, fixed: inputs[0].c }; 2]
    }

    fn in_place(&self) -> InPlace {
        InPlace::BOTH
    }

    fn reference(&self) -> &dyn Kernel<Reference> {
        self
    }

    fn cpu(&self) -> &dyn Kernel<Cpu> {
        self
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self) -> Option<&dyn crate::backend::cuda::Kernel> {
        Some(self)
    }
}
