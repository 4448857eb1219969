//! Stochastic depth (Huang et al. 2016): in training, a branch's output for an image is dropped with probability p, and
//! divided by 1 − p where it is kept; dx the same of dy. Otherwise y = x and dx = dy.
//!
//! Which images are dropped is a function of (run, step, node, image): backward draws it again instead of storing it.

#[cfg(feature = "conformance")]
pub(super) mod cases;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod kernels;

use serde::{Deserialize, Serialize};

use super::{InPlace, Kernel, Mismatch, Op, one_input};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// Whole images become zero in training: the end of a residual branch.
///
/// ```
/// use handgrad::graph::{Graph, Shape};
/// use handgrad::ops::{Activation, Add, DropPath};
/// let mut g = Graph::new(Shape::new(8, 8, 16));
/// let x = g.node("act", Activation::Relu, &[g.images()])?;
/// let x = g.node("drop", DropPath { p: 0.1 }, &[x])?;
/// g.node("add", Add, &[g.images(), x])?;
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropPath {
    /// The probability of a zero, in `[0, 1)`.
    pub p: f64,
}

impl Op for DropPath {
    fn kind(&self) -> &'static str {
        "drop_path"
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
