//! Product with a constant: y = factor·x, dx = factor·dy.

#[cfg(feature = "conformance")]
pub(super) mod cases;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod kernels;

use serde::{Deserialize, Serialize};

use super::{InPlace, Kernel, Mismatch, Op, one_input};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// Product with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The constant.
    pub factor: f64,
}

impl Op for Scale {
    fn kind(&self) -> &'static str {
        "scale"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        if !self.factor.is_finite() {
            return Err(Mismatch::new(format!("factor {}", self.factor), "a finite factor"));
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
