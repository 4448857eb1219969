//! The product of a map with one factor per channel: what ends squeeze-excitation (Hu, Shen, Sun 2017).
//!
//! For pixel p and channel c of an image:
//!
//! - y[p, c] = x[p, c]·s[c]
//! - dx[p, c] = dy[p, c]·s[c]
//! - ds[c] = Σₚ dy[p, c]·x[p, c]
//!
//! The factors are another layer's output, so that each image has its own.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;

use serde::{Deserialize, Serialize};

use super::{InPlace, Keeps, Kernel, Mismatch, Op};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// The product of a map `[h, w, c]` with factors `[1, 1, c]`: `[h, w, c]`.
///
/// Squeeze-excitation with 16 inner channels, on 64:
///
/// ```
/// use handgrad::graph::{Graph, Shape};
/// use handgrad::ops::{Activation, AdaptivePool, ChannelScale, Conv2d, Reduce};
/// let mut g = Graph::new(Shape::new(8, 8, 64));
/// let x = g.images();
/// let s = g.node("se.0", AdaptivePool::global(Reduce::Mean), &[x])?;
/// let s = g.node("se.1.0", Conv2d::square(16, 1, 1, 0), &[s])?;
/// let s = g.node("se.1.1", Activation::Relu, &[s])?;
/// let s = g.node("se.2.0", Conv2d::square(64, 1, 1, 0), &[s])?;
/// let s = g.node("se.2.1", Activation::Sigmoid, &[s])?;
/// let y = g.node("se.3", ChannelScale, &[x, s])?;
/// assert_eq!(g.shape(y), Shape::new(8, 8, 64));
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelScale;

impl Op for ChannelScale {
    fn kind(&self) -> &'static str {
        "channel_scale"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        match inputs {
            [x, s] if s.same_dims(Shape::flat(x.c)) => Ok(*x),
            [x, s] => Err(Mismatch::new(format!("a map {x} and factors {s}"), format!("factors {}", Shape::flat(x.c)))),
            _ => Err(Mismatch::new(format!("{} inputs", inputs.len()), "two inputs, a map and a factor per channel")),
        }
    }

    fn flops(&self, _inputs: &[Shape], output: Shape) -> u64 {
        output.len() as u64
    }

    fn keeps(&self) -> Keeps {
        Keeps::INPUTS
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
