//! Softmax and cross-entropy on dense targets, one loss per image.
//!
//! With log pⱼ = xⱼ − log Σₖ exp xₖ (the maximum subtracted first) and targets t:
//!
//! - y = −Σⱼ tⱼ·log pⱼ
//! - dxⱼ = (pⱼ·Σₖ tₖ − tⱼ)·dy
//! - dtⱼ = −log pⱼ·dy
//!
//! Targets are distributions: a one-hot vector gives PyTorch's NLL of log-softmax; label smoothing, MixUp and CutMix
//! are other vectors.

#[cfg(feature = "conformance")]
pub(super) mod cases;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod kernels;

use serde::{Deserialize, Serialize};

use super::{Kernel, Mismatch, Op, Saved};
use crate::backend::{Cpu, Reference};
use crate::graph::{Shape, list};

/// Softmax and cross-entropy: (scores `[classes]`, targets `[classes]`) → loss `[1]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoftmaxCrossEntropy;

impl Op for SoftmaxCrossEntropy {
    fn kind(&self) -> &'static str {
        "softmax_cross_entropy"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        match inputs {
            [x, t] if x.is_flat() && x.same_dims(*t) => Ok(Shape::flat(1)),
            _ => Err(Mismatch::new(list(inputs), "scores and targets, both [classes]")),
        }
    }

    fn saved(&self, inputs: &[Shape], _output: Shape) -> Vec<Saved> {
        // log p and t
        vec![Saved { per_image: inputs[0].c, fixed: 0 }, Saved { per_image: inputs[0].c, fixed: 0 }]
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
