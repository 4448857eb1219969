//! Dropout (Srivastava et al. 2014), inverted: in training y = x·mask/(1 − p), mask 0 with probability p; dx the same
//! of dy. Otherwise y = x and dx = dy.
//!
//! The mask is a function of (run, step, node, image, element): backward draws it again instead of storing it.

#[cfg(feature = "conformance")]
pub(super) mod cases;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod kernels;

use serde::{Deserialize, Serialize};

use super::{InPlace, Kernel, Mismatch, Op, one_input};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// Random zeros in training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// The probability of a zero, in `[0, 1)`.
    pub p: f64,
}

impl Op for Dropout {
    fn kind(&self) -> &'static str {
        "dropout"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        if !(0.0..1.0).contains(&self.p) {
            return Err(Mismatch::new(format!("p = {}", self.p), "0 ≤ p < 1"));
        }
        one_input(inputs)
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
