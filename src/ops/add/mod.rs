//! Sum of two to eight inputs: y = x₀ + x₁ + …; every dxᵢ = dy.

#[cfg(feature = "conformance")]
pub(super) mod cases;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod kernels;

use serde::{Deserialize, Serialize};

use super::{InPlace, Kernel, Mismatch, Op};
use crate::backend::{Cpu, Reference};
use crate::graph::{Shape, list};

/// Sum of inputs of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Add;

impl Op for Add {
    fn kind(&self) -> &'static str {
        "add"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        match inputs {
            [first, rest @ ..] if !rest.is_empty() && rest.iter().all(|x| first.same_dims(*x)) => Ok(*first),
            _ => Err(Mismatch::new(format!("inputs {}", list(inputs)), "two or more inputs of one shape")),
        }
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
