//! A map `[h, w, c]` as a vector `[h·w·c]`: the same bytes, and dx the same bytes as dy.
//!
//! The order here is H, W, C; the shape records the map so that a Linear behind it can write its columns in PyTorch's
//! C, H, W order.

#[cfg(feature = "conformance")]
pub(super) mod cases;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod kernels;

use serde::{Deserialize, Serialize};

use super::{InPlace, Kernel, Mismatch, Op, one_input};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// A map as a vector.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flatten;

impl Op for Flatten {
    fn kind(&self) -> &'static str {
        "flatten"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let x = one_input(inputs)?;
        let len = x.checked_len().ok_or_else(|| Mismatch::new(format!("a map {x}"), "fewer than 2^31 elements"))?;
        let flattened = if x.is_flat() { x.flattened } else { Some((x.h, x.w, x.c)) };
        Ok(Shape { flattened, ..Shape::flat(len) })
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
