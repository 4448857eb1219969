//! Mean over a sliding window, per channel, over the cells that lie on the map (PyTorch's `count_include_pad=False`).
//!
//! y[o] = (1/m)·Σₖ x[o·s + k·d − p] over the m cells on the map; each of their dx gets dy[o]/m.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;

use serde::{Deserialize, Serialize};

use super::max_pool::pooled;
use super::{Kernel, Mismatch, Op, Window, one_input};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// Mean over a sliding window: `[h, w, c]` → `[oh, ow, c]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvgPool {
    /// Kernel, stride, padding (at most half the kernel), dilation.
    pub window: Window,
    /// Whether a last, partial window counts.
    pub ceil: bool,
}

impl Op for AvgPool {
    fn kind(&self) -> &'static str {
        "avg_pool"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let x = one_input(inputs)?;
        let (h, w) = pooled(&self.window, x, self.ceil)?;
        Ok(Shape::new(h, w, x.c))
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
