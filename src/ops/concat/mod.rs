//! Channels of several maps side by side.
//!
//! y[p] = (x₀[p], x₁[p], …) for every pixel p; each input's gradient is its part of dy.

#[cfg(feature = "conformance")]
pub(super) mod cases;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod kernels;

use serde::{Deserialize, Serialize};

use super::{Kernel, MAX_INPUTS, Mismatch, Op, Saved};
use crate::backend::{Cpu, Reference};
use crate::graph::{Shape, list};

/// Maps of one size, their channels side by side: `[h, w, c₀]`, `[h, w, c₁]`, … → `[h, w, c₀ + c₁ + …]`.
///
/// ```
/// use handgrad::graph::{Graph, Shape};
/// use handgrad::ops::{Activation, Concat};
/// let mut g = Graph::new(Shape::new(8, 8, 3));
/// let x = g.node("act", Activation::Relu, &[g.images()])?;
/// let y = g.node("cat", Concat, &[g.images(), x])?;
/// assert_eq!(g.shape(y), Shape::new(8, 8, 6));
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concat;

impl Op for Concat {
    fn kind(&self) -> &'static str {
        "concat"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let first = match inputs {
            [first, _, ..] if inputs.len() <= MAX_INPUTS => first,
            _ => return Err(Mismatch::new(format!("{} inputs", inputs.len()), format!("2 to {MAX_INPUTS} inputs"))),
        };
        if inputs.iter().any(|x| (x.h, x.w) != (first.h, first.w)) {
            return Err(Mismatch::new(list(inputs), format!("maps of {}×{} pixels", first.h, first.w)));
        }
        // Channel counts are saved as floating-point numbers: f32 counts to 2^24.
        let sum = inputs.iter().try_fold(0usize, |sum, x| sum.checked_add(x.c)).filter(|&sum| sum <= 1 << 24);
        let channels = sum.ok_or_else(|| Mismatch::new(list(inputs), "at most 2^24 channels together"))?;
        Ok(Shape::new(first.h, first.w, channels))
    }

    fn saved(&self, inputs: &[Shape], _output: Shape) -> Vec<Saved> {
        // The inputs' channels: a backward pass sees no input that wants no gradient.
        vec![Saved { per_image: 0, fixed: inputs.len() }]
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
